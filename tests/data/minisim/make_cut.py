"""Cut a recording of the simulator minisim down to a few frames, pixels and cells, for the tests.

    python tests/data/minisim/make_cut.py RECORDING

RECORDING is a folder that ``Recording.save`` of minisim 1.0.3 wrote: a Zarr V2 group, format version 2. The cut beside
this script is of a one-photon miniscope recording with seed 7: 120 frames of 128 x 128 at 20 Hz, conversion gain 2.0
ADU/e-, read noise 2.0 e-, 12 bits, motion up to 10 pixels, 370 units. It keeps the layout, the names and the dtypes;
``observed`` and the truth are cut to the same frames, pixels and units, and so is the size in ``spec.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr

FRAMES, TOP, LEFT, SIZE, UNITS = 6, 40, 44, 32, 5
UNIT = ("C", "S", "bleaching", "centers_um", "amplitude_per_cell", "in_focus", "detectable")
UNIT_AND_SEEN = (*UNIT, "observed_sigma_px", "observed_gain")


def cut(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    old: Any = zarr.open_group(str(source), mode="r", zarr_format=2)
    truth = old["ground_truth"]
    planted = truth["planted"]
    fov = np.array(planted.attrs["fov_offset"]) + np.array([TOP, LEFT])
    offsets, shapes, images = (np.asarray(planted[name][...]) for name in ("offsets", "shapes", "data"))
    inside = np.all((offsets + shapes > fov) & (offsets < fov + SIZE), axis=1)
    # detectable ones first, so that both kinds are there
    order = np.argsort(~np.asarray(truth["detectable"][...])[inside], kind="stable")
    candidates = np.flatnonzero(inside)[order]
    units = np.sort([*candidates[: UNITS // 2], *candidates[-(UNITS - UNITS // 2) :]])
    sizes = shapes.prod(axis=1)
    starts = np.cumsum(sizes) - sizes

    spec = json.loads((source / "spec.json").read_text())
    sensor, fps = spec["acquisition"]["image_sensor"], spec["acquisition"]["fps"]
    sensor["n_px_height"] = sensor["n_px_width"] = SIZE
    spec["acquisition"]["duration_s"] = FRAMES / fps

    new = zarr.create_group(str(target), zarr_format=2, attributes=dict(old.attrs))
    (target / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    pixels = (slice(TOP, TOP + SIZE), slice(LEFT, LEFT + SIZE))
    new.create_array("observed", data=np.asarray(old["observed"][:FRAMES])[:, *pixels])
    group = new.create_group("ground_truth", attributes=dict(truth.attrs))
    moved = np.array([0.0, TOP + SIZE / 2 - 64, LEFT + SIZE / 2 - 64])  # pixels of 1 um, from the old centre to the new
    for name, array in truth.arrays():
        values = np.asarray(array[...])
        if name in UNIT_AND_SEEN:
            values = values[units]
        if name in ("C", "S", "bleaching", "neuropil_temporal"):
            values = values[:, :FRAMES]
        if name in ("shifts", "neuropil_population"):
            values = values[:FRAMES]
        if name in ("illumination", "vignette", "leakage", "neuropil_spatial"):
            values = values[..., *pixels]
        if name == "centers_um":
            values = values - moved
        group.create_array(name, data=values)
    places = {**planted.attrs, "fov_offset": fov.tolist(), "fov_shape": [SIZE, SIZE]}
    sparse = group.create_group("planted", attributes=places)
    sparse.create_array("offsets", data=offsets[units])
    sparse.create_array("shapes", data=shapes[units])
    sparse.create_array("data", data=np.concatenate([images[starts[u] : starts[u] + sizes[u]] for u in units]))


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(__file__).with_name("cut.zarr"))
