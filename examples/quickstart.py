"""First run: a calcium movie goes into DataJoint, and comes back lazily and several times smaller.

    pip install -e ".[demo]" && python examples/quickstart.py

It needs no database server and no account: everything lives in a temporary folder, except for the picture that it
leaves in examples/output/quickstart.png.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

os.environ.setdefault("DJ_IGNORE_CONFIG_FILE", "true")  # a datajoint.json nearby is another pipeline's

import datajoint as dj

from dj_photon_codecs import Calibration, PhotonArray
from dj_photon_codecs.embedded import embedded_database

HERE = Path(__file__).parent
MOVIE = HERE / "data" / "minisim_12bit.tif"
SENSOR_GAIN = 2.0  # ADU per electron: the recording is simulated, so here the truth is known


def main(picture: Path = HERE / "output" / "quickstart.png") -> dict[str, float]:
    """Store the movie, fetch it, compare; gives the numbers that it prints."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, embedded_database(folder):
        # Where the frames go. In a lab this is a shared disk or an S3 bucket, named in datajoint.json.
        store = Path(folder) / "store"
        store.mkdir()
        dj.config.stores = {"default": "imaging", "imaging": {"protocol": "file", "location": str(store)}}

        Recording = declare_tables()
        movie = tifffile.imread(MOVIE)
        Recording.insert1({"recording": 1, "fps": 20.0, "movie": movie})

        stored = (Recording & {"recording": 1}).fetch1("movie")  # a handle: nothing has been read yet
        numbers = measure(movie, stored, lambda: (Recording & {"recording": 1}).fetch1("movie"))
        report(stored, numbers)
        draw(movie, stored, picture)
        print(f"picture           {picture}")
    return numbers


def declare_tables() -> Any:
    """One table: a recording and its movie."""
    schema = dj.Schema("quickstart")

    @schema
    class Recording(dj.Manual):  # type: ignore[misc]  # DataJoint has no type information
        definition = """
        recording : int32
        ---
        fps : float64          # frames per second
        movie : <photon@imaging>
        """

    return Recording()


def noise(counts: Any, calibration: Calibration) -> Any:
    """Standard deviation of the noise at a number of counts [ADU]."""
    photons = np.maximum((counts - calibration.zero_level) / calibration.conversion_gain, 0)
    return calibration.conversion_gain * np.sqrt(photons + 3 / 8)


def measure(movie: Any, stored: PhotonArray, fetch: Any) -> dict[str, float]:
    """What a user wants to know before trusting a codec with a movie."""
    error = np.abs(stored[:].astype(float) - movie)
    seconds = []
    for frame in np.random.default_rng(0).integers(len(movie), size=20):
        handle = fetch()  # a new one, with no frame in its cache
        start = time.perf_counter()
        handle[int(frame)]
        seconds.append(time.perf_counter() - start)
    return {
        "bytes before": float(movie.nbytes),
        "bytes after": movie.nbytes / stored.compression_ratio,
        "ratio": stored.compression_ratio,
        "gain": stored.calibration.conversion_gain,
        "largest error": float((error / noise(movie, stored.calibration)).max()),
        "frame ms": 1000 * float(np.median(seconds)),
    }


def report(stored: PhotonArray, numbers: dict[str, float]) -> None:
    """Print it."""
    before, after = numbers["bytes before"] / 1e6, numbers["bytes after"] / 1e6
    print(f"movie             {stored.shape} {stored.dtype}")
    print(f"size              {before:.2f} MB before, {after:.2f} MB after: {numbers['ratio']:.2f} times smaller")
    print(f"conversion gain   {numbers['gain']:.2f} ADU per electron found, the sensor's is {SENSOR_GAIN:.2f}")
    print(f"largest error     {numbers['largest error']:.2f} noise standard deviations")
    print(f"one random frame  {numbers['frame ms']:.1f} ms")


def draw(movie: Any, stored: PhotonArray, picture: Path) -> None:
    """One frame before and after, what lies between them, and the noise model behind it all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    frame, calibration = len(movie) // 2, stored.calibration
    raw, back = movie[frame].astype(float), stored[frame].astype(float)
    figure, axes = plt.subplots(2, 2, figsize=(10, 9), layout="constrained")
    counts = {"cmap": "gray", "vmin": np.percentile(raw, 0.5), "vmax": np.percentile(raw, 99.8)}
    difference = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    for axis, title, values, style, unit in (
        (axes[0, 0], f"frame {frame} as recorded", raw, counts, "counts [ADU]"),
        (axes[0, 1], f"frame {frame} as stored", back, counts, "counts [ADU]"),
        (axes[1, 0], "difference", (back - raw) / noise(raw, calibration), difference, "noise standard deviations"),
    ):
        image = axis.imshow(values, **style)
        axis.set(title=title, xticks=[], yticks=[])
        figure.colorbar(image, ax=axis, label=unit, shrink=0.85)

    curve = calibration.curve
    axis = axes[1, 1]
    axis.scatter(curve.mean, curve.variance, s=8, color="0.4", label="measured in the movie")
    ends = np.array([calibration.zero_level, max(curve.mean)])
    label = f"fit: {calibration.conversion_gain:.2f} (x {-calibration.zero_level:+.1f})"
    axis.plot(ends, calibration.conversion_gain * (ends - calibration.zero_level), color="C3", label=label)
    axis.set(title="photon transfer curve", xlabel="mean [ADU]", ylabel="variance [ADU$^2$]")
    axis.legend(loc="upper left")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
