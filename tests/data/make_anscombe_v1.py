"""Makes tests/data/anscombe_v1: arrays written and read by the anscombe-transform package 1.0.0 itself.

Run once, with that package and without this one imported; what is there is never made again.
"""

from pathlib import Path
from typing import Any

import anscombe_transform as peer
import numpy as np
import zarr

FOLDER = Path(__file__).parent / "anscombe_v1"
COUNTS = (np.arange(6 * 8 * 8).reshape(6, 8, 8) * 61 % 20_000).astype(np.int16)


def make(name: str, counts: np.ndarray, codec: Any, zarr_format: Any) -> None:
    """Write one array, and what the package reads of it."""
    path = FOLDER / f"{name}.zarr"
    if path.exists():
        raise SystemExit(f"{path} exists: golden files are made once")
    array = zarr.create_array(path, data=counts, chunks=(3, 8, 8), filters=[codec], zarr_format=zarr_format)
    np.save(FOLDER / f"{name}.npy", array[:])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    make("v2", COUNTS, peer.AnscombeTransformV2(zero_level=10, conversion_gain=50.0), 2)
    make("v3", COUNTS, peer.AnscombeTransformV3(zero_level=10, conversion_gain=50.0), 3)
    # gain 1: the codes wrap at 255, and what the package reads is wrong
    make("v3_wrapped", COUNTS % 50, peer.AnscombeTransformV3(zero_level=0, conversion_gain=1.0), 3)
