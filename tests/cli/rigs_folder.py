"""A folder with recordings of twelve kinds, as a lab has them: for the survey in tests and documentation."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr


def make(folder: Path) -> None:
    """Write the folder; everything in it is made up."""
    rng = np.random.default_rng(0)
    scene = rng.gamma(2, 4, size=(64, 64))
    photons = rng.poisson(scene, size=(2, 60, 64, 64))
    counts = (np.rint(12 * photons + rng.normal(100, 4, photons.shape))).clip(0).astype(np.uint16)
    one, two = counts

    def under(name: str) -> Path:
        path = folder / name
        path.mkdir(parents=True)
        return path

    # 1 two channels of Prairie View, a file an image
    bruker = under("bruker")
    for channel, movie in enumerate(counts, 1):
        for number, frame in enumerate(movie, 1):
            tifffile.imwrite(bruker / f"T_Cycle00001_Ch{channel}_{number:06}.tif", frame)
    # 2 ScanImage, two files
    si = under("scanimage")
    text = "SI.VERSION_MAJOR = 2022\nSI.hChannels.channelSave = 1\nSI.hStackManager.enable = false"
    for part in range(2):
        with tifffile.TiffWriter(si / f"run_00001_{part + 1:05}.tif", bigtiff=True) as file:
            for number, frame in enumerate(one[30 * part : 30 * part + 30], 30 * part + 1):
                about = f"frameNumbers = {number}\nframeNumberAcquisition = {number}\n"
                file.write(frame, contiguous=False, metadata=None, software=text, description=about)
    # 3 OME-TIFF, 4 ImageJ beside it: two recordings in one folder
    tifffile.imwrite(under("confocal") / "cells.ome.tif", two, metadata={"axes": "TYX"})
    tifffile.imwrite(folder / "confocal" / "dish.tif", one, imagej=True, metadata={"axes": "TYX"})
    # 5 files with a number missing
    epi = under("epi")
    for number in (1, 2, 4):
        tifffile.imwrite(epi / f"part_{number}.tif", one[15 * number - 15 : 15 * number])
    # 6 HDF5
    with h5py.File(under("hdf5") / "session.h5", "w") as h5:
        h5["mov"] = one
    # 7 Zarr
    zarr.create_array(store=under("zarr") / "raw.zarr", data=two, dimension_names=("t", "y", "x"))
    # 8 Suite2p
    plane = under("suite2p/plane0")
    (plane / "data.bin").write_bytes(one.astype("<i2").tobytes())
    np.save(plane / "ops.npy", np.array({"Ly": 64, "Lx": 64, "nframes": 60}, dtype=object), allow_pickle=True)
    # 9 ThorImage
    thor = under("thor")
    (thor / "Image_0001_0001.raw").write_bytes(one.tobytes())
    (thor / "Experiment.xml").write_text(
        '<ThorImageExperiment><LSM pixelX="64" pixelY="64" channel="1" frameRate="30" />'
        '<Streaming enable="1" frames="60" /></ThorImageExperiment>'
    )
    # 10 NPY, 11 a file that ends early
    np.save(under("arrays") / "scan.npy", two)
    tifffile.imwrite(under("broken") / "aborted.tif", one, metadata=None)
    (folder / "broken" / "aborted.tif").write_bytes((folder / "broken" / "aborted.tif").read_bytes()[:90000])
    # 12 what was processed before: no photons in it
    smooth = np.cumsum(one.astype(np.float32), axis=0)
    np.save(under("processed") / "dff.npy", (smooth[8:] - smooth[:-8]) / 8 / scene.astype(np.float32) / 12)
    (folder / "notes.json").write_text(json.dumps({"mouse": 7}))
