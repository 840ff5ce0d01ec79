"""Insert and analyse movies on S3 with DataJoint workers and a dask cluster, count the requests, project to 100 TB.

    pip install "dj-photon-codecs[examples]" "moto[s3,server]"
    python examples/at_scale.py

The store is moto's S3 server in this process, which counts the requests and bytes of each movie. Workers measure their
own processor time, so that other programs on the machine change the results little. Prices and sizes are options.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from _setup import parser, place  # first, because it says which package is missing

# isort: split

try:
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server
except ImportError as missing:
    sys.exit(f'the example needs {missing.name}, which is not installed: pip install "moto[s3,server]"')

import dask.array
import datajoint as dj
import numpy as np
from dask.distributed import Client, LocalCluster

from dj_photon_codecs import Calibration, PhotonMovie, set_cache_size

schema = dj.Schema()

GAIN, ZERO = 30, 100  # counts per photon, counts in the dark
FRAMES = 128  # of 512 x 512 pixels in an object of 64 MiB of counts
SHORT, LONG = 1, 3  # objects in a movie: two lengths tell the cost of a movie from that of an object
COPIES = 2  # movies of each length
PATIENCE = 600  # seconds to wait for the workers


@schema
class Recording(dj.Manual):
    definition = """
    recording : int32
    ---
    n_objects : int32
    """


# --8<-- [start:tables]
@schema
class Movie(dj.Imported):
    definition = """
    -> Recording
    ---
    movie : <photon@active>
    """

    class Cost(dj.Part):
        definition = """
        -> master
        ---
        seconds : float64            # processor time of the insert
        """

    def make(self, key: dict[str, Any]) -> None:
        counts = recorded((Recording & key).fetch1("n_objects"))
        start = time.process_time()
        self.insert1({**key, "movie": counts})
        self.Cost.insert1({**key, "seconds": time.process_time() - start})


@schema
class Mean(dj.Computed):
    definition = """
    -> Movie
    ---
    image : <blob>                   # mean counts (height, width)
    trace : <blob>                   # mean counts of each frame
    seconds : float64                # processor time of reading, and of both means
    """

    def make(self, key: dict[str, Any]) -> None:
        start = time.process_time()
        movie = (Movie & key).fetch1("movie")
        total, trace = np.zeros(movie.shape[1:]), []
        for frame in movie.frames():
            total += frame
            trace.append(frame.mean())
        seconds = time.process_time() - start
        self.insert1({**key, "image": total / len(movie), "trace": np.array(trace), "seconds": seconds})


# --8<-- [end:tables]


def recorded(n_objects: int) -> Any:
    """Return a recording of 6 photons on average.

    It repeats 16 frames, which saves time here and gains nothing: each 16 frames are a chunk, compressed alone.
    """
    rng = np.random.default_rng(0)
    photons = rng.poisson(rng.uniform(2, 10, size=(512, 512)), size=(16, 512, 512))
    return np.concatenate([(GAIN * photons + ZERO).astype(np.uint16)] * (n_objects * FRAMES // 16))


# --8<-- [start:worker]
def work(schema_name: str, table: str) -> None:
    """Make the rows that no other worker has reserved; this runs on every worker."""
    schema.activate(schema_name)
    done = (Movie if table == "Movie" else Mean).populate(reserve_jobs=True)
    print(done["success_count"])


# --8<-- [end:worker]


def run_workers(number: int, table: Any, schema_name: str, environment: dict[str, str]) -> list[int]:
    """Populate a table with several processes, and return how many rows each has made."""
    table.jobs.refresh(delay=-1)  # so that the workers find the job table made
    command = [sys.executable, __file__, "--worker", schema_name, table.__name__]
    variables = {**os.environ, **environment}
    workers = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        for _ in range(number)
    ]
    try:
        return [int(worker.communicate(timeout=PATIENCE)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


class CountingS3:
    """Moto's S3 server, which counts requests by phase, movie and kind, and the bytes that it sends and takes.

    Kinds are those of S3's price list: ``put`` is PUT, POST and every listing, ``get`` is GET and HEAD. DELETE is free.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.requests: Counter[tuple[str, int, str]] = Counter()
        self.bytes: Counter[tuple[str, int]] = Counter()
        self.lock = threading.Lock()
        self.moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a request (WSGI)."""
        method, query = environ["REQUEST_METHOD"], unquote(environ.get("QUERY_STRING", ""))
        found = re.search(r"recording=(\d+)", f"{unquote(environ['PATH_INFO'])}?{query}")
        movie = int(found[1]) if found else 0
        kind = "get" if method in ("GET", "HEAD") and "list-type" not in query else "put"

        def counted(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            sent = 0 if method == "HEAD" else int(dict(headers).get("Content-Length", 0))
            with self.lock:
                if method != "DELETE":
                    self.requests[self.phase, movie, kind] += 1
                self.bytes[self.phase, movie] += sent + int(environ.get("CONTENT_LENGTH") or 0)
            return start_response(status, headers, *rest)

        return self.moto(environ, counted)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve, and give the address."""
        server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=MotoRequestHandler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def of(self, phase: str, recordings: list[int], kind: str) -> float:
        """Requests of a kind for each of these movies, on average."""
        total: int = sum(self.requests[phase, recording, kind] for recording in recordings)
        return total / len(recordings)


def new_bucket(address: str) -> None:
    """Make a bucket, and name it and its keys where ``_setup`` looks for them."""
    os.environ |= {"S3_ENDPOINT": address, "S3_BUCKET": "movies"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="movies")


def main(arguments: list[str] | None = None) -> None:
    """Insert and analyse with workers and on a cluster, print what was counted, and project it."""
    options = parser(__doc__)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--terabytes", type=float, default=100.0, help="counts to project to")
    options.add_argument("--put-price", type=float, default=0.005, help="dollars per 1000 PUT, POST and LIST requests")
    options.add_argument("--get-price", type=float, default=0.0004, help="dollars per 1000 other requests")
    options.add_argument("--storage-price", type=float, default=0.023, help="dollars per GB and month")
    options.add_argument(
        "--worker", nargs=2, metavar=("SCHEMA", "TABLE"), help="be a worker; the connection is in DJ_..."
    )
    chosen = options.parse_args(arguments)
    if chosen.worker:
        work(*chosen.worker)
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log each request
    store = CountingS3()
    with store.running() as address:
        new_bucket(address)
        chosen.store = "s3"
        with place(chosen, schema, "at_scale", ("active",)) as here:
            Recording.insert({"recording": i, "n_objects": n} for i, n in lengths(chosen.workers).items())
            for phase, table in (("insert", Movie), ("read", Mean)):
                store.phase = phase
                made = run_workers(chosen.workers, table, here.schema, here.environment)
                print(f"{phase:<8} {sum(made)} movies by {len(made)} workers, {len(table.jobs.errors)} errors")
            measured = measure(store, chosen.workers)
            on_a_cluster(store, chosen.workers)
            project(chosen, measured)


def lengths(workers: int) -> dict[int, int]:
    """Return the objects of each movie. The first, two for each worker, pay for what a process does once."""
    return dict(enumerate([LONG] * workers + [SHORT] * workers + [SHORT] * COPIES + [LONG] * COPIES, start=1))


def measure(store: CountingS3, workers: int) -> dict[str, tuple[float, float]]:
    """Return what an object and, beside its objects, a movie cost: requests of each kind and processor time."""
    warm = {movie: n for movie, n in lengths(workers).items() if movie > 2 * workers}
    short, long = ([movie for movie, n in warm.items() if n == length] for length in (SHORT, LONG))
    costs = {"insert": Movie.Cost(), "read": Mean()}
    found = {}
    print(f"\n{'measured':<34}{'an object':>12}{'a movie besides':>17}")
    for phase, table in costs.items():
        for kind in ("put", "get", "seconds"):
            values = []
            for recordings in (short, long):
                if kind == "seconds":
                    keys = [{"recording": recording} for recording in recordings]
                    values.append(float((table & keys).to_arrays("seconds").min()))
                else:
                    values.append(store.of(phase, recordings, kind))
            each = (values[1] - values[0]) / (LONG - SHORT)
            if kind == "seconds":  # too noisy for a difference: all of a long movie's, which is an upper bound
                values, each = [0.0], values[1] / LONG
            found[f"{phase} {kind}"] = each, max(0.0, values[0] - SHORT * each)
            what = "processor time [s]" if kind == "seconds" else f"{kind.upper()} requests"
            print(f"  {phase + ': ' + what:<32}{each:>12.2f}{found[f'{phase} {kind}'][1]:>17.2f}")
    movie = (Movie & {"recording": long[0]}).fetch1("movie")
    stored = movie.record.stored_bytes / LONG
    found["stored bytes"] = stored, 0.0
    print(f"  {'stored [MB]':<32}{stored / 1e6:>12.2f}")
    read = sum(store.bytes["read", recording] for recording in long) / len(long)
    print(f"  read: bytes from the store, over those stored {read / movie.record.stored_bytes:.3f}")
    return found


def on_a_cluster(store: CountingS3, workers: int) -> None:
    """Insert what a dask cluster computes, and analyse it there, by chunks and by objects."""
    photons = dask.array.random.default_rng(0).poisson(6, size=(LONG * FRAMES, 512, 512), chunks=(FRAMES, 512, 512))
    counts = (GAIN * photons + ZERO).astype(np.uint16)
    key = {"recording": 1 + len(lengths(workers))}
    Recording.insert1({**key, "n_objects": LONG})
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        store.phase = "dask insert"
        movie_of_photons = PhotonMovie(counts, calibration=Calibration.given(GAIN, ZERO))
        client.run(set_cache_size, 0)  # each pass reads the movie
        Movie.insert1({**key, "movie": movie_of_photons}, allow_direct_insert=True)
        movie = (Movie & key).fetch1("movie")
        store.phase = "dask chunks"
        by_chunks = movie.to_dask().mean(axis=0).compute()
        store.phase = "dask objects"
        by_objects = dask.array.from_array(movie, chunks=movie.shards, asarray=False).mean(axis=0).compute()
    store.phase = "this process"
    here = sum(frame.astype(np.float64) for frame in movie.frames()) / len(movie)
    same = np.allclose([by_chunks, by_objects], here)
    print(f"\ndask     a movie of {LONG} objects; the same mean as in this process: {same}")
    for phase in ("dask insert", "dask chunks", "dask objects"):
        put, get = (store.requests[phase, key["recording"], kind] for kind in ("put", "get"))
        megabytes = store.bytes[phase, key["recording"]] / 1e6
        print(f"  {phase.removeprefix('dask '):<10}{put:>5} PUT {get:>5} GET {megabytes:>8.1f} MB")


def project(options: argparse.Namespace, measured: dict[str, tuple[float, float]]) -> None:
    """Project to many movies of an hour at 30 frames per second, for workers that do nothing else."""
    counts: float = options.terabytes * 1e12
    objects_of_a_movie = 3600 * 30 / FRAMES
    objects = counts / (FRAMES * 512 * 512 * 2)
    movies = objects / objects_of_a_movie

    def total(name: str) -> float:
        each, besides = measured[name]
        return each * objects + besides * movies

    stored = total("stored bytes")
    print(f"\nprojected to {options.terabytes:g} TB of counts, movies of an hour")
    print(f"  {movies:,.0f} movies, {objects:,.0f} objects, {stored / 1e12:.1f} TB stored")
    for phase in ("insert", "read"):
        put, get = total(f"{phase} put"), total(f"{phase} get")
        price = put / 1000 * options.put_price + get / 1000 * options.get_price
        print(f"  {phase:<8}{put:>12,.0f} PUT {get:>12,.0f} GET   {price:>8.2f} dollars")
    monthly, raw = (n_bytes / 1e9 * options.storage_price for n_bytes in (stored, counts))
    print(f"  storage {monthly:,.0f} dollars a month; {raw:,.0f} for the counts as they are")
    for workers in (1, 16, 64, 256):
        hours = [total(f"{phase} seconds") / workers / 3600 for phase in ("insert", "read")]
        rate = stored / 1e9 / (hours[1] * 3600)
        print(f"  {workers:>3} workers {hours[0]:>8.2f} h to insert {hours[1]:>8.2f} h to read at {rate:>6.2f} GB/s")


if __name__ == "__main__":
    main()
