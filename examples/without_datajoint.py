"""Convert a TIFF stack to a photon Zarr array, and open it with zarr, dask and xarray. No database is needed.

    pip install "dj-photon-codecs[examples]"
    python examples/without_datajoint.py

Anyone who opens the array needs this package installed, but need not import it: zarr finds the codec.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(sys.path.pop(0))  # this folder's distributed.py would hide the package that dask needs
try:
    import dask.array
    import numpy as np
    import tifffile
    import xarray
    import zarr
except ImportError as error:
    sys.exit(f'this example needs {error.name}, which is not installed: pip install "dj-photon-codecs[examples]"')

from dj_photon_codecs import open_movie, write_movie

TIFF = Path(__file__).parent / "data" / "minisim_12bit.tif"


def main(arguments: list[str] | None = None) -> None:
    """Write the array and open it in three ways."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "tiff", type=Path, nargs="?", default=TIFF, help="TIFF stack with the axes time, height, width"
    )
    options.add_argument("--zarr", type=Path, help="folder to write and keep; by default the array is temporary")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.zarr or Path(folder) / "movie.zarr"

        # --8<-- [start:open]
        written = write_movie(path, tifffile.imread(chosen.tiff))
        noise = written.calibration
        print(f"written  {written.shape} {written.dtype}, {written.compression_ratio:.2f} times smaller")
        print(f"         {noise.conversion_gain:.2f} counts per photon above {noise.zero_level:.1f}")

        plain = zarr.open_array(path, mode="r")
        frame = plain[60]
        print(f"zarr     frame 60: mean {np.mean(frame):.1f} counts")

        lazy = dask.array.from_zarr(path)  # blocks of one shard; open_movie(path).to_dask() has smaller blocks
        print(f"dask     brightest pixel on average: {lazy.mean(axis=0).max().compute():.1f} counts")

        movie = xarray.DataArray(
            open_movie(path).to_dask(),
            dims=("time", "y", "x"),
            coords={"time": np.arange(len(written)) / 20.0},
            name="counts",
            attrs={"conversion_gain": noise.conversion_gain, "zero_level": noise.zero_level},
        )
        seconds = movie.sel(time=slice(1, 2)).mean("time")
        print(f"xarray   mean from 1 s to 2 s: {float(seconds.mean()):.1f} counts")

        same = np.array_equal(frame, lazy[60].compute()) and np.array_equal(frame, movie[60].values)
        print(f"all three give the same counts: {same}")
        # --8<-- [end:open]


if __name__ == "__main__":
    main()
