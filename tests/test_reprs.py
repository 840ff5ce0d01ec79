"""The repr of every public object that a user prints fits three lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import (
    Calibration,
    PhotonMovie,
    PhotonWriter,
    SourceError,
    estimate,
    open_movie,
    open_source,
    plan_recovery,
    read_frame_data,
    write_movie,
)
from dj_photon_codecs._arguments import brief_repr
from dj_photon_codecs.fidelity import FidelityReport, Scene, analyse, exact_errors, fidelity_report
from dj_photon_codecs.handle.unreadable import UnreadableArray
from dj_photon_codecs.simulation import build_scene, presets, simulate

LIGHT = np.linspace(1, 30, 64) * np.ones((64, 1))
COUNTS = (100 + 20 * np.random.default_rng(0).poisson(LIGHT, size=(120, 64, 64))).astype(np.uint16)
LONG = "a reason that goes on and on, " * 40


def of_movies(folder: Path) -> Iterator[Any]:
    """Handles, and what they give."""
    movie = write_movie(folder / "a folder with a long name" / "and another with a longer one" / "movie", COUNTS)
    yield from (movie, movie.stabilized, movie.calibration, movie.record, movie.verify())
    for chunk in (folder / "a folder with a long name").rglob("c/**/0"):
        if chunk.is_file():
            chunk.unlink()
    yield from (movie.verify(), UnreadableArray(SourceError(LONG)), Calibration.unknown(LONG))
    yield from (PhotonMovie(COUNTS), PhotonMovie(COUNTS, calibration=movie.calibration), estimate(COUNTS))
    yield PhotonMovie([LIGHT, LIGHT])


def of_files_and_acquisition(folder: Path) -> Iterator[Any]:
    """What is open, being written, or was written frame by frame."""
    np.save(folder / "movie.npy", COUNTS)
    with open_source(folder / "movie.npy") as source:
        yield source
    with PhotonWriter(folder / "live") as writer:
        for number, frame in enumerate(COUNTS):
            writer.append(frame, number=number, time=number / 30)
        writer.flush()
        yield from (writer, writer.status, open_movie(folder / "live", live=True))
    yield from (writer, read_frame_data(folder / "live"), plan_recovery(folder / "live"))


def of_simulation_and_fidelity(folder: Path) -> Iterator[Any]:
    """What a simulation gives, and reports."""
    spec = presets.two_photon_raster(seed=1, height_px=96, width_px=96, n_frames=200)
    recording = simulate(spec)
    yield from (recording, recording.ground_truth, recording.ground_truth.planted, recording.photon_movie())
    yield build_scene(spec)
    scene = Scene.of(recording)
    yield from (scene, analyse(recording.observed, scene))
    report: FidelityReport = fidelity_report(COUNTS, write_movie(folder / "report", COUNTS))
    yield from (report, report.bins[0], exact_errors(np.geomspace(0.1, 100, 50), conversion_gain=30))


@pytest.mark.parametrize("make", [of_movies, of_files_and_acquisition, of_simulation_and_fidelity])
def test_a_repr_fits_three_lines(make: Any, tmp_path: Path) -> None:
    for thing in make(tmp_path):
        shown = repr(thing)
        assert len(shown) <= 360 + len(str(tmp_path)), shown
        assert "\n" not in shown, shown


def test_a_repr_shows_arrays_by_their_shape_and_leaves_out_what_is_not_set() -> None:
    shown = "PhotonMovie(movie=ndarray of shape (120, 64, 64) and dtype uint16, conversion_gain=20, signed=False)"
    assert brief_repr(PhotonMovie(COUNTS, conversion_gain=20)) == repr(PhotonMovie(COUNTS, conversion_gain=20)) == shown
