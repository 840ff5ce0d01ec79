"""Run a calcium imaging pipeline: TIFF stacks to movies, motion, cells and traces, with two processes and two tiers.

    pip install "dj-photon-codecs[examples]"
    python examples/calcium_imaging.py

The recording is simulated, so the truth is known. At the end the script prints how many true cells were found, how
their traces correlate with the truth, and the error of the motion, for the movie as recorded and as stored.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _setup import end_workers_at_once, parser, place  # first, because it says which package is missing

# isort: split

import datajoint as dj
import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.registration import phase_cross_correlation

from dj_photon_codecs import PhotonMovie, calibrate
from dj_photon_codecs.simulation import GroundTruth, Spec, presets, simulate
from dj_photon_codecs.simulation import Recording as Simulation

schema = dj.Schema()

BLOCK = 100  # frames in memory at a time
CELL_AREA = (40, 400)  # pixels: smaller regions are noise, larger ones several cells


@schema
class Mouse(dj.Manual):
    definition = """
    mouse : varchar(16)
    ---
    sex : enum('F', 'M', 'U')
    born : date
    """


@schema
class Session(dj.Manual):
    definition = """
    -> Mouse
    session : int32
    ---
    session_date : date
    fps : float64                    # frames per second
    movie_file : varchar(255)        # TIFF stack with the axes time, height, width
    volume_file = '' : varchar(255)  # TIFF stack with the axes time, plane, height, width; empty if there is none
    """


@schema
class Profile(dj.Lookup):
    """How each recording is stored. A lab needs one line; the lossless one is for comparison."""

    definition = """
    profile : varchar(16)
    """
    contents: Any = (("standard",), ("lossless",))


def open_tiff(path: str, axes: str) -> Any:
    """Return a memory map of a TIFF stack after checking that it holds raw counts with the expected axes."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        found = series.axes.replace("I", "T").replace("Q", "T")
        if found != axes or series.dtype != np.uint16:
            raise ValueError(f"{path} has axes {series.axes} of {series.dtype}, expected {axes} of uint16")
    counts = tifffile.memmap(path, mode="r")
    if np.mean(counts[:: max(1, len(counts) // 10)] == counts.max()) > 0.001:
        raise ValueError(f"{path}: more than 0.1 % of the pixels are saturated at {counts.max()}")
    return counts


# --8<-- [start:recording]
@schema
class Recording(dj.Imported):
    definition = """
    -> Session
    -> Profile
    ---
    n_frames : int32
    movie = null : <photon@active>   # null once it is in the archive
    """

    def make(self, key: dict[str, Any]) -> None:
        counts = open_tiff((Session & key).fetch1("movie_file"), "TYX")
        # The lossless profile is stored without a noise model, but the stabilised view needs one.
        movie = PhotonMovie(counts, calibration=calibrate(counts), profile=key["profile"])
        self.insert1({**key, "n_frames": len(counts), "movie": movie})

    # --8<-- [end:recording]

    # --8<-- [start:archive]
    @classmethod
    def fetch_movie(cls, key: dict[str, Any]) -> Any:
        """Return the lazy handle of a recording, from whichever tier has it."""
        movie = (cls & key).fetch1("movie")
        return (Archive & key).fetch1("movie") if movie is None else movie

    @classmethod
    def move_to_archive(cls, key: dict[str, Any]) -> None:
        """Copy a movie byte for byte to the archive, verify the copy, and release the active movie."""
        Archive.insert1({**key, "movie": (cls & key).fetch1("movie")})
        archived = (Archive & key).fetch1("movie").verify()
        if not archived:
            raise OSError(f"the copy of {key} is damaged: {archived}")
        cls.update1({**key, "movie": None})

    # --8<-- [end:archive]


@schema
class Archive(dj.Manual):
    definition = """
    -> Recording
    ---
    movie : <photon@archive>
    """


@schema
class VolumeRecording(dj.Imported):
    definition = """
    -> Session
    ---
    n_planes : int32
    movie : <photon@active>          # time, plane, height, width
    """

    @property
    def key_source(self) -> Any:
        return Session & "volume_file <> ''"

    def make(self, key: dict[str, Any]) -> None:
        counts = open_tiff((Session & key).fetch1("volume_file"), "TZYX")
        self.insert1({**key, "n_planes": counts.shape[1], "movie": counts})


class Shifted:
    """A movie shifted by whole pixels and cropped to the area common to all frames, computed on reading.

    Shifts are whole pixels because interpolated counts have different noise from photon counts.
    """

    def __init__(self, movie: Any, shifts: Any) -> None:
        self.movie, self.whole = movie, np.rint(shifts).astype(int)
        low, high = self.whole.min(axis=0), self.whole.max(axis=0)
        self.origin = -low  # so that no frame is read beyond its edges
        self.shape = (len(movie), *(np.array(movie.shape[1:]) - (high - low)).tolist())
        self.dtype = movie.dtype

    def __getitem__(self, frames: slice) -> Any:
        start, stop, _ = frames.indices(len(self.movie))
        corners = (self.origin + self.whole[start:stop]).tolist()
        height, width = self.shape[1:]
        moved = zip(self.movie.frames(start, stop), corners, strict=True)
        return np.stack([frame[top : top + height, left : left + width] for frame, (top, left) in moved])


def details(image: Any) -> Any:
    """Prepare an image for registration: no pixel noise, no uneven light, fading towards the edges."""
    height, width = image.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    return window * (gaussian_filter(image, 1.5) - gaussian_filter(image, 12))


# --8<-- [start:motion]
def measure_shifts(movie: Any) -> Any:
    """Measure the shift of each frame in rows and columns (time, 2) by phase correlation of the stabilised movie.

    The spectrum is not divided by its magnitude (``normalization=None``): at two photons per pixel most frequencies
    contain only noise, and the division would give them full weight.
    """
    stabilized = movie.stabilized  # equal noise everywhere, as correlation assumes
    template = details(stabilized[:30].mean(axis=0))
    for _ in range(2):  # the second time against the sharp mean of the corrected frames
        shifts, total = np.zeros((len(movie), 2)), np.zeros(template.shape)
        for index, frame in enumerate(stabilized.frames()):
            shift, _, _ = phase_cross_correlation(template, details(frame), upsample_factor=20, normalization=None)
            shifts[index] = -shift
            total += np.roll(frame, np.rint(shift).astype(int), axis=(0, 1))
        template = details(total / len(movie))
    return shifts


@schema
class MotionCorrected(dj.Computed):
    definition = """
    -> Recording
    ---
    shifts : <blob>                  # (time, 2): shift of each frame in rows and columns
    top : int32                      # corner of the corrected field of view in the recording
    left : int32
    movie : <photon@active>
    """

    def make(self, key: dict[str, Any]) -> None:
        movie = Recording.fetch_movie(key)
        shifts = measure_shifts(movie)
        moved = Shifted(movie, shifts)
        top, left = moved.origin.tolist()
        corrected = PhotonMovie(moved, calibration=movie.calibration, profile=key["profile"])  # same sensor
        self.insert1({**key, "shifts": shifts, "top": top, "left": left, "movie": corrected})


# --8<-- [end:motion]


def blocks(movie: Any) -> Iterator[tuple[slice, Any]]:
    """Yield a movie in blocks of frames: their slice and their counts."""
    for start in range(0, len(movie), BLOCK):
        frames = slice(start, min(start + BLOCK, len(movie)))
        yield frames, movie[frames]


@schema
class ROI(dj.Computed):
    definition = """
    -> MotionCorrected
    ---
    mean_image : <blob>              # counts (height, width)
    labels : <blob>                  # (height, width): number of the cell, 0 between cells
    """

    class Cell(dj.Part):
        definition = """
        -> master
        cell : int32
        ---
        area : int32                 # pixels
        row : float64                # centre, in the recording's field of view
        col : float64
        """

    def make(self, key: dict[str, Any]) -> None:
        movie, top, left = (MotionCorrected & key).fetch1("movie", "top", "left")
        mean = sum(counts.sum(axis=0, dtype=np.float64) for _, counts in blocks(movie)) / len(movie)
        contrast = gaussian_filter(mean, 2) - gaussian_filter(mean, 10)
        regions = label(contrast > threshold_otsu(contrast))
        cells = [region for region in regionprops(regions) if CELL_AREA[0] <= region.area <= CELL_AREA[1]]
        labels = np.zeros(mean.shape, np.int32)
        rows = []
        for number, region in enumerate(cells, start=1):
            labels[tuple(region.coords.T)] = number
            row, col = np.add(region.centroid, (top, left)).tolist()
            rows.append({**key, "cell": number, "area": int(region.area), "row": row, "col": col})
        self.insert1({**key, "mean_image": mean, "labels": labels})
        self.Cell.insert(rows)


@schema
class Trace(dj.Computed):
    definition = """
    -> ROI
    ---
    traces : <blob>                  # (cell, time): mean counts of the pixels of each cell
    """

    def make(self, key: dict[str, Any]) -> None:
        labels = (ROI & key).fetch1("labels")
        movie = (MotionCorrected & key).fetch1("movie")
        masks = np.stack([labels.ravel() == number for number in range(1, labels.max() + 1)]).astype(np.float32)
        masks /= masks.sum(axis=1, keepdims=True)
        traces = np.empty((len(masks), len(movie)), np.float32)
        for frames, counts in blocks(movie):
            traces[:, frames] = masks @ counts.reshape(len(counts), -1).T.astype(np.float32)
        self.insert1({**key, "traces": traces})


# The rest makes the recordings, runs the pipeline, and compares with the truth.


def specification(seed: int, focal_depth_um: float = 160.0, n_frames: int = 300) -> Spec:
    """Return the two-photon preset with a thin layer of bright cells that hardly overlap, and a smooth neuropil.

    In the unchanged preset most cells are out of focus, and a threshold on the mean image finds few of them.
    """
    changes: dict[str, dict[str, Any]] = {
        "place_neurons": {
            "depth_min_um": 155.0,
            "depth_max_um": 165.0,
            "density_per_mm3": 130_000.0,
            "min_distance_um": 17.0,
        },
        "cell_activity": {"baseline_photons": 400.0},
        "neuropil": {"spatial_sigma_um": 30.0},
        "cell_optics": {"focal_depth_um": focal_depth_um},
    }
    preset = presets.two_photon_raster(seed=seed, height_px=160, width_px=160, n_frames=n_frames)
    steps = tuple(step.model_copy(update=changes.get(step.kind, {})) for step in preset.steps)
    return preset.model_copy(update={"steps": steps})


def record(folder: Path, volume_of: int | None = None) -> dict[int, Simulation]:
    """Insert a mouse with two sessions and write their simulated TIFF stacks; return the truth by session."""
    Mouse.insert1({"mouse": "M1", "sex": "F", "born": datetime.date(2026, 1, 5)})
    simulations = {session: simulate(specification(seed=session)) for session in (1, 2)}
    for session, simulation in simulations.items():
        movie, volume = (folder / f"{kind}{session}.tif" for kind in ("movie", "volume"))
        tifffile.imwrite(movie, simulation.observed, photometric="minisblack", metadata={"axes": "TYX"})
        row = {"mouse": "M1", "session": session, "session_date": datetime.date(2026, 3, session), "fps": 30.0}
        row["movie_file"] = str(movie)
        if session == volume_of:  # the same tissue again, in three planes
            depths = (154.0, 160.0, 166.0)
            planes = [simulate(specification(session, depth, n_frames=100)).observed for depth in depths]
            tifffile.imwrite(volume, np.stack(planes, axis=1), photometric="minisblack", metadata={"axes": "TZYX"})
            row["volume_file"] = str(volume)
        Session.insert1(row)
    return simulations


def size(n_bytes: float) -> str:
    """Format a number of bytes."""
    return f"{n_bytes / 1e6:.2f} MB"


def report_storage() -> None:
    """Print original bytes, stored bytes and ratio of every movie, from the rows alone."""
    print(f"\n{'recording':<28}{'profile':<10}{'original':>12}{'stored':>12}{'ratio':>8}")
    for table in (Recording, Archive, MotionCorrected, VolumeRecording):
        for row in table.to_dicts(order_by="KEY"):
            if row["movie"] is not None:
                record, name = row["movie"].record, f"{table.__name__} {row['mouse']}/{row['session']}"
                sizes = f"{size(record.original_bytes):>12}{size(record.stored_bytes):>12}"
                print(f"{name:<28}{record.profile:<10}{sizes}{row['movie'].compression_ratio:>8.2f}")


def compare(key: dict[str, Any], truth: GroundTruth) -> dict[str, float]:
    """Compare cells, traces and shifts of one recording with the truth."""
    shifts, traces = (MotionCorrected & key).fetch1("shifts"), (Trace & key).fetch1("traces")
    labels, top, left = (ROI * MotionCorrected & key).fetch1("labels", "top", "left")
    offset = np.median(shifts - truth.shifts, axis=0)  # the position of the template, which is arbitrary
    error = np.sqrt(((shifts - truth.shifts - offset) ** 2).sum(axis=1).mean())
    found = np.stack((ROI.Cell & key).to_arrays("row", "col", order_by="cell"), axis=1) - offset
    rows, cols = np.indices(truth.planted.fov_shape)
    weight = truth.A_observed / truth.A_observed.sum(axis=(1, 2), keepdims=True)
    places = np.stack([(weight * rows).sum(axis=(1, 2)), (weight * cols).sum(axis=(1, 2))], axis=1)
    distance = np.sqrt(((places[:, None] - found[None]) ** 2).sum(axis=2))
    light = truth.C * truth.bleaching
    inside = np.all(
        (places + offset > (top + 3, left + 3)) & (places + offset < np.add(labels.shape, (top, left)) - 4), 1
    )
    visible = np.flatnonzero(truth.detectable & inside)  # in focus, active, and in the field of view in every frame
    cells = [cell for cell in visible if distance[cell].min() < 5]
    correlations = [np.corrcoef(light[cell], traces[distance[cell].argmin()])[0, 1] for cell in cells]
    return {
        "true cells": len(visible),
        "found": len(cells),
        "no cell": int((distance.min(axis=0) >= 5).sum()),
        "correlation": float(np.median(correlations)),
        "shift error": float(error),
    }


def draw(key: dict[str, Any], truth: GroundTruth, path: Path) -> None:
    """Draw the mean image with the cells, and the traces of six of them from both movies."""
    from matplotlib.figure import Figure

    raw, stored = ({**key, "profile": profile} for profile in ("lossless", "standard"))
    mean, labels = (ROI & stored).fetch1("mean_image", "labels")
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    left.imshow(mean, cmap="gray", vmin=np.percentile(mean, 1), vmax=np.percentile(mean, 99.7))
    left.contour(labels > 0, levels=[0.5], colors="C1", linewidths=0.8)
    left.set(title=f"mean of the stored movie, {labels.max()} cells", xticks=[], yticks=[])
    both = {name: (Trace & which).fetch1("traces") for name, which in (("as recorded", raw), ("stored", stored))}
    centres = np.stack((ROI.Cell & raw).to_arrays("row", "col", order_by="cell"), axis=1)
    for number, cell in enumerate(np.argsort(both["stored"].std(axis=1))[::-1][:6]):
        row, col = (ROI.Cell & stored & {"cell": int(cell) + 1}).fetch1("row", "col")
        same = int(((centres - (row, col)) ** 2).sum(axis=1).argmin())
        time = np.arange(both["stored"].shape[1]) / (Session & key).fetch1("fps")
        for (name, traces), index, style in zip(
            both.items(), (same, cell), ({"color": "0.6", "lw": 2.4}, {"color": "C1", "lw": 0.8}), strict=True
        ):
            relative = traces[index] / np.percentile(traces[index], 20) - 1
            right.plot(time, relative + 1.2 * number, label=name if not number else None, **style)
    right.set(title="traces of six cells", xlabel="time [s]", ylabel="change of the mean counts", yticks=[0, 1])
    right.legend(loc="upper right", ncols=2, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> None:
    """Run the pipeline and print the results."""
    options = parser(__doc__).parse_args(arguments)
    end_workers_at_once()
    with place(options, schema, "calcium_imaging", ("active", "archive")) as here:
        simulations = record(here.folder, volume_of=1)
        # --8<-- [start:populate]
        for table in (VolumeRecording, Recording, MotionCorrected, ROI, Trace):
            done = table.populate(reserve_jobs=True, processes=2, display_progress=True)
            print(f"{table.__name__:<16} {done['success_count']} made, {len(table.jobs.errors)} errors")
        # --8<-- [end:populate]

        volume = (VolumeRecording & {"session": 1}).fetch1("movie")
        print(f"\nvolume {volume.shape}: plane means {volume[:20].mean(axis=(0, 2, 3)).round(1).tolist()} counts")

        moved = {"mouse": "M1", "session": 1, "profile": "standard"}
        before = Recording.fetch_movie(moved)[:10]
        Recording.move_to_archive(moved)
        collector = dj.gc.GarbageCollector(schema, store="active")
        freed = collector.collect(dry_run=False)["bytes_freed"]
        same = np.array_equal(Recording.fetch_movie(moved)[:10], before)
        print(f"archived {moved['mouse']}/{moved['session']}: {size(freed)} freed, same counts: {same}")
        report_storage()

        print(f"\n{'':<24}{'as recorded':>14}{'stored':>14}")
        for session, simulation in simulations.items():
            key, truth = {"mouse": "M1", "session": session}, simulation.ground_truth
            raw, stored = (compare({**key, "profile": name}, truth) for name in ("lossless", "standard"))
            print(f"session {session}, {raw['true cells']} true cells")
            print(f"  {'found':<22}{raw['found']:>14}{stored['found']:>14}")
            print(f"  {'no true cell there':<22}{raw['no cell']:>14}{stored['no cell']:>14}")
            print(f"  {'trace correlation':<22}{raw['correlation']:>14.4f}{stored['correlation']:>14.4f}")
            print(f"  {'shift error [pixels]':<22}{raw['shift error']:>14.3f}{stored['shift error']:>14.3f}")
        draw({"mouse": "M1", "session": 1}, simulations[1].ground_truth, options.output / "calcium_imaging.png")


if __name__ == "__main__":
    main()
