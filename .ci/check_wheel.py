"""What an installed wheel must do, each in a process that imports nothing of it by name: called by .ci/run.

``write`` FOLDER stores one movie in every profile with the installed package; ``read`` opens them with plain zarr,
which must find the codecs by itself and without DataJoint; ``portable`` does so for what any Zarr reader can open,
with the package gone.
"""

import os
import sys
from importlib.metadata import entry_points, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def movie() -> np.ndarray:
    """Photon counts at 3 ADU per photon, the same at every call."""
    light = np.random.default_rng(0).uniform(2, 60, size=(96, 80))
    return (3 * np.random.default_rng(1).poisson(light, size=(40, 96, 80))).astype(np.uint16)


def check(array, bound: float) -> None:
    """Counts in, counts out, within the bound in noise standard deviations plus half a count."""
    counts, back = movie(), array[:]
    assert back.dtype == counts.dtype, back.dtype
    error = np.abs(back.astype(float) - counts)
    sigma = 3 * np.sqrt(np.maximum(counts, back) / 3 + 3 / 8)
    assert (error <= 1.1 * bound * sigma + 0.5).all(), error.max()


def write(folder: Path) -> None:
    """With the package: names are lazy, the entry points load, the movies are stored."""
    os.environ["DJ_IGNORE_CONFIG_FILE"] = "true"
    import dj_photon_codecs

    heavy = {"datajoint", "zarr", "numba", "matplotlib", "pandas"} & set(sys.modules)
    assert not heavy, f"import dj_photon_codecs imported {heavy}"
    assert "site-packages" in dj_photon_codecs.__file__, dj_photon_codecs.__file__
    assert any(str(path).endswith("py.typed") for path in files("dj-photon-codecs") or [])
    for group in ("datajoint.codecs", "zarr.codecs", "numcodecs.codecs"):
        found = [point for point in entry_points(group=group) if point.value.startswith("dj_photon_codecs")]
        assert found, f"no entry point in {group}"
        for point in found:
            assert isinstance(point.load(), type), point
    sensor = dj_photon_codecs.Calibration.given(3.0, 0.0)  # the light of every pixel is another: nothing to measure
    for profile in ("standard", "dense", "portable", "lossless"):
        stored = dj_photon_codecs.write_movie(folder / profile, movie(), profile=profile, calibration=sensor)
        assert stored.profile == profile, stored


def read(folder: Path) -> None:
    """With the package, but by plain zarr alone."""
    import zarr

    for profile, bound in (("standard", 0.25), ("dense", 0.25), ("portable", 0.25), ("lossless", 0)):
        check(zarr.open_array(folder / profile, mode="r"), bound)
    heavy = {"datajoint", "matplotlib"} & set(sys.modules)
    assert not heavy, f"zarr.open_array imported {heavy}"


def portable(folder: Path) -> None:
    """Without the package."""
    import zarr

    left = find_spec("dj_photon_codecs")
    assert left is None or left.origin is None, left  # a folder of machine code is what numba leaves behind
    for profile, bound in (("portable", 0.25), ("lossless", 0)):
        check(zarr.open_array(folder / profile, mode="r"), bound)
    message = "it opened"
    try:
        zarr.open_array(folder / "dense", mode="r")
    except Exception as error:  # its class changes from release to release of zarr
        message = str(error)
    assert "dj_photon_codecs" in message, message  # pip takes that for dj-photon-codecs: it says what to install


if __name__ == "__main__":
    {"write": write, "read": read, "portable": portable}[sys.argv[1]](Path(sys.argv[2]))
    print(f"{sys.argv[1]}: as it should be")
