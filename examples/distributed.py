"""Run one pipeline on several processes, read one movie on a cluster, and project to 100 TB.

    pip install "dj-photon-codecs[examples]"
    python examples/distributed.py

The workers are separate processes that share only the database and the stores, as they would on separate machines. Each
runs this file with ``--worker``, and DataJoint's job tables ensure that no two do the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _setup import parser, place  # first, because it says which package is missing

# isort: split

import dask.array
import numpy as np
from calcium_imaging import ROI, MotionCorrected, Profile, Recording, Trace, record, schema
from dask.distributed import Client, LocalCluster

from dj_photon_codecs import Calibration, calibrate, open_movie, write_movie

TABLES = (Recording, MotionCorrected, ROI, Trace)
Profile.contents = Profile.contents[:1]  # no comparison here
PATIENCE = 600  # seconds to wait for the workers


# --8<-- [start:worker]
def work(schema_name: str) -> None:
    """Take jobs and do them until none is left; this runs on every worker."""
    schema.activate(schema_name)
    made = dict.fromkeys((table.__name__ for table in TABLES), 0)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for table in TABLES:
            done = table.populate(reserve_jobs=True, suppress_errors=True, max_calls=1)
            made[table.__name__] += done["success_count"]
        if not any(left(table) for table in TABLES):
            break
        time.sleep(0.2)  # the remaining jobs need results of other workers
    print(" ".join(f"{name}={count}" for name, count in made.items()))


# --8<-- [end:worker]


def left(table: Any) -> int:
    """Count the keys that a table has yet to make, without those whose make() failed."""
    return max(0, len(table.key_source - table.proj()) - len(table.jobs.errors))


def run_workers(number: int, schema_name: str, environment: dict[str, str]) -> list[str]:
    """Start workers, wait for them, and return what each has made."""
    command = [sys.executable, __file__, "--worker", schema_name]
    variables = {**os.environ, **environment}
    workers = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        for _ in range(number)
    ]
    try:
        return [worker.communicate(timeout=PATIENCE)[0].strip() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def main(arguments: list[str] | None = None) -> None:
    """Run the pipeline on workers, read a movie on a cluster, and project to 100 TB."""
    options = parser(__doc__)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--worker", metavar="SCHEMA", help="be a worker on that schema; the connection is in DJ_...")
    chosen = options.parse_args(arguments)
    if chosen.worker:
        work(chosen.worker)
        return
    with place(chosen, schema, "distributed", ("active", "archive")) as here:
        record(here.folder)
        for table in TABLES:
            table.jobs.refresh(delay=-1)  # so that the workers find the job tables made
        outputs = run_workers(chosen.workers, here.schema, here.environment)
        for number, output in enumerate(outputs, start=1):
            print(f"worker {number}   {output}")
        print("rows       " + " ".join(f"{table.__name__}={len(table())}" for table in TABLES))
        print("errors     " + " ".join(f"{table.__name__}={len(table.jobs.errors)}" for table in TABLES))
        print()
        with (
            LocalCluster(n_workers=chosen.workers, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            read_on_cluster((Recording & {"session": 1, "profile": "standard"}).fetch1("movie"))
            write_on_cluster(here.folder)
            project(*measure(client, here.folder, chosen.workers))


def read_on_cluster(movie: Any) -> None:
    """Compute on one movie: workers get the handle and read their chunks from the store."""
    counts = movie.to_dask()
    mean = counts.mean(axis=0).compute()  # on the cluster, because its client is the current one
    print(f"dask       {counts.numblocks[0]} blocks of {counts.chunksize}, one chunk each")
    print(f"           mean image on the cluster as in this process: {np.allclose(mean, movie[:].mean(axis=0))}")


def write_on_cluster(folder: Path) -> None:
    """Store what a cluster computes: workers compute, encode and write blocks of one object each."""
    photons = dask.array.random.default_rng(0).poisson(6, size=(256, 512, 512), chunks=(64, 512, 512))
    counts = (30 * photons + 100).astype(np.uint16)  # this process gets only a sample of the counts
    stored = write_movie(folder / "from_workers.zarr", counts, calibration=Calibration.given(30, 100))
    objects = -(-len(stored) // (stored.shards or stored.chunks)[0])
    print(f"           {objects} objects written by the workers, a movie of {stored.shape}: {stored.verify()}\n")


def measure(client: Client, folder: Path, workers: int) -> tuple[float, float, float]:
    """Measure the ratio of a 512 x 512 movie, and the bytes of counts written and read per second of one core."""
    rng = np.random.default_rng(0)
    brightness = rng.uniform(2, 10, size=(512, 512))  # photons
    counts = (30 * rng.poisson(brightness, size=(128, 512, 512)) + 100).astype(np.uint16)
    paths = [folder / f"large{worker}.zarr" for worker in range(workers)]
    (sent,) = client.scatter([counts], broadcast=True)
    written = client.gather(client.map(write, paths, [sent] * workers))
    read = client.gather(client.map(read_all, paths))
    ratio = open_movie(paths[0]).compression_ratio
    return ratio, counts.nbytes / float(np.mean(written)), counts.nbytes / float(np.mean(read))


def write(path: Path, counts: Any) -> float:
    """Store a movie and return the processor time in seconds.

    Without those of measuring the noise, about 0.3 seconds for a movie of any length, which weigh nothing in long ones.
    """
    noise = calibrate(counts)
    write_movie(path.with_suffix(".warm"), counts[:16], calibration=noise)  # the first time also loads code
    start = time.process_time()
    write_movie(path, counts, calibration=noise)
    return time.process_time() - start


def read_all(path: Path) -> float:
    """Read a movie frame by frame and return the processor time in seconds."""
    open_movie(path)[:16]
    movie = open_movie(path)  # a new handle with an empty cache
    start = time.process_time()
    for _ in movie.frames():
        pass
    return time.process_time() - start


def project(ratio: float, write_rate: float, read_rate: float) -> None:
    """Project the measurement to 100 TB, for cores that do nothing else and a store that keeps up."""
    total, shard, movie = 100e12, 64 * 2**20, 57e9  # a movie of an hour: 512 x 512 pixels at 30 frames per second
    speed = f"{write_rate / 1e6:.0f} MB/s written and {read_rate / 1e6:.0f} MB/s read by a core"
    print(f"measured   {ratio:.2f} times smaller, {speed}")
    print(f"100 TB     {total / ratio / 1e12:.1f} TB stored, {total / shard:.2g} objects, {total / movie:.0f} rows")
    for cores in (1, 16, 64, 256):
        days = [total / rate / cores / 86400 for rate in (write_rate, read_rate)]
        times = f"{days[0]:6.2f} days to write, {days[1]:6.2f} to read"
        print(f"{cores:>4} cores {times} at {cores * read_rate / ratio / 1e9:6.2f} GB/s from the store")


if __name__ == "__main__":
    main()
