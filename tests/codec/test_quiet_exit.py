"""A process that read from S3 ends without a word of the libraries below."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from dj_photon_codecs import Calibration, write_movie
from faulty import Fault, faulty_proxy
from services import Pipeline, S3Server

_SCRIPT = """
import multiprocessing, sys
import numpy as np
from dj_photon_codecs import Calibration, write_movie

def work(movie):
    return int(movie[3].sum())

if __name__ == "__main__":
    import fsspec
    url, endpoint, key, secret, method = sys.argv[1:]
    fsspec.config.conf["s3"] = {"endpoint_url": endpoint, "key": key, "secret": secret}
    movie = write_movie(url, np.ones((8, 16, 16), np.uint16), calibration=Calibration.given(10, 0))
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(work, [movie] * 4) == [work(movie)] * 4
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=pytest.mark.skipif(
    sys.platform == "win32", reason="Windows does not fork"))])  # fmt: skip
def test_processes_that_read_from_s3_end_quietly(tmp_path: Path, s3_server: S3Server, method: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    url = f"s3://{s3_server.new_bucket()}/movie.zarr"
    arguments = [url, s3_server.endpoint, s3_server.access_key, s3_server.secret_key, method]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_POPULATE = """
import json, multiprocessing, sys
import datajoint as dj
import numpy as np
import dj_photon_codecs

method, name, stores = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
dj.config.stores = stores
dj.config.loglevel = "ERROR"
schema = dj.Schema(name)

@schema
class Recording(dj.Manual):
    definition = "recording : int32\\n---\\nmovie : <photon@imaging>"

@schema
class Half(dj.Computed):
    definition = "-> Recording\\n---\\nmovie : <photon@imaging>"

    def make(self, key):
        movie = (Recording & key).fetch1("movie")
        self.insert1({**key, "movie": dj_photon_codecs.PhotonMovie(movie[:4], conversion_gain=10)})

if __name__ == "__main__":
    multiprocessing.set_start_method(method)
    rng = np.random.default_rng(0)
    Recording.insert(
        {"recording": n, "movie": dj_photon_codecs.PhotonMovie(10 * rng.poisson(9, (8, 16, 16)), conversion_gain=10)}
        for n in range(4)
    )
    Half.populate(processes=2, display_progress=False)
    assert len(Half()) == 4 and all(row["movie"].verify() for row in Half.to_dicts())
"""


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=pytest.mark.skipif(
    sys.platform == "win32", reason="Windows does not fork"))])  # fmt: skip
@pytest.mark.parametrize("pipeline", [("postgres", "s3"), ("mysql", "file")], ids="-".join, indirect=True)
def test_populate_with_processes_is_quiet(pipeline: Pipeline, tmp_path: Path, method: str) -> None:
    connection = pipeline.instance.connection
    address = {
        "DJ_HOST": connection.conn_info["host"],
        "DJ_PORT": str(connection.conn_info["port"]),
        "DJ_USER": connection.conn_info["user"],
        "DJ_PASS": connection.conn_info["passwd"] or "",
        "DJ_BACKEND": connection.adapter.backend,
        "DJ_USE_TLS": "false",
    }
    script = tmp_path / "script.py"
    script.write_text(_POPULATE)
    arguments = [method, pipeline.schema.database, json.dumps(dict(pipeline.config.stores))]
    command = [sys.executable, "-W", "ignore", str(script), *arguments]
    environment = {**os.environ, **address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process")
@pytest.mark.parametrize("request_waited_for", ["GET .*zarr.json", "GET .*/c/"])
@pytest.mark.parametrize(("number", "told"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_an_export_from_s3_that_is_ended_says_so_in_a_line(
    tmp_path: Path, s3_server: S3Server, request_waited_for: str, number: int, told: str
) -> None:
    """What the event loop is doing is cancelled before it is closed, which complains of it otherwise."""
    files = fsspec.filesystem(
        "s3", key=s3_server.access_key, secret=s3_server.secret_key, endpoint_url=s3_server.endpoint
    )
    bucket = s3_server.new_bucket()
    counts = np.random.default_rng(0).poisson(50, (8, 64, 64)).astype(np.uint16)
    write_movie(files.get_mapper(f"{bucket}/m"), counts, calibration=Calibration.given(1.0, 0.0))
    with faulty_proxy(s3_server.endpoint) as proxy:
        proxy.faults.append(Fault("slow", request_waited_for, seconds=3))
        keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
        with subprocess.Popen(
            [sys.executable, "-m", "dj_photon_codecs", "export", f"s3://{bucket}/m", "scan.npy"],
            cwd=tmp_path,
            env={**os.environ, **keys, "AWS_ENDPOINT_URL": proxy.endpoint},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.monotonic() + 60
            while not proxy.count(request_waited_for):
                assert time.monotonic() < deadline, "the export asked for nothing"
                time.sleep(0.02)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (128 + number, told)
    assert not list(tmp_path.iterdir())
