"""Store a two-photon recording in DataJoint, fetch it lazily, and compare.

    pip install -e ".[demo]" && python examples/quickstart.py

It needs no database server and no account. Everything is in a temporary folder, except the picture that it leaves.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

os.environ.setdefault("DJ_IGNORE_CONFIG_FILE", "true")  # a datajoint.json nearby belongs to another pipeline

import datajoint as dj

from dj_photon_codecs import Calibration, PhotonArray
from dj_photon_codecs.embedded import embedded_database

HERE = Path(__file__).parent
MOVIE = HERE / "data" / "fmi_two_photon.tif"
PICTURE = HERE / "output" / "quickstart.png"


def main(picture: Path = PICTURE) -> dict[str, Any]:
    """Store the movie, fetch it, compare; return the printed numbers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, embedded_database(folder):
        # The frames go here. In a lab this is a shared disk or an S3 bucket, named in datajoint.json.
        store = Path(folder) / "store"
        store.mkdir()
        dj.config.stores = {"default": "imaging", "imaging": {"protocol": "file", "location": str(store)}}
        schema = dj.Schema("quickstart")

        @schema
        class Recording(dj.Manual):  # type: ignore[misc]  # DataJoint has no type information
            definition = """
            recording : int32
            ---
            fps : float64          # frames per second
            movie : <photon@imaging>
            """

        movie = tifffile.imread(MOVIE)
        Recording().insert1({"recording": 1, "fps": 20.0, "movie": movie})
        numbers = compare(movie, lambda: (Recording() & {"recording": 1}).fetch1("movie"), picture)

    before, after = numbers["bytes before"] / 1e6, numbers["bytes after"] / 1e6
    print(f"movie             {movie.shape[0]} frames of {movie.shape[1]} x {movie.shape[2]}, {movie.dtype}")
    print(f"size              {before:.2f} MB before, {after:.2f} MB after: {numbers['ratio']:.2f} times smaller")
    print(f"noise             {numbers['verdict']}, variance over mean {numbers['gain']:.0f} ADU")
    print(f"largest change    {numbers['largest change']:.2f} noise standard deviations")
    print(f"change of means   {numbers['change of the mean']:+.4f} noise standard deviations")
    print(f"one random frame  {numbers['frame ms']:.1f} ms")
    print(f"picture           {picture}")
    return numbers


def compare(movie: Any, fetch: Callable[[], PhotonArray], picture: Path) -> dict[str, Any]:
    """Compare the stored movie with the original, as a user would before trusting a codec."""
    stored = fetch()  # a lazy handle; nothing has been read yet
    counts = stored[:].astype(float)
    change = (counts - movie) / noise(np.maximum(counts, movie), stored.calibration)
    draw(movie, stored, picture)
    seconds = []
    for frame in np.random.default_rng(0).integers(len(movie), size=20):
        handle = fetch()  # a new handle with an empty cache
        start = time.perf_counter()
        handle[int(frame)]
        seconds.append(time.perf_counter() - start)
    return {
        "bytes before": float(movie.nbytes),
        "bytes after": movie.nbytes / stored.compression_ratio,
        "ratio": stored.compression_ratio,
        "gain": stored.calibration.conversion_gain,
        "verdict": stored.calibration.verdict,
        "largest change": float(np.abs(change).max()),
        "change of the mean": float(change.mean()),
        "frame ms": 1000 * float(np.median(seconds)),
    }


def noise(counts: Any, model: Calibration) -> Any:
    """Standard deviation of the noise that storage assumes at these counts [ADU]."""
    return np.sqrt(model.storage_noise.variance(counts))


def draw(movie: Any, stored: PhotonArray, picture: Path) -> None:
    """Draw one frame before and after, their difference, and the noise model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    frame, model = len(movie) // 2, stored.calibration
    raw, back = movie[frame].astype(float), stored[frame].astype(float)
    counts = {"cmap": "gray", "vmin": np.percentile(raw, 0.5), "vmax": np.percentile(raw, 99.8)}
    sigmas = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    figure, ((left, right), (below, corner)) = plt.subplots(2, 2, figsize=(10, 8.6), layout="constrained")
    for axis, title, values, style, unit in (
        (left, f"frame {frame} as recorded", raw, counts, "counts [ADU]"),
        (right, f"frame {frame} as stored, {stored.compression_ratio:.1f} times smaller", back, counts, "counts [ADU]"),
        (below, "stored - recorded", (back - raw) / noise(raw, model), sigmas, "noise standard deviations"),
    ):
        figure.colorbar(axis.imshow(values, **style), ax=axis, label=unit)
        axis.set(title=title, xticks=[], yticks=[])

    mean, variance, _ = np.transpose(model.curve)
    counts_seen = np.linspace(0, mean.max(), 200)
    corner.plot(counts_seen, model.storage_noise.variance(counts_seen), color="C3", label="assumed by storage")
    corner.scatter(mean, variance, s=8, color="0.3", zorder=3, label="measured in the movie")
    corner.set(title="photon transfer curve", xlabel="mean [ADU]", ylabel="variance [ADU$^2$]")
    corner.legend(loc="upper left")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
