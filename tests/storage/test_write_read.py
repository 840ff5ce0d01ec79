"""write_movie and open_movie: what goes in comes back, whatever it came from, or nothing is left behind."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import h5py
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from zarr.codecs import GzipCodec
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    Calibration,
    CalibrationError,
    CodeRangeError,
    ConfigurationError,
    FormatError,
    InvalidMovieError,
    LosslessWarning,
    MovieTypeError,
    PhotonArray,
    PhotonMovie,
    calibrate,
    open_movie,
    write_movie,
)
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage import plan
from dj_photon_codecs.storage.layout import plan_grid
from interrupted import interrupt_while_writing

GAIN, ZERO = 20.0, 100.0
NOISE = Calibration.given(GAIN, ZERO)


def make_counts(shape: tuple[int, ...] = (40, 64, 64), seed: int = 0) -> np.ndarray:
    """Poisson counts over a gradient of 1 to 20 photons, at a known gain and zero level."""
    rng = np.random.default_rng(seed)
    mean = np.linspace(1, 20, shape[-1]) * np.ones(shape[-2:])
    return np.round(ZERO + GAIN * rng.poisson(np.broadcast_to(mean, shape))).astype(np.uint16)


COUNTS = make_counts()


def assert_within_bound(
    stored: Any, counts: np.ndarray, step: float = 0.5, gain: float = GAIN, zero: float = ZERO
) -> None:
    """Invariants 1 and 4."""
    back = np.asarray(stored[...])
    assert back.shape == counts.shape
    assert back.dtype == counts.dtype
    photons = (np.maximum(back.astype(float), counts) - zero) / gain
    bound = step / 2 * gain * np.sqrt(np.maximum(photons, 0) + 0.375) + 0.5
    assert (np.abs(back.astype(float) - counts) <= bound + 1e-6).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("profile", ["standard", "portable"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_every_dtype_comes_back_as_itself(tmp_path: Path, dtype: str, profile: str, zarr_format: Any) -> None:
    counts = (COUNTS // (8 if dtype == "uint8" else 1)).clip(0, np.iinfo(dtype).max if dtype[0] in "ui" else 65535)
    counts = counts.astype(dtype)
    stored = write_movie(tmp_path / "m", counts, calibration=NOISE, profile=profile, zarr_format=zarr_format)
    assert_within_bound(stored, counts)
    assert_within_bound(open_movie(tmp_path / "m"), counts)
    assert (zarr.open_array(tmp_path / "m", mode="r")[:] == stored[:]).all()


def test_big_endian_counts_come_back_in_native_order(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m", COUNTS.astype(">u2"), calibration=NOISE)
    assert stored.dtype == np.dtype("=u2")
    assert_within_bound(stored, COUNTS)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_whole_numbers_in_float32_come_back_whole(tmp_path: Path, zarr_format: Any) -> None:
    stored = write_movie(tmp_path / "m", COUNTS.astype(np.float32), calibration=NOISE, zarr_format=zarr_format)
    assert stored.dtype == np.float32
    assert (stored[:] == np.rint(stored[:])).all()
    assert_within_bound(stored, COUNTS.astype(np.float32))


@pytest.mark.parametrize(("dtype", "high"), [("float16", 60_000), ("float32", 2**26)])
@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "dask"])
def test_counts_between_which_the_dtype_has_no_whole_numbers_are_lossless(
    tmp_path: Path, dtype: str, high: int, lazy: bool
) -> None:
    """A level would be rounded by more than half a count (invariant 1)."""
    counts = np.linspace(0, high, 20 * 16 * 16).reshape(20, 16, 16).astype(dtype)
    movie = dask.array.from_array(counts, chunks=(5, 16, 16)) if lazy else counts  # type: ignore[no-untyped-call]
    with pytest.warns(LosslessWarning, match=f"{dtype} rounds counts as far from 0 as .* to more than whole"):
        stored = write_movie(tmp_path / "m", movie, calibration=Calibration.given(0.01, 0.0))
    np.testing.assert_array_equal(stored[...], counts)
    assert stored.profile == "lossless"
    assert dtype in str(stored.record and stored.record.reason)


@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "dask"])
def test_a_measured_model_without_codes_stores_losslessly(tmp_path: Path, lazy: bool) -> None:
    counts = np.random.default_rng(0).poisson(50, (8, 16, 16)) + 2**62
    movie = dask.array.from_array(counts, chunks=(2, 16, 16)) if lazy else counts  # type: ignore[no-untyped-call]
    given = Calibration.given(1e-30, 0.0)
    with pytest.warns(LosslessWarning, match="the movie is stored losslessly: ") as caught:
        stored = write_movie(tmp_path / "m", movie, calibration=replace(given, method="photon-transfer"))
    assert len(caught) == 1
    np.testing.assert_array_equal(stored[...], counts)
    with pytest.raises(CodeRangeError):
        write_movie(tmp_path / "n", movie, calibration=given)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(("dtype", "high"), [("float16", 1900), ("float32", 2.0**24 - 2.0**21)])
def test_float_counts_below_that_are_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, high: float
) -> None:
    monkeypatch.setattr(plan, "_WORTH_ROUNDING", -10.0)
    counts = np.linspace(0, high, 20 * 16 * 16).reshape(20, 16, 16).astype(dtype)
    for gain in (0.3, 20.0):
        stored = write_movie(tmp_path / f"{gain}", counts, calibration=Calibration.given(gain, 0.0))
        assert stored.step == 0.5
        assert_within_bound(stored, counts, gain=gain, zero=0.0)


def test_the_fill_value_of_a_float_movie_always_has_a_code(tmp_path: Path) -> None:
    counts = np.linspace(0.3, 1.6e7, 20 * 16 * 16).reshape(20, 16, 16).astype(np.float32)
    noise = Calibration.given(0.3, -40.0)
    assert write_movie(tmp_path / "m", counts, calibration=noise)[:].dtype == np.float32


def test_fractions_come_back_within_the_bound(tmp_path: Path) -> None:
    counts = COUNTS * np.float32(0.37)
    stored = write_movie(tmp_path / "m", counts, calibration=Calibration.given(GAIN * 0.37, ZERO * 0.37))
    assert_within_bound(stored, counts, gain=GAIN * 0.37, zero=ZERO * 0.37)


@pytest.mark.parametrize("shape", [(1, 8, 8), (7, 1, 1), (5, 3, 16, 16), (3, 2, 2, 9, 11)], ids=str)
def test_any_shape_of_3_or_more_axes_comes_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    counts = make_counts(shape)
    assert_within_bound(write_movie(tmp_path / "m", counts, calibration=NOISE), counts)


@pytest.mark.parametrize("step", [0.1, 1.0, 2.0])
def test_the_step_sets_the_loss(tmp_path: Path, step: float) -> None:
    assert_within_bound(write_movie(tmp_path / "m", COUNTS, calibration=NOISE, step=step), COUNTS, step)


@pytest.mark.parametrize("options", [{"step": 0}, {"profile": "lossless"}], ids=str)
def test_lossless_on_request_is_silent_and_exact(tmp_path: Path, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = write_movie(tmp_path / "m", COUNTS, **options)
    assert (stored[:] == COUNTS).all()
    assert stored.profile == "lossless"
    assert stored.step == 0


def test_unknown_noise_is_stored_losslessly_with_a_warning_that_says_why(tmp_path: Path) -> None:
    """Invariant 3."""
    constant = np.full((10, 16, 16), 7, np.uint16)
    with pytest.warns(LosslessWarning, match="no noise model.*PhotonMovie") as caught:
        stored = write_movie(tmp_path / "m", constant)
    assert caught[0].filename == __file__  # it points at the caller
    assert (stored[:] == constant).all()
    assert stored.profile == "lossless"
    assert not stored.calibration.reliable
    assert stored.calibration.reason
    with pytest.raises(CalibrationError, match="stored losslessly because its noise is unknown"):
        _ = stored.stabilized


def test_the_noise_model_is_measured_when_none_is_given(tmp_path: Path) -> None:
    counts = make_counts((60, 128, 128))
    stored = write_movie(tmp_path / "m", counts)
    assert stored.calibration == calibrate(counts)
    assert stored.calibration.reliable
    assert stored.calibration.conversion_gain == pytest.approx(GAIN, rel=0.05)
    assert open_movie(tmp_path / "m").calibration == stored.calibration


_OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def close_sources() -> Iterator[None]:
    """Close the files that sources were opened from."""
    yield
    while _OPENED:
        _OPENED.pop().close()


def as_memmap(counts: np.ndarray, folder: Path) -> Any:
    path = folder / "counts.raw"
    counts.tofile(path)
    return np.memmap(path, dtype=counts.dtype, shape=counts.shape, mode="r")


def as_zarr(counts: np.ndarray, folder: Path) -> Any:
    return zarr.create_array(MemoryStore(), data=counts, chunks=(7, 32, 32))


def as_hdf5(counts: np.ndarray, folder: Path) -> Any:
    opened = h5py.File(folder / "counts.h5", "w")
    _OPENED.append(opened)
    return opened.create_dataset("counts", data=counts, chunks=(4, 64, 64))


def as_tiff(counts: np.ndarray, folder: Path) -> Any:
    tifffile.imwrite(folder / "counts.tif", counts, photometric="minisblack")
    opened = tifffile.imread(folder / "counts.tif", aszarr=True)
    _OPENED.append(opened)
    return zarr.open(opened, mode="r")


SOURCES: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "memory map": as_memmap,
    "zarr": as_zarr,
    "dask": lambda counts, folder: dask.array.from_array(counts, chunks=(9, 64, 64)),
    "h5py": as_hdf5,
    "tifffile's zarr view": as_tiff,
    "strided view": lambda counts, folder: np.repeat(counts, 2, axis=0)[::2],
    "transposed": lambda counts, folder: np.asfortranarray(counts),
    "read-only": lambda counts, folder: np.frombuffer(counts.tobytes(), counts.dtype).reshape(counts.shape),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_same_file(tmp_path: Path, kind: str) -> None:
    stored = write_movie(tmp_path / "m", SOURCES[kind](COUNTS, tmp_path), calibration=NOISE)
    reference = write_movie(tmp_path / "reference", COUNTS, calibration=NOISE)
    assert (stored[:] == reference[:]).all()
    chunks = {
        path.relative_to(tmp_path / "m"): path.read_bytes()
        for path in (tmp_path / "m" / "c").rglob("*")
        if path.is_file()
    }
    assert chunks
    assert all((tmp_path / "reference" / name).read_bytes() == content for name, content in chunks.items())


@pytest.mark.filterwarnings("ignore:the given conversion gain")  # the counts are no photons
def test_a_bright_frame_that_the_sample_missed_is_stored_all_the_same(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 256, (80, 64, 64), np.uint16)
    counts[1] = 65535  # outside the frames that are sampled of a source that is not in memory
    gain_1 = Calibration.given(1.0, 0.0)
    stored = write_movie(tmp_path / "m", as_zarr(counts, tmp_path), calibration=gain_1)
    assert stored[1].min() > 60000
    assert stored.metadata.codecs[0].codecs[0].encoded_dtype == "uint16"


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        ([[[1]]], MovieTypeError, "must be an array, got list"),
        (None, MovieTypeError, "must be an array, got NoneType"),
        ("movie.tif", MovieTypeError, "there is no file or folder '.*movie.tif'"),
        (np.zeros((3, 4, 5), bool), MovieTypeError, "dtype bool"),
        (np.zeros((3, 4, 5), complex), MovieTypeError, "dtype complex128"),
        (np.zeros((3, 4, 5), object), MovieTypeError, "dtype object"),
        (np.zeros((3, 4, 5), "U3"), MovieTypeError, "dtype <U3"),
        (np.zeros((3, 4, 5), "M8[s]"), MovieTypeError, "dtype datetime64"),
        (np.zeros((4, 5), np.uint16), InvalidMovieError, r"at least 3 axes.*\(4, 5\)"),
        (np.uint16(3), InvalidMovieError, "at least 3 axes"),
        (np.zeros((3, 0, 5), np.uint16), InvalidMovieError, r"no empty axis.*\(3, 0, 5\)"),
        (
            np.where(np.arange(60).reshape(3, 4, 5) == 27, np.nan, 1.0),
            InvalidMovieError,
            r"nan \(first at \(1, 1, 2\)\)",
        ),
        (
            np.where(np.arange(60).reshape(3, 4, 5) == 59, np.inf, 1.0),
            InvalidMovieError,
            r"inf \(first at \(2, 3, 4\)\)",
        ),
        (
            np.where(np.arange(60).reshape(3, 4, 5) > 27, -np.arange(60).reshape(3, 4, 5), 1).astype(np.int16),
            InvalidMovieError,
            r"minimum -59 \(first negative value at \(1, 1, 3\)\).*signed converter.*zero_level.*denoised.*minimum",
        ),
    ],
    ids=lambda value: str(getattr(value, "dtype", value))[:20],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    tmp_path: Path, value: Any, error: type, match: str
) -> None:
    with pytest.raises(error, match=match):
        write_movie(tmp_path / "deep" / "m", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [-3, np.nan])
def test_a_bad_value_met_while_streaming_leaves_nothing(tmp_path: Path, bad: float) -> None:
    """Invariant 6: in a source that is not in memory it is found when it is read."""
    counts = np.tile(COUNTS, (30, 1, 1)).astype(np.float32)
    counts[-5, 3, 4] = bad
    lazy = dask.array.from_array(counts, chunks=(100, 64, 64))
    with pytest.raises(InvalidMovieError, match=r"\(1195, 3, 4\)"):
        write_movie(tmp_path / "deep" / "m", lazy, calibration=None if bad == -3 else NOISE)
    assert not list(tmp_path.iterdir())


class FailingSource:
    """An array-like whose last frames cannot be read."""

    shape, dtype = (2000, 64, 64), np.dtype(np.uint16)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, frames: slice) -> np.ndarray:
        if frames.stop == 2000 and frames.stop - frames.start > 1:
            raise self.error
        return make_counts((frames.stop - frames.start, 64, 64))


@pytest.mark.parametrize("error", [OSError("disk gone"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_source_that_fails_leaves_nothing_and_its_own_error(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 1 << 20)
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1 << 17)
    with pytest.raises(type(error)) as raised:
        write_movie(tmp_path / "deep" / "m", FailingSource(error), calibration=NOISE)
    assert raised.value is error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")
def test_control_c_leaves_nothing(tmp_path: Path) -> None:
    """Invariant 6, with the signal itself, while objects are being written."""
    script = """
import numpy as np
from dj_photon_codecs import Calibration, write_movie
counts = np.random.default_rng(0).poisson(5, (30, 512, 512)).astype(np.uint8)
write_movie(sys.argv[1], counts, calibration=Calibration.given(1.0, 0.0))
"""
    code, errors = interrupt_while_writing(script, str(tmp_path / "deep" / "m"), cwd=tmp_path)
    assert "KeyboardInterrupt" in errors
    assert code != 0
    assert not (tmp_path / "deep").exists()


class FailingStore(MemoryStore):
    """A store that does not take the fourth object."""

    async def set(self, key: str, value: Any, byte_range: Any = None) -> None:
        if key == "c/3/0/0":
            raise OSError("no space left on device")
        await super().set(key, value)


def test_a_store_that_fails_is_emptied_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 6."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 1 << 16)
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1 << 14)
    store = FailingStore()
    with pytest.raises(OSError, match=r"object 'c/3/0/0' of memory://.*no space left on device"):
        write_movie(store, COUNTS, calibration=NOISE)
    assert not store._store_dict


def test_a_movie_is_never_written_over_something_else(tmp_path: Path) -> None:
    write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_movie(tmp_path / "m", COUNTS + 1, calibration=NOISE)
    assert_within_bound(open_movie(tmp_path / "m"), COUNTS)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"profile": "best"}, "profile must be one of standard, dense, portable, lossless, anscombe-v1, got 'best'"),
        ({"step": -1}, "step must be a number from 0"),
        ({"step": 50}, "step must be a number from 0"),
        ({"step": float("nan")}, "step must be a number from 0"),
        ({"zarr_format": 4}, "zarr_format must be 2 or 3, got 4"),
        ({"compressors": "zstd"}, "compressors for zarr_format=3 are bytes-to-bytes codecs"),
        ({"compressors": {"name": "nope"}}, "is no known codec"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_and_leave_nothing(
    tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        write_movie(tmp_path / "m", COUNTS, calibration=NOISE, **options)
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_no_place_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="under a path, a URL, or in a store of zarr or fsspec, got int 3"):
        write_movie(3, COUNTS, calibration=NOISE)


@pytest.mark.parametrize(
    "compressors", [GzipCodec(level=1), [{"name": "gzip", "configuration": {"level": 1}}], []], ids=str
)
def test_compressors_can_be_given_by_hand(tmp_path: Path, compressors: Any) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE, compressors=compressors)
    names = [codec.to_dict()["name"] for codec in stored.metadata.codecs[0].codecs]
    assert names == ["dj_photon_codecs.anscombe", "bytes", *(["gzip"] if compressors else []), "crc32c"]
    assert_within_bound(stored, COUNTS)


def test_compressors_for_zarr_v2_are_numcodecs(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE, zarr_format=2, compressors=numcodecs.GZip(1))
    assert stored.metadata.filters[-1] == numcodecs.GZip(1)
    assert_within_bound(stored, COUNTS)


def test_negative_counts_are_welcome_when_the_zero_level_is_given(tmp_path: Path) -> None:
    counts = COUNTS.astype(np.int16) - 400
    movie = PhotonMovie(counts, conversion_gain=GAIN, zero_level=ZERO - 400)
    assert_within_bound(write_movie(tmp_path / "m", movie), counts, zero=ZERO - 400)


def test_a_photon_movie_knows_better_than_the_options(tmp_path: Path) -> None:
    movie = PhotonMovie(COUNTS, conversion_gain=GAIN, zero_level=ZERO, step=2.0, profile="portable")
    stored = write_movie(tmp_path / "m", movie, step=0.5)
    assert (stored.step, stored.profile, stored.calibration) == (2.0, "portable", NOISE)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"conversion_gain": 0}, CalibrationError, "conversion_gain"),
        ({"conversion_gain": float("nan")}, CalibrationError, "conversion_gain"),
        ({"zero_level": 3.0}, CalibrationError, "without conversion_gain"),
        ({"conversion_gain": 1.0, "calibration": NOISE}, ConfigurationError, "either calibration or"),
        ({"profile": "x"}, ConfigurationError, "profile"),
        ({"step": "x"}, ConfigurationError, "step"),
    ],
    ids=str,
)
def test_a_photon_movie_checks_what_it_is_told(arguments: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        PhotonMovie(COUNTS, **arguments)


def test_a_fetched_handle_is_copied_byte_for_byte(tmp_path: Path) -> None:
    """Invariant 2: moving a movie from tier to tier loses nothing more."""
    first = write_movie(tmp_path / "first", COUNTS, calibration=NOISE)
    second = write_movie(tmp_path / "second", first)
    assert second == open_movie(tmp_path / "second")
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in files)


def test_a_handle_stored_with_other_settings_is_coded_anew_from_its_counts(tmp_path: Path) -> None:
    first = write_movie(tmp_path / "first", COUNTS, calibration=NOISE)
    portable = write_movie(tmp_path / "portable", first, profile="portable")
    assert portable.calibration == NOISE
    assert (portable[:] == first[:]).all()  # the same levels: nothing more is lost
    coarse = write_movie(tmp_path / "coarse", first, step=1.0)
    assert coarse.step == 1.0


def test_copying_a_movie_that_lacks_an_object_fails_and_leaves_nothing(tmp_path: Path) -> None:
    first = write_movie(tmp_path / "first", COUNTS, calibration=NOISE)
    next(path for path in (tmp_path / "first" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        write_movie(tmp_path / "second", first)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(("zarr_format", "last"), [(2, ".zarray"), (3, "zarr.json")])
def test_what_makes_it_an_array_is_written_last(zarr_format: Any, last: str) -> None:
    """Invariant 6: what a killed process leaves does not open."""
    store = MemoryStore()
    write_movie(store, COUNTS, calibration=NOISE, zarr_format=zarr_format)
    assert list(store._store_dict)[-1] == last


def test_opening_what_is_no_movie_says_so(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "group")
    with pytest.raises(FormatError, match="there is no Zarr array at"):
        open_movie(tmp_path / "nothing")
    with pytest.raises(FormatError, match="group is a Zarr group, not a movie: open_movie with the path of an array"):
        open_movie(tmp_path / "group")


def test_a_newer_format_version_is_refused(tmp_path: Path) -> None:
    write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    document = (tmp_path / "m" / "zarr.json").read_text()
    (tmp_path / "m" / "zarr.json").write_text(document.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(FormatError, match="format version 2, this release reads up to 1: upgrade"):
        open_movie(tmp_path / "m")


def test_a_url_and_a_zarr_store_are_places_too() -> None:
    stored = write_movie("memory://photon-test/m", COUNTS, calibration=NOISE)
    assert_within_bound(open_movie("memory://photon-test/m"), COUNTS)
    assert "photon-test/m" in repr(stored)
    store = MemoryStore()
    write_movie(store, COUNTS, calibration=NOISE)
    assert_within_bound(open_movie(store), COUNTS)


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunk", "shard"),
    [
        ((1000, 512, 512), 2, (16, 512, 512), (128, 512, 512)),
        ((10, 512, 512), 2, (10, 512, 512), (10, 512, 512)),
        ((1000, 512, 512), 8, (16, 512, 512), (32, 512, 512)),
        ((100, 2048, 2048), 2, (1, 2048, 2048), (8, 2048, 2048)),
        ((100, 5000, 4100), 2, (1, 1000, 4100), (1, 5000, 4100)),
        ((500, 10, 512, 512), 2, (16, 1, 512, 512), (16, 5, 512, 512)),
        ((500, 2, 3, 256, 256), 2, (64, 1, 1, 256, 256), (64, 2, 3, 256, 256)),
        ((50, 50, 512, 512), 2, (5, 1, 512, 512), (5, 25, 512, 512)),
        ((50, 200, 2048, 2048), 2, (1, 1, 2048, 2048), (1, 8, 2048, 2048)),
        ((500, 50, 16, 16), 2, (500, 1, 16, 16), (500, 50, 16, 16)),
    ],
    ids=str,
)
def test_chunks_hold_one_plane_are_sized_by_pixels_and_gathered_into_shards(
    shape: tuple[int, ...], itemsize: int, chunk: tuple[int, ...], shard: tuple[int, ...]
) -> None:
    grid = plan_grid(shape, itemsize, 3)
    assert (grid.shape, grid.chunk, grid.stored) == (shape, chunk, shard)
    assert plan_grid(shape, itemsize, 2).stored == chunk


def test_frames_larger_than_a_chunk_are_split_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1000)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 5000)
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    assert stored.chunks == (1, 13, 64)
    assert_within_bound(stored, COUNTS)
    assert stored.verify()
    assert (stored[3] == stored[:][3]).all()


def test_every_chunk_carries_a_checksum_and_empty_ones_are_written(tmp_path: Path) -> None:
    dark = np.zeros((40, 64, 64), np.uint16)
    stored = write_movie(tmp_path / "m", dark, calibration=Calibration.given(1.0, 0.0))
    assert stored.metadata.codecs[0].codecs[-1].to_dict()["name"] == "crc32c"
    assert stored.metadata.fill_value != 0
    full = np.full((40, 64, 64), stored.metadata.fill_value, np.uint16)
    again = write_movie(tmp_path / "full", full, calibration=Calibration.given(1.0, 0.0))
    assert (tmp_path / "full" / "c").exists()
    assert again.verify()


def test_a_stored_movie_is_several_times_smaller(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "m" / "c").rglob("*") if path.is_file())
    assert isinstance(stored, PhotonArray)
    assert stored.compression_ratio == pytest.approx(COUNTS.nbytes / on_disk)
    assert stored.compression_ratio > 3


@pytest.mark.parametrize("first", [{"step": 0.5}, {"step": 0}], ids=["rounded", "lossless"])
@pytest.mark.parametrize("options", [{"zarr_format": 2}, {"profile": "portable"}, {"step": 2.0}, {"step": 0}], ids=str)
def test_a_stored_movie_with_negative_counts_can_be_moved(tmp_path: Path, first: Any, options: Any) -> None:
    """What is refused on insert is not refused once it is stored."""
    counts = COUNTS.astype(np.int16) - 150
    noise = Calibration.given(GAIN, ZERO - 150)
    stored = write_movie(tmp_path / "first", PhotonMovie(counts, calibration=noise, **first))
    moved = write_movie(tmp_path / "second", stored, **options)
    assert moved[...].min() < 0
    if options.get("step") != 2.0:
        assert (moved[...] == stored[...]).all() or not stored.step
