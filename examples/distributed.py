"""One pipeline on several processes, one movie on a cluster, and what that comes to for 100 TB.

    pip install "dj-photon-codecs[examples]"
    python examples/distributed.py

The workers are processes of their own that share nothing but the database and the stores, as they would on machines of
their own: each runs this file with ``--worker``, and DataJoint's job tables see to it that no two do the same.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _setup import parser, place  # first: it says which package is missing

import numpy as np
from calcium_imaging import ROI, MotionCorrected, Profile, Recording, Trace, record, schema
from dask.distributed import Client, LocalCluster

from dj_photon_codecs import write_movie

TABLES = (Recording, MotionCorrected, ROI, Trace)
PATIENCE = 600  # seconds after which the workers are given up


def work(schema_name: str) -> None:
    """What each worker does, on whatever machine: take a job, do it, until there is none left."""
    schema.activate(schema_name)
    made = dict.fromkeys((table.__name__ for table in TABLES), 0)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for table in TABLES:
            done = table.populate(reserve_jobs=True, suppress_errors=True, max_calls=1)
            made[table.__name__] += done["success_count"]
        if not any(left(table) for table in TABLES):
            break
        time.sleep(0.2)  # what is left waits for the other workers' results
    print(" ".join(f"{name}={count}" for name, count in made.items()))


def left(table: Any) -> int:
    """How many keys a table has yet to make, those whose make() failed not counted."""
    return max(0, len(table.key_source - table.proj()) - len(table.jobs.errors))


def run_workers(number: int, schema_name: str, environment: dict[str, str]) -> list[str]:
    """Start workers, wait for them, and give what each has made."""
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
    """Run the pipeline on workers, read a movie on a cluster, and extrapolate."""
    options = parser(__doc__)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--worker", metavar="SCHEMA", help="be a worker on that schema; the connection is in DJ_...")
    chosen = options.parse_args(arguments)
    if chosen.worker:
        work(chosen.worker)
        return
    with place(chosen, schema, "distributed", ("active", "archive")) as here:
        record(here.folder)
        (Profile & {"profile": "lossless"}).delete()  # nothing to compare here
        for table in TABLES:
            table.jobs.refresh(delay=-1)  # so that the workers find the job tables made
        start = time.perf_counter()
        outputs = run_workers(chosen.workers, here.schema, here.environment)
        seconds = time.perf_counter() - start
        for number, output in enumerate(outputs, start=1):
            print(f"worker {number}   {output}")
        print("rows       " + " ".join(f"{table.__name__}={len(table())}" for table in TABLES))
        print("errors     " + " ".join(f"{table.__name__}={len(table.jobs.errors)}" for table in TABLES))
        print(f"time       {seconds:.1f} seconds on {chosen.workers} workers, their start included\n")
        with (
            LocalCluster(n_workers=chosen.workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            read_on_cluster((Recording & {"session": 1, "profile": "standard"}).fetch1("movie"))
            project(*measure(client, here.folder / "large.zarr", chosen.workers))


def read_on_cluster(movie: Any) -> None:
    """Compute on one movie: the handle goes to the workers, which read their chunks from the store themselves."""
    counts = movie.to_dask()
    mean = counts.mean(axis=0).compute()  # on the cluster, as its client is the current one
    print(f"dask       {counts.numblocks[0]} blocks of {counts.chunksize}, one chunk each")
    print(f"           mean image on the cluster as in this process: {np.allclose(mean, movie[:].mean(axis=0))}\n")


def measure(client: Client, path: Path, workers: int) -> tuple[float, float, float]:
    """Ratio of a movie of 512 x 512, and bytes of counts a second that one worker writes and reads while all do."""
    rng = np.random.default_rng(0)
    brightness = rng.uniform(2, 10, size=(512, 512))  # photons
    counts = (30 * rng.poisson(brightness, size=(128, 512, 512)) + 100).astype(np.uint16)
    movie = write_movie(path, counts[:32])
    calibration = movie.calibration
    where = client.scatter(counts, broadcast=True)
    paths = [path.with_name(f"large{worker}.zarr") for worker in range(workers)]
    start = time.perf_counter()
    written = client.gather(client.map(write_movie, paths, [where] * workers, calibration=calibration))
    write_rate = counts.nbytes / (time.perf_counter() - start)
    client.gather(client.map(read_all, written))  # the first time, the page cache has them and the codecs are loaded
    start = time.perf_counter()
    client.gather(client.map(read_all, written))
    read_rate = counts.nbytes / (time.perf_counter() - start)
    return written[0].compression_ratio, write_rate, read_rate


def read_all(movie: Any) -> None:
    """Read a movie block by block, as an analysis does that looks at each count once."""
    movie = pickle.loads(pickle.dumps(movie))  # a new handle, with nothing in its cache
    for start in range(0, len(movie), 64):
        movie[start : start + 64]


def project(ratio: float, write_rate: float, read_rate: float) -> None:
    """What was measured, in proportion: every worker as fast as one of these, and a store that keeps up with them."""
    total, shard, movie = 100e12, 64 * 2**20, 60e9  # a movie of 60 GB: an hour of 512 x 512 at 30 frames a second
    stored = total / ratio
    print(f"measured   {ratio:.2f} times smaller; a worker writes {write_rate / 1e6:.0f} MB/s, reads {read_rate / 1e6:.0f} MB/s")
    print(f"100 TB     {stored / 1e12:.1f} TB stored, {total / shard / 1e6:.2f} million objects, {total / movie:.0f} rows")
    for workers in (1, 16, 64, 256):
        days = [total / rate / workers / 86400 for rate in (write_rate, read_rate)]
        load = workers * read_rate / ratio / 1e9
        print(f"{workers:>4} workers  {days[0]:8.2f} days to write, {days[1]:8.2f} to read, at {load:7.3f} GB/s from the store")


if __name__ == "__main__":
    sys.exit(main())
