"""Time to import the package, to create a handle from a row, and to read the first frame. Prints one table.

    python benchmarks/startup.py

Imports are timed in new processes, with the files in the page cache. Rows are the JSON of one stored movie, decoded as
DataJoint does on fetch, without a database.

Needs scipy (in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import REGIMES, machine, seconds, simulate, table

_FIRST_FRAME = """
import time
start = time.perf_counter()
from dj_photon_codecs import open_movie
open_movie({!r})[0]
print(time.perf_counter() - start)
"""

_TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def new_process_seconds(script: str, repeat: int) -> float:
    """Return the median of the times that a script prints in new processes."""
    command = [sys.executable, "-c", script]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # fills the page cache, and that of compiled code
    runs = [subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(repeat)]
    return statistics.median(map(float, runs))


def first_frame_seconds(profile: str, repeat: int) -> float:
    """Return the median time from a new process to the first frame of a movie of 32 frames of 512x512."""
    from dj_photon_codecs import Calibration, write_movie

    regime = REGIMES[3]
    movie, _ = simulate(regime, 32, 512, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as name:
        noise = Calibration.given(regime.gain, regime.zero_level)
        write_movie(Path(name) / "movie", movie, calibration=noise, profile=profile, progress=False)
        return new_process_seconds(_FIRST_FRAME.format(str(Path(name) / "movie")), repeat)


def decode_all(codec: Any, texts: list[str], context: dict[str, Any]) -> None:
    """Decode a row like DataJoint does."""
    for text in texts:
        codec.decode(json.loads(text), context=context)


def row_seconds(rows: int, repeat: int) -> float:
    """Return the median time to create the handle of one of many fetched rows."""
    import datajoint as dj

    from dj_photon_codecs import PhotonCodec

    movie, _ = simulate(REGIMES[3], 32, 128, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as name:
        dj.config.stores = {"default": "local", "local": {"protocol": "file", "location": str(Path(name))}}
        codec = PhotonCodec()
        context = {"schema": "benchmark", "table": "movie", "field": "movie", "config": dj.config}
        stored = codec.encode(movie, key={"movie_id": 1}, context=context, store_name="local")
        texts = [json.dumps(stored)] * rows
        times = [seconds(decode_all, codec, texts, context) / rows for _ in range(repeat)]
    return statistics.median(times)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=11, help="repetitions; the median counts")
    options = parser.parse_args()
    os.environ["DJ_IGNORE_CONFIG_FILE"] = "true"  # of this process and the new ones
    names = ("dj_photon_codecs", "datajoint")
    rows = [
        [f"import {name}", f"{1e3 * new_process_seconds(_TIMED.format(name), options.repeat):.1f}"] for name in names
    ]
    handles = 1e3 * row_seconds(options.rows, options.repeat)
    rows += [
        [f"first frame, {profile}", f"{1e3 * first_frame_seconds(profile, options.repeat):.0f}"]
        for profile in ("standard", "dense")
    ]
    rows.append([f"handle of a fetched row, of {options.rows}", f"{handles:.3f}"])
    print(f"{machine()}\n")
    print(table(("what", "median [ms]"), rows))


if __name__ == "__main__":
    main()
