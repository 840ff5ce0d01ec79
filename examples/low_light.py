"""Run a low-light pipeline: localise single molecules, link them into tracks, and measure their diffusion.

    pip install "dj-photon-codecs[examples]"
    python examples/low_light.py

The recordings are simulated with a known diffusion coefficient. Each is stored twice, with a step of half a noise
standard deviation and without loss, and both go through the same tables.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from _setup import parser, place  # first, because it says which package is missing

# isort: split

import datajoint as dj
import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from skimage.draw import circle_perimeter

from dj_photon_codecs import PhotonMovie, calibrate, generalized_anscombe
from dj_photon_codecs.simulation import Spec, presets, simulate
from dj_photon_codecs.simulation.video import write_blocks

schema = dj.Schema()

THRESHOLD = 5.0  # noise standard deviations of the filtered frame; with unit noise, one number suits every movie
RADIUS = 3  # pixels around a peak to fit: 7 x 7
FARTHEST_UM = 0.35  # search radius for a molecule in the next frame: 4.5 standard deviations of its step
SHORTEST = 5  # frames: shorter tracks say little about motion
LAGS = 5  # of the mean squared displacement


@schema
class Sample(dj.Manual):
    definition = """
    sample : varchar(32)
    ---
    description : varchar(255)
    """


@schema
class Acquisition(dj.Manual):
    definition = """
    -> Sample
    acquisition : int32
    ---
    pixel_size_um : float64
    fps : float64                    # frames per second, with the shutter always open
    movie : <photon@imaging>
    """


def filtered(frame: Any) -> Any:
    """Filter a stabilised frame for spots: a spot minus its surroundings, in noise standard deviations."""
    spot = gaussian_filter(frame, 1.0) - gaussian_filter(frame, 4.0)
    weights = np.zeros((33, 33))
    weights[16, 16] = 1
    weights = gaussian_filter(weights, 1.0) - gaussian_filter(weights, 4.0)
    return spot / np.sqrt((weights**2).sum())


def find_peaks(frame: Any) -> Any:
    """Return rows and columns of local maxima above the threshold, except at the edges: (spot, 2)."""
    image = filtered(frame)
    peaks = (image == maximum_filter(image, 2 * RADIUS + 1)) & (image > THRESHOLD)
    peaks[:RADIUS], peaks[-RADIUS:], peaks[:, :RADIUS], peaks[:, -RADIUS:] = False, False, False, False
    return np.argwhere(peaks)


def model(parameters: Any, gain: float, zero_level: float) -> Any:
    """Return stabilised 7 x 7 images of 2D Gaussians from row, column, width, photons, background (spot, 5)."""
    row, col, width, photons, background = (column[:, None, None] for column in parameters.T)
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    spot = np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * width**2)) / (2 * np.pi * width**2)
    light = np.maximum(photons * spot + background, 0.0)
    return generalized_anscombe(light * gain + zero_level, conversion_gain=gain, zero_level=zero_level)


def fit(windows: Any, gain: float, zero_level: float) -> Any:
    """Fit a 2D Gaussian to each stabilised window (spot, 7, 7) by damped Gauss-Newton steps; return (spot, 5).

    The model is stabilised too, so nothing is transformed back to counts. Every pixel then has noise 1, and plain
    least squares weights pixels nearly as well as maximum likelihood with Poisson's law.
    """
    low, high = np.array([-RADIUS, -RADIUS, 0.5, 10.0, 0.0]), np.array([RADIUS, RADIUS, 2.5, 1e5, 1e3])
    steps = np.array([1e-3, 1e-3, 1e-3, 0.1, 0.01])
    parameters = np.tile(np.array([0.0, 0.0, 0.9, 300.0, 6.0]), (len(windows), 1))
    damping = np.full(len(windows), 1e-2)
    residual = windows - model(parameters, gain, zero_level)
    error = (residual**2).sum(axis=(1, 2))
    for _ in range(25):
        moved = [model(parameters + step, gain, zero_level) for step in np.diag(steps)]
        slope = np.stack([(m - windows + residual) / s for m, s in zip(moved, steps, strict=True)], axis=-1)
        slope = slope.reshape(len(windows), -1, 5)
        normal = np.swapaxes(slope, 1, 2) @ slope
        normal += damping[:, None, None] * np.eye(5) * np.diagonal(normal, axis1=1, axis2=2)[
            :, None, :
        ] + 1e-9 * np.eye(5)
        change = np.linalg.solve(normal, np.swapaxes(slope, 1, 2) @ residual.reshape(len(windows), -1, 1))[..., 0]
        trial = np.clip(parameters + change, low, high)
        new = windows - model(trial, gain, zero_level)
        better = (new**2).sum(axis=(1, 2)) < error
        parameters[better], residual[better] = trial[better], new[better]
        error = (residual**2).sum(axis=(1, 2))
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-8, 1e8)
    return parameters


# --8<-- [start:fit]
@schema
class LocalizedMolecules(dj.Computed):
    definition = """
    -> Acquisition
    ---
    n_molecules : int32              # in all frames together
    molecules : <blob>               # (molecule, 5): frame, row [um], column [um], width [um], photo-electrons
    """

    def make(self, key: dict[str, Any]) -> None:
        movie, pixel = (Acquisition & key).fetch1("movie", "pixel_size_um")
        noise = movie.calibration
        windows, places = [], []
        for index, frame in enumerate(movie.stabilized.frames()):
            for row, col in find_peaks(frame).tolist():
                windows.append(frame[row - RADIUS : row + RADIUS + 1, col - RADIUS : col + RADIUS + 1])
                places.append((index, row, col))
        found = fit(np.stack(windows).astype(np.float64), noise.conversion_gain, noise.zero_level)
        where = np.array(places, np.float64)
        where[:, 1:] = (where[:, 1:] + found[:, :2] + 0.5) * pixel  # the centre of pixel i is at i + 0.5
        molecules = np.column_stack([where, found[:, 2] * pixel, found[:, 3]])
        sharp = (np.abs(found[:, :2]).max(axis=1) < 1.5) & (found[:, 2] < 2.0)  # the others are two molecules or none
        self.insert1({**key, "n_molecules": int(sharp.sum()), "molecules": molecules[sharp]})


# --8<-- [end:fit]


@schema
class Track(dj.Computed):
    definition = """
    -> LocalizedMolecules
    ---
    n_tracks : int32
    """

    class Path(dj.Part):
        definition = """
        -> master
        track : int32
        ---
        first_frame : int32
        path : <blob>                # (time, 2): row and column [um], one for each frame
        """

    def make(self, key: dict[str, Any]) -> None:
        molecules = (LocalizedMolecules & key).fetch1("molecules")
        tracks = [track for track in link(molecules) if len(track) >= SHORTEST]
        self.insert1({**key, "n_tracks": len(tracks)})
        self.Path.insert(
            {**key, "track": number, "first_frame": int(molecules[track[0], 0]), "path": molecules[track, 1:3]}
            for number, track in enumerate(tracks)
        )


def link(molecules: Any) -> list[list[int]]:
    """Link each molecule to the nearest in the next frame, if each is the other's nearest; return lists of indices."""
    frames = [np.flatnonzero(molecules[:, 0] == frame) for frame in range(int(molecules[:, 0].max()) + 1)]
    finished: list[list[int]] = []
    open_tracks = {index: [index] for index in frames[0].tolist()}
    for here, there in pairwise(frames):
        distance = np.sqrt(((molecules[here, None, 1:3] - molecules[None, there, 1:3]) ** 2).sum(axis=2))
        following: dict[int, list[int]] = {}
        for i, index in enumerate(here.tolist()):
            j = int(distance[i].argmin()) if len(there) else 0
            if len(there) and distance[i, j] < FARTHEST_UM and distance[:, j].argmin() == i:
                following[int(there[j])] = [*open_tracks[index], int(there[j])]
            else:
                finished.append(open_tracks[index])
        open_tracks = {index: following.get(index, [index]) for index in there.tolist()}
    return finished + list(open_tracks.values())


@schema
class Diffusion(dj.Computed):
    definition = """
    -> Track
    ---
    diffusion : float64              # um^2/s
    diffusion_error : float64        # standard error, from resampled tracks
    localization_error : float64     # standard deviation of a position along one axis [um]
    msd : <blob>                     # mean squared displacement at each lag [um^2]
    """

    def make(self, key: dict[str, Any]) -> None:
        fps = (Acquisition & key).fetch1("fps")
        paths = list((Track.Path & key).to_arrays("path", order_by="track"))
        sums, counts = np.transpose([displacements(path) for path in paths], (1, 0, 2))
        diffusion, localization = fit_diffusion(sums, counts, 1 / fps)
        rng = np.random.default_rng(0)
        draws = (rng.integers(len(paths), size=len(paths)) for _ in range(200))
        resampled = [fit_diffusion(sums[draw], counts[draw], 1 / fps)[0] for draw in draws]
        self.insert1(
            {
                **key,
                "diffusion": diffusion,
                "diffusion_error": float(np.std(resampled)),
                "localization_error": localization,
                "msd": sums.sum(axis=0) / counts.sum(axis=0),
            }
        )


def displacements(path: Any) -> tuple[Any, Any]:
    """Return sum and number of the squared displacements of a track at each lag."""
    squares = [((path[lag:] - path[:-lag]) ** 2).sum(axis=1) for lag in range(1, LAGS + 1)]
    return np.array([s.sum() for s in squares]), np.array([len(s) for s in squares])


# --8<-- [start:diffusion]
def fit_diffusion(sums: Any, counts: Any, interval: float) -> tuple[float, float]:
    """Fit diffusion coefficient and localisation error to the mean squared displacements.

    In two dimensions MSD(n) = 4 D (n - 2 R) dt + 4 s^2. Motion during the exposure subtracts 8 R D dt, with R = 1/6
    for a shutter that is always open, and s is the localisation error along each axis (A. J.
    Berglund, Physical Review E 82 (2010), 011917; X. Michalet and A. J. Berglund, Physical Review E 85 (2012),
    061916). Neither changes the slope, so D does not depend on them; s comes from the intercept.
    """
    lags, msd, n = np.arange(1, LAGS + 1), sums.sum(axis=0) / counts.sum(axis=0), counts.sum(axis=0)
    weight = np.sqrt(n / lags) / msd  # count overlapping displacements once
    slope, intercept = np.polyfit(lags * interval, msd, 1, w=weight)
    squared = (intercept + 8 / 6 * (slope / 4) * interval) / 4
    return float(slope / 4), float(np.sqrt(max(squared, 0.0)))


# --8<-- [end:diffusion]


# The rest makes the recording, runs the pipeline, and compares with the truth.

CASES = {1: "stored at half a noise standard deviation", 2: "stored losslessly"}


def empty_slide(spec: Spec) -> Any:
    """Simulate the same camera without molecules and with more light; return its counts."""
    changes: dict[str, dict[str, Any]] = {
        "molecules": {"density_per_um2": 0.0},
        "composite": {"background_photons": 60.0},
    }
    return simulate(
        spec.model_copy(
            update={
                "acquisition": spec.acquisition.model_copy(update={"n_frames": 60}),
                "steps": tuple(step.model_copy(update=changes.get(step.kind, {})) for step in spec.steps),
            }
        )
    ).observed


def draw(key: dict[str, Any], truth: float, path: Path) -> None:
    """Frames with localisations and tracks, and the mean squared displacement with its line."""
    from matplotlib.figure import Figure

    movie, pixel, fps = (Acquisition & key).fetch1("movie", "pixel_size_um", "fps")
    molecules, row = (LocalizedMolecules & key).fetch1("molecules"), (Diffusion & key).fetch1()
    tracks = list(zip(*(Track.Path & key).to_arrays("first_frame", "path"), strict=True))
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    extent = (0, movie.shape[2] * pixel, movie.shape[1] * pixel, 0)
    frames = np.linspace(10, len(movie) - 10, 5).astype(int)
    white = np.percentile(movie[int(frames[0])], 99.8)
    for axis, frame in zip(axes, frames.tolist(), strict=False):
        axis.imshow(movie[frame], cmap="gray", vmin=movie.calibration.zero_level, vmax=white, extent=extent)
        here = molecules[molecules[:, 0] == frame]
        axis.plot(here[:, 2], here[:, 1], "o", mfc="none", mec="C1", ms=9, mew=0.9)
        for first, way in tracks:
            if first <= frame < first + len(way):
                axis.plot(*way[: frame - first + 1, ::-1].T, color="C0", lw=0.9)
        axis.set(title=f"frame {frame}, {len(here)} molecules", xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    lags = np.arange(1, LAGS + 1) / fps
    axes[5].plot(1000 * lags, row["msd"], "o", color="0.2", label="measured")
    line = 4 * row["diffusion"] * (lags - 1 / (3 * fps)) + 4 * row["localization_error"] ** 2
    axes[5].plot(1000 * lags, line, color="C1", label=f"D = {row['diffusion']:.4f} um$^2$/s, true {truth:g}")
    axes[5].set(title="mean squared displacement", xlabel="lag [ms]", ylabel="um$^2$", ylim=(0, None))
    axes[5].legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def render(key: dict[str, Any], path: Path, scale: int = 4) -> None:
    """Write an enlarged video with a circle around each localisation."""
    movie, pixel, fps = (Acquisition & key).fetch1("movie", "pixel_size_um", "fps")
    molecules = (LocalizedMolecules & key).fetch1("molecules")
    black, white = movie.calibration.zero_level, float(np.percentile(movie[0], 99.8))

    def frame(index: int) -> Any:
        image = np.kron(movie[index].clip(max=white), np.ones((scale, scale), np.uint16))
        for _, row, col, *_ in molecules[molecules[:, 0] == index]:
            rows, cols = circle_perimeter(
                round(row / pixel * scale), round(col / pixel * scale), 4 * scale, shape=image.shape
            )
            image[rows, cols] = white
        return image

    shape = (len(movie), movie.shape[1] * scale, movie.shape[2] * scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_blocks(path, (frame(i)[None] for i in range(len(movie))), frame, shape, fps / 2, black, white, progress=False)


def main(arguments: list[str] | None = None) -> None:
    """Run the pipeline and print the results."""
    options = parser(__doc__).parse_args(arguments)
    spec = presets.single_molecule_tirf(seed=1, n_frames=200)
    simulation = simulate(spec)
    truth = simulation.ground_truth.molecules
    assert truth is not None  # the preset has molecules
    with place(options, schema, "low_light", ("imaging",)):
        Sample.insert1({"sample": "membrane", "description": "simulated fluorophores in a supported bilayer"})
        row = {"sample": "membrane", "pixel_size_um": spec.acquisition.pixel_size_um, "fps": spec.acquisition.fps}
        # Bright spots that jump from pixel to pixel make it impossible to measure noise, and calibrate() says so. The
        # noise belongs to the camera, whatever it looks at, so a recording of an empty slide will do.
        noise = calibrate(empty_slide(spec))
        for number, profile in ((1, "standard"), (2, "lossless")):
            movie = PhotonMovie(simulation.observed, calibration=noise, profile=profile)
            Acquisition.insert1({**row, "acquisition": number, "movie": movie})
        for table in (LocalizedMolecules, Track, Diffusion):
            table.populate(display_progress=True)
        movie = (Acquisition & {"acquisition": 1}).fetch1("movie")
        print(f"movie                  {movie.shape[0]} frames of {movie.shape[1]} x {movie.shape[2]}")
        true_gain = simulation.calibration.conversion_gain
        print(f"conversion gain        {noise.conversion_gain:.2f} found, {true_gain:.2f} true")
        print(f"true D                 {truth.diffusion_um2_per_s:.4f} um^2/s")
        for number, name in CASES.items():
            key = {"acquisition": number}
            result = (Diffusion & key).fetch1()
            stored = (Acquisition & key).fetch1("movie")
            print(f"\n{name}, {stored.compression_ratio:.2f} times smaller")
            print(f"  molecules            {(LocalizedMolecules & key).fetch1('n_molecules')} in all frames")
            print(f"  tracks               {(Track & key).fetch1('n_tracks')} of {SHORTEST} frames or more")
            off = 100 * (result["diffusion"] / truth.diffusion_um2_per_s - 1)
            measured = f"{result['diffusion']:.4f} +- {result['diffusion_error']:.4f}"
            print(f"  D                    {measured} um^2/s ({off:+.1f} %)")
            print(f"  localisation error   {1000 * result['localization_error']:.0f} nm from the fit of the line")
            molecules = (LocalizedMolecules & key).fetch1("molecules")
            print(f"                       {1000 * true_error(molecules, truth):.0f} nm from the truth")
        draw({"acquisition": 1}, truth.diffusion_um2_per_s, options.output / "low_light.png")
        render({"acquisition": 1}, options.output / "low_light.mp4")


def true_error(molecules: Any, truth: Any) -> float:
    """Return the error of localisations along one axis, to the nearest visible molecule; robust against misses [um]."""
    errors = []
    for frame in range(truth.photons.shape[1]):
        lit = truth.positions_um[truth.photons[:, frame] > 0, frame]
        here = molecules[molecules[:, 0] == frame, 1:3]
        if len(lit) and len(here):
            nearest = ((here[:, None] - lit[None]) ** 2).sum(axis=2).argmin(axis=1)
            errors.extend((here - lit[nearest]).ravel().tolist())
    return float(1.4826 * np.median(np.abs(errors)))


if __name__ == "__main__":
    main()
