"""The codec where this package's other dependencies are not: zarr 2, SpikeInterface, and no DataJoint.

    python -m venv alone
    alone/bin/pip install "zarr==2.18.*" "numcodecs<0.16" crc32c numpy spikeinterface
    alone/bin/pip install --no-deps .
    alone/bin/python .ci/check_codec_alone.py tests/data/golden

Reads the golden files of Zarr format 2, writes an array with the codec as filter and as compressor, and saves a
recording of SpikeInterface with it (left out, with a line that says so, where that is not installed).
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numcodecs
import numpy as np
import zarr

CONFIG = {
    "id": "dj_photon_codecs.anscombe",
    "zero_level": 50.0,
    "conversion_gain": 10.0,
    "encoded_dtype": "uint8",
    "decoded_dtype": "uint16",
    "step": 0.5,
    "dither": "position",
    "under_root": 0.375,
    "saturation": None,
}

READ = "import sys, numpy, zarr; numpy.save(sys.argv[2], zarr.open(sys.argv[1], mode='r')[...])"


def main(golden: Path) -> None:
    """Run every check."""
    assert zarr.__version__.startswith("2."), zarr.__version__
    assert find_spec("datajoint") is None, "the environment has DataJoint: this is to show what works without it"
    with TemporaryDirectory() as folder:
        check_golden_files(golden)
        check_arrays(Path(folder))
        if find_spec("spikeinterface"):
            check_spikeinterface(Path(folder))
        else:
            print("SpikeInterface is not installed: left out")


def check_golden_files(golden: Path) -> None:
    """Movies that this package wrote, whole and without its help."""
    found = sorted(golden.glob("*/movie.zarr/.zarray"))
    # the codec for movies of anscombe-transform needs zarr 3
    names = [path.parents[1].name for path in found if '"anscombe-v1"' not in path.read_text(encoding="utf-8")]
    assert len(names) >= 3, names
    for name in names:
        found = zarr.open(str(golden / name / "movie.zarr"), mode="r")[...]
        assert (found == np.load(golden / name / "expected.npy")).all(), name
    print("zarr", zarr.__version__, "reads", ", ".join(names))


def check_arrays(folder: Path) -> None:
    """The codec as a filter and as a compressor, read by a process that knows nothing of it."""
    counts = (50 + 10 * np.random.default_rng(0).poisson(4, (20, 64, 64))).astype(np.uint16)
    codec = numcodecs.get_codec(dict(CONFIG))
    raw = zarr.open(str(folder / "raw"), mode="w", shape=counts.shape, chunks=(10, 64, 64), dtype="u2")
    raw[:] = counts
    roles: dict[str, dict[str, Any]] = {
        "filter": {"filters": [codec], "compressor": numcodecs.Zstd(1)},
        "compressor": {"compressor": codec},
    }
    for role, options in roles.items():
        path = folder / role
        array = zarr.open(str(path), mode="w", shape=counts.shape, chunks=(10, 64, 64), dtype="u2", **options)
        array[:] = counts
        subprocess.run([sys.executable, "-c", READ, str(path), str(folder / "found.npy")], check=True)
        found = np.load(folder / "found.npy")
        photons = np.maximum(found, counts) / 10.0 - 5
        assert (np.abs(found.astype(float) - counts) <= 2.5 * np.sqrt(np.maximum(photons, 0) + 0.375) + 0.5).all()
        assert abs(found.mean() - counts.mean()) < 0.2
        print(f"as {role}: {array.nbytes_stored} bytes, {raw.nbytes_stored} with the compressor that is zarr's default")


def check_spikeinterface(folder: Path) -> None:
    """A recording with the codec as filter, saved and loaded again."""
    import spikeinterface

    rng = np.random.default_rng(0)
    traces = (200 + 10 * rng.poisson(6, (30_000, 8))).astype(np.uint16)
    recording = spikeinterface.NumpyRecording([traces], sampling_frequency=30_000)
    codec = numcodecs.get_codec({**CONFIG, "zero_level": 200.0})
    saved = recording.save(format="zarr", folder=folder / "recording.zarr", filters=[codec], verbose=False)
    again = spikeinterface.load(folder / "recording.zarr").get_traces()
    assert (again == saved.get_traces()).all()
    error = again.astype(float) - traces
    assert 0 < np.abs(error).max() <= 2.5 * np.sqrt(traces.max() / 10.0) + 0.5
    assert abs(error.mean()) < 0.1
    print("SpikeInterface", spikeinterface.__version__, "saves and loads")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
