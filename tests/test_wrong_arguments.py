"""Wrong arguments: the error says what was given, and what to call instead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

from dj_photon_codecs import (
    Calibration,
    ConfigurationError,
    FormatError,
    InvalidMovieError,
    MovieTypeError,
    PhotonMovie,
    SourceNotFoundError,
    StorageError,
    calibrate,
    open_movie,
    write_movie,
)
from dj_photon_codecs.fidelity import analyse, exact_errors, fidelity_report, oasis_ar1, science_report
from dj_photon_codecs.simulation import build_scene, finalize, presets, simulate
from dj_photon_codecs.viz import frame_png, transfer_curve_svg, transfer_curve_text


@pytest.fixture
def counts() -> Any:
    """40 frames of 64 x 64 with the noise of photons."""
    return (100 + 10 * np.random.default_rng(0).poisson(np.linspace(1, 30, 64), (40, 64, 64))).astype(np.uint16)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("scan.npy", r"is a file \(NPY\).*open_source\('.*scan.npy'\) opens it, and write_movie"),
        ("scan.tif", r"is a file \(TIFF?\).*open_source"),
        ("scan", r"is a file, not the folder.*open_source"),
        ("scan.zip", r"is a zip file.*ZipStore\('.*scan.zip', mode='r'\)"),
        ("group.zarr", r"is a Zarr group, not a movie.*open_source"),
        ("nowhere", "there is no Zarr array at"),
    ],
)
def test_open_movie_says_what_it_was_given_and_what_to_call(tmp_path: Path, counts: Any, name: str, match: str) -> None:
    np.save(tmp_path / "scan.npy", counts)
    (tmp_path / "scan.tif").write_bytes(b"II*\0")
    (tmp_path / "scan").write_bytes(b"binary")
    with zarr.storage.ZipStore(tmp_path / "scan.zip", mode="w") as store:
        zarr.create_array(store, data=counts)
    zarr.create_group(tmp_path / "group.zarr")
    with pytest.raises(FormatError, match=match):
        open_movie(tmp_path / name)


def test_open_movie_of_a_handle_gives_it_back(counts: Any) -> None:
    movie = write_movie({}, counts)
    assert open_movie(movie) is movie


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_open_movie_of_a_group_names_the_arrays_in_it(tmp_path: Path, counts: Any, zarr_format: Any) -> None:
    group = zarr.create_group(tmp_path / "group.zarr", zarr_format=zarr_format)
    group.create_array("raw", data=counts)
    write_movie(tmp_path / "group.zarr" / "session" / "movie", counts, zarr_format=zarr_format)
    zarr.open_group(str(tmp_path / "group.zarr" / "session"), mode="a", zarr_format=zarr_format)
    with pytest.raises(FormatError, match=r"is a Zarr group with the arrays \['raw', 'session/movie'\], not a movie"):
        open_movie(tmp_path / "group.zarr")
    assert open_movie(tmp_path / "group.zarr" / "session" / "movie").shape == counts.shape


def test_two_noise_models_are_refused_unless_they_agree(tmp_path: Path, counts: Any) -> None:
    model = Calibration.given(10.0, 100.0)
    movie = PhotonMovie(counts, conversion_gain=10.0, zero_level=100.0)
    with pytest.raises(ConfigurationError, match="two noise models.*give one of them"):
        write_movie(tmp_path / "m", movie, calibration=Calibration.given(5.0, 100.0))
    assert write_movie(tmp_path / "m", movie, calibration=model).calibration == model


@pytest.mark.parametrize(("place", "match"), [("file", "file is a file"), ("file/m.zarr", "file is a file")])
def test_a_movie_is_not_written_onto_a_file(tmp_path: Path, counts: Any, place: str, match: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match=match):
        write_movie(tmp_path / place, counts)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("place", ["b.zarr", "c/0/b.zarr"])
def test_a_movie_is_not_written_into_another(tmp_path: Path, counts: Any, zarr_format: Any, place: str) -> None:
    outer = write_movie(tmp_path / "a.zarr", counts, zarr_format=zarr_format)
    with pytest.raises(ConfigurationError, match=r"lies in the folder of another movie, .*a\.zarr"):
        write_movie(tmp_path / "a.zarr" / place, counts)
    assert outer.verify()


def test_a_movie_is_written_into_a_group(tmp_path: Path, counts: Any) -> None:
    zarr.create_group(tmp_path / "group.zarr")
    assert write_movie(tmp_path / "group.zarr" / "movie", counts).verify()


def test_an_object_reference_is_refused_with_a_hint(tmp_path: Path) -> None:
    from datajoint.objectref import ObjectRef

    fields = SimpleNamespace(path="x/y.zarr", size=1, hash=None, ext=".zarr", is_dir=True, timestamp=None)
    reference = ObjectRef(**vars(fields))
    with pytest.raises(MovieTypeError, match=r"<object@store> column.*reference\.fsmap.*reference\.download"):
        write_movie(tmp_path / "m", reference)


def test_a_missing_file_is_told_as_such(tmp_path: Path) -> None:
    for function in (calibrate, lambda path: write_movie(tmp_path / "m", path)):
        with pytest.raises(SourceNotFoundError, match="there is no file or folder '.*scan.npy'"):
            function(tmp_path / "scan.npy")


def test_calibrate_and_fidelity_report_take_paths(tmp_path: Path, counts: Any) -> None:
    np.save(tmp_path / "scan.npy", counts)
    stored = write_movie(tmp_path / "m.zarr", counts)
    assert calibrate(tmp_path / "scan.npy") == calibrate(counts)
    report = fidelity_report(str(tmp_path / "scan.npy"), tmp_path / "m.zarr")
    assert report.to_dict() == fidelity_report(counts, stored).to_dict()
    assert report.within_bound


def test_negative_counts_have_advice_for_each_cause(tmp_path: Path, counts: Any) -> None:
    negative = counts.astype(np.int16) - 120
    with pytest.raises(InvalidMovieError, match="signed converter.*subtracted.*denoised.*Don't shift") as raised:
        write_movie(tmp_path / "m", negative)
    assert "movie.min()" not in str(raised.value)
    assert write_movie(tmp_path / "a", PhotonMovie(negative, signed=True))[:].min() < 0
    lossless = write_movie(tmp_path / "b", PhotonMovie(negative, signed=True, profile="lossless"))
    assert (lossless[:] == negative).all()


def test_open_movie_names_the_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    for place, named in (("mount/m.zarr", "mount"), ("disk/2026/07/m.zarr", "disk")):
        with pytest.raises(StorageError, match=f"the folder {tmp_path / named} (is empty|does not exist).*mounted"):
            open_movie(tmp_path / place)
    with pytest.raises(FormatError, match="there is no Zarr array"):
        open_movie(tmp_path / "m.zarr")


def _wrong_calls() -> dict[str, tuple[Any, str]]:
    """Calls by name, and what their error says: the argument, what was given, what it must be."""
    frame: Any = np.ones((8, 8))
    none: Any = None
    given: Any = Calibration.given(10.0, 100.0)
    preset: Any = presets.two_photon_raster
    spec: Any = presets.two_photon_raster(height_px=16, width_px=16, n_frames=2)
    return {
        "no photons": (
            lambda: exact_errors([], conversion_gain=1),
            r"exact_errors: photons must be .* above 0, got \[\]",
        ),
        "NaN photons": (lambda: exact_errors([1, np.nan], conversion_gain=1), "exact_errors: photons must be"),
        "photons of text": (lambda: exact_errors("many", conversion_gain=1), "photons must be .* got 'many'"),
        "gain 0": (
            lambda: exact_errors([1], conversion_gain=0),
            "exact_errors: conversion_gain must be .* above 0, got 0",
        ),
        "gain NaN": (lambda: exact_errors([1], conversion_gain=np.nan), "conversion_gain must be .* above 0, got nan"),
        "read noise": (
            lambda: exact_errors([1], conversion_gain=1, read_noise=-1),
            "read_noise must be .* from 0, got -1",
        ),
        "pedestal": (lambda: exact_errors([1], conversion_gain=1, pedestal=np.inf), "pedestal must be .* got inf"),
        "no trace": (
            lambda: oasis_ar1(np.empty(0), 0.9),
            r"oasis_ar1: trace must be .*\(time,\), got ndarray of shape \(0,\)",
        ),
        "a trace of two axes": (lambda: oasis_ar1(frame, 0.9), r"trace must be .* got ndarray of shape \(8, 8\)"),
        "a trace with NaN": (lambda: oasis_ar1(np.array([1, np.nan]), 0.9), r"trace must be .* with NaN or infinity"),
        "decay 2": (lambda: oasis_ar1(np.ones(9), 2), "oasis_ar1: decay must be from 0 to below 1.*, got 2"),
        "decay NaN": (lambda: oasis_ar1(np.ones(9), np.nan), "decay must be .*, got nan"),
        "smallest": (lambda: oasis_ar1(np.ones(9), 0.5, smallest=-1), "smallest must be .* from 0, got -1"),
        "penalty": (lambda: oasis_ar1(np.ones(9), 0.5, penalty=np.inf), "penalty must be .* from 0, got inf"),
        "an empty frame": (
            lambda: frame_png(np.empty((0, 3))),
            r"frame_png: counts must be .* got ndarray of shape \(0, 3\)",
        ),
        "a list of numbers": (lambda: frame_png([1, 2]), r"frame_png: counts must be .* got \[1, 2\]"),
        "a movie as a frame": (
            lambda: frame_png(np.ones((3, 8, 8))),
            r"\(height, width\): choose one.* shape \(3, 8, 8\)",
        ),
        "text as a frame": (lambda: frame_png([["a"]]), "frame_png: counts must be a frame of numbers"),
        "curve of an array": (
            lambda: transfer_curve_svg(frame),
            "calibration must be a Calibration.*got ndarray of shape",
        ),
        "curve of None": (lambda: transfer_curve_text(none), "calibration must be a Calibration: .*got None"),
        "report on an array": (
            lambda: science_report(frame, frame),
            "recording must be a Recording, as simulation.simulate",
        ),
        "analysis of no scene": (
            lambda: analyse(frame, given),
            r"scene must be a Scene: fidelity.Scene.of\(recording\)",
        ),
        "no spec": (lambda: simulate(none), "spec must be a Spec, such as .*, got None"),
        "a preset that was not called": (lambda: build_scene(preset), "spec must be a Spec"),
        "no scene": (lambda: finalize(spec, spec), "finalize: scene must be a Scene, as build_scene"),
    }


@pytest.mark.parametrize("call", _wrong_calls())
def test_a_wrong_argument_is_named_with_what_was_given_and_what_it_must_be(call: str) -> None:
    function, message = _wrong_calls()[call]
    with pytest.raises(ConfigurationError, match=message):
        function()


def test_a_frame_may_be_a_list_of_rows() -> None:
    assert frame_png([[1, 2], [3, 4]]) == frame_png(np.array([[1, 2], [3, 4]]))


def test_the_transfer_curve_of_a_movie_is_asked_for_by_its_calibration(counts: Any) -> None:
    movie = write_movie({}, counts)
    for draw in (transfer_curve_svg, transfer_curve_text):
        with pytest.raises(ConfigurationError, match="that of a movie is movie.calibration"):
            draw(movie)  # type: ignore[arg-type]
