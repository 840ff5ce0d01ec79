"""Movies as NWB files: what pynwb, hdmf-zarr and this package read back, and what nwbinspector says."""

from __future__ import annotations

import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from dj_photon_codecs import (
    Calibration,
    ConfigurationError,
    InvalidMovieError,
    MissingChunkError,
    OccupiedError,
    PhotonArray,
    open_movie,
    open_source,
    set_cache_size,
    write_movie,
)
from dj_photon_codecs.bridges.nwb import photon_series
from dj_photon_codecs.handle.cache import CACHE
from dj_photon_codecs.storage import layout as layout_module

pynwb = pytest.importorskip("pynwb", reason="the extra nwb is not installed")

# said by zarr of every store that hdmf-zarr writes, and of the checks of nwbinspector
pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning"),
    pytest.mark.filterwarnings("ignore:Use (Async)?Array.compressors instead:DeprecationWarning"),
]

RECORDING = Path(__file__).parents[2] / "examples" / "data" / "fmi_two_photon.tif"
NOISE = Calibration.given(225.0, 40.0)
START = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)

#: What is said of a file that knows nothing but the movie: who, why and on what animal.
UNKNOWN_SESSION = {
    "check_experimenter_exists",
    "check_experiment_description",
    "check_institution",
    "check_keywords",
    "check_subject_exists",
}


@pytest.fixture(scope="module")
def counts() -> Any:
    return tifffile.imread(RECORDING)[:, :96, :]


@pytest.fixture
def movie(counts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotonArray:
    """A real recording in objects of 32 frames, of two chunks each; its height differs from its width."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 16 * 96 * 128)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 32 * 96 * 128 * 2)
    return write_movie(tmp_path / "movie.zarr", counts, calibration=NOISE)


@pytest.fixture
def zarr_io() -> Any:
    return pytest.importorskip("hdmf_zarr", reason="hdmf-zarr 0.14 needs Python 3.12").NWBZarrIO


def test_hdf5_has_the_counts_in_the_order_of_axes_of_nwb(movie: PhotonArray, tmp_path: Path) -> None:
    path = movie.to_nwb(tmp_path / "movie.nwb", session_start_time=START, rate=30)
    with pynwb.NWBHDF5IO(path, "r") as io:
        series = io.read().acquisition["TwoPhotonSeries"]
        assert series.data.shape == (100, 128, 96)  # time, width, height
        assert series.data.dtype == "uint16"
        assert (series.data[:].swapaxes(1, 2) == movie[:]).all()
        assert (series.rate, series.starting_time) == (30, 0)
        assert series.data.compression == "gzip"
        assert np.prod(series.data.chunks) * 2 <= 1 << 20
        assert series.imaging_plane.indicator == "unknown"
    assert [entry.name for entry in tmp_path.iterdir() if "movie.zarr" not in entry.name] == ["movie.nwb"]


def test_this_package_reads_the_movie_back(movie: PhotonArray, tmp_path: Path) -> None:
    movie.to_nwb(tmp_path / "movie.nwb", session_start_time=START, rate=25)
    with open_source(tmp_path / "movie.nwb") as source:
        assert source.shape == movie.shape
        assert (source[:] == movie[:]).all()
        assert source.metadata["TimeIncrement"] == pytest.approx(1 / 25)


def test_a_known_gain_makes_photons_of_the_data(movie: PhotonArray, tmp_path: Path) -> None:
    series = photon_series(movie, plane(), rate=30)
    assert series.unit == "photons"
    photons = (movie[0] - NOISE.zero_level) / NOISE.conversion_gain
    np.testing.assert_allclose(movie[0] * series.conversion + series.offset, photons)
    assert "225 counts per photon" in series.comments


def test_a_gain_that_was_not_measured_makes_no_photons(counts: Any, tmp_path: Path) -> None:
    """The noise of this recording is only bounded: enough to store it, not to count photons."""
    series = photon_series(write_movie(tmp_path / "m", counts), plane(), rate=30)
    assert (series.unit, series.conversion, series.offset) == ("counts", 1, 0)
    assert "Photons unknown: the noise is not independent" in series.comments


def plane() -> Any:
    return a_file().create_imaging_plane(
        name="plane",
        optical_channel=pynwb.ophys.OpticalChannel(name="green", description="green", emission_lambda=510.0),
        device=pynwb.device.Device(name="microscope"),
        indicator="GCaMP6s",
        location="VISp",
        excitation_lambda=920.0,
    )


def a_file() -> Any:
    return pynwb.NWBFile(session_description="a test", identifier="test", session_start_time=START)


@pytest.mark.parametrize("profile", ["standard", "dense", "lossless", "portable"])
def test_zarr_has_the_bytes_of_the_movie(profile: str, movie: PhotonArray, tmp_path: Path, zarr_io: Any) -> None:
    """The codecs and the grid are the movie's, and coding again loses nothing (invariant 2): objects are equal.

    The last one is not: zarr pads it with other values than this package, beyond the end of the movie.
    """
    stored = write_movie(tmp_path / "other.zarr", movie if profile != "lossless" else movie[:], profile=profile)
    path = stored.to_nwb(tmp_path / "movie.nwb.zarr", session_start_time=START, rate=30)
    data = path / "acquisition" / "TwoPhotonSeries" / "data"
    objects = sorted(file.relative_to(data / "c") for file in (data / "c").rglob("*") if file.is_file())
    assert len(objects) == 4
    for name in objects[:3]:
        assert (data / "c" / name).read_bytes() == (tmp_path / "other.zarr" / "c" / name).read_bytes()
    with zarr_io(str(path), mode="r") as io:
        series = io.read().acquisition["TwoPhotonSeries"]
        assert (np.swapaxes(series.data[20:40], 1, 2) == stored[20:40]).all()
        assert series.unit == ("photons" if stored.calibration.reliable else "counts")
    assert (zarr.open_array(data, mode="r")[:].swapaxes(1, 2) == stored[:]).all()


def test_portable_zarr_has_no_codec_of_this_package(movie: PhotonArray, tmp_path: Path, zarr_io: Any) -> None:
    path = movie.to_nwb(tmp_path / "movie.nwb.zarr", session_start_time=START, rate=30, portable=True)
    array = zarr.open_array(path / "acquisition" / "TwoPhotonSeries" / "data", mode="r")
    assert "dj_photon_codecs" not in str(array.metadata.to_dict())
    assert (array[:].swapaxes(1, 2) == movie[:]).all()


def test_zarr_format_2_is_written_portable(movie: PhotonArray, tmp_path: Path, zarr_io: Any) -> None:
    old = write_movie(tmp_path / "old.zarr", movie, zarr_format=2)
    path = old.to_nwb(tmp_path / "movie.nwb.zarr", session_start_time=START, rate=30)
    array = zarr.open_array(path / "acquisition" / "TwoPhotonSeries" / "data", mode="r")
    assert (array[:].swapaxes(1, 2) == movie[:]).all()


@pytest.mark.parametrize("name", ["movie.nwb", "movie.nwb.zarr"])
def test_nwbinspector_misses_only_what_the_movie_does_not_know(name: str, movie: PhotonArray, tmp_path: Path) -> None:
    """This recording is shorter than it is wide, so the axis of time is asked after too."""
    inspector = pytest.importorskip("nwbinspector", reason="nwbinspector is not installed")
    if name.endswith(".zarr"):
        pytest.importorskip("hdmf_zarr", reason="hdmf-zarr 0.14 needs Python 3.12")
    path = movie.to_nwb(tmp_path / name, session_start_time=START, rate=30, location="VISp", indicator="GCaMP6s")
    # hdmf-zarr 0.14 does not take what nwbinspector's call of the validator hands it: validated below
    messages = inspector.inspect_nwbfile(nwbfile_path=path, skip_validate=name.endswith(".zarr"))
    found = {message.check_function_name for message in messages}
    if name.endswith(".zarr"):  # two checks ask for the compressor of Zarr 2, and fail on any array of Zarr 3
        found = {check for check in found if "dataset_compression" not in check}
    assert found == UNKNOWN_SESSION | {"check_data_orientation"}


def test_the_validator_of_nwb_finds_nothing_in_zarr(movie: PhotonArray, tmp_path: Path, zarr_io: Any) -> None:
    path = movie.to_nwb(tmp_path / "movie.nwb.zarr", session_start_time=START, rate=30)
    with zarr_io(str(path), mode="r") as io:
        assert not pynwb.validate(io=io)


def test_nothing_is_left_to_say_of_a_session_that_is_described(counts: Any, tmp_path: Path) -> None:
    inspector = pytest.importorskip("nwbinspector", reason="nwbinspector is not installed")
    nwbfile = pynwb.NWBFile(
        session_description="spontaneous activity",
        identifier="M1-1",
        session_start_time=START,
        experimenter="Doe, Jane",
        institution="FMI",
        experiment_description="two-photon imaging",
        keywords=["two-photon"],
        subject=pynwb.file.Subject(
            subject_id="M1", description="wild type", species="Mus musculus", sex="F", age="P60D"
        ),
    )
    movie = write_movie(tmp_path / "m", counts[:, :40, :50], calibration=NOISE)
    path = movie.to_nwb(tmp_path / "m.nwb", nwbfile=nwbfile, rate=30, location="VISp", indicator="GCaMP6s")
    assert list(inspector.inspect_nwbfile(nwbfile_path=path)) == []


def test_a_series_is_added_to_a_file_that_exists(movie: PhotonArray, tmp_path: Path) -> None:
    path = tmp_path / "session.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(a_file())
    with pynwb.NWBHDF5IO(path, "a") as io:
        nwbfile = io.read()
        channel = pynwb.ophys.OpticalChannel(name="green", description="green", emission_lambda=510.0)
        microscope = nwbfile.create_device(name="microscope")
        found = nwbfile.create_imaging_plane(
            name="plane",
            optical_channel=channel,
            device=microscope,
            indicator="GCaMP6s",
            location="VISp",
            excitation_lambda=920.0,
        )
        nwbfile.add_acquisition(
            photon_series(movie, found, one_photon=True, rate=30, name="raw", exposure_time=0.03, description="raw")
        )
        io.write(nwbfile)
    with pynwb.NWBHDF5IO(path, "r") as io:
        series = io.read().acquisition["raw"]
        assert type(series).__name__ == "OnePhotonSeries"
        assert series.exposure_time == pytest.approx(0.03)
        assert (series.data[7].T == movie[7]).all()


def test_volumes_have_depth_as_the_last_axis(counts: Any, tmp_path: Path) -> None:
    volumes = write_movie(tmp_path / "v", counts[:99].reshape(33, 3, 96, 128), calibration=NOISE)
    path = volumes.to_nwb(tmp_path / "v.nwb", session_start_time=START, rate=10)
    with pynwb.NWBHDF5IO(path, "r") as io:
        data = io.read().acquisition["TwoPhotonSeries"].data
        assert data.shape == (33, 128, 96, 3)
        assert (data[5, :, :, 2].T == volumes[5, 2]).all()


def test_volumes_keep_their_bytes_in_zarr(counts: Any, tmp_path: Path, zarr_io: Any) -> None:
    volumes = write_movie(tmp_path / "v", counts[:99].reshape(33, 3, 96, 128), calibration=NOISE)
    path = volumes.to_nwb(tmp_path / "v.nwb.zarr", session_start_time=START, rate=10)
    array = zarr.open_array(path / "acquisition" / "TwoPhotonSeries" / "data", mode="r")
    assert (np.transpose(array[:], (0, 3, 2, 1)) == volumes[:]).all()
    assert array.nbytes_stored() == pytest.approx(volumes.record.stored_bytes, rel=0.05)  # type: ignore[union-attr]


def test_times_and_pixel_sizes_come_from_the_recording(counts: Any, tmp_path: Path) -> None:
    options = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.75, "TimeIncrement": 0.04}
    units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm", "TimeIncrementUnit": "s"}
    tifffile.imwrite(tmp_path / "m.ome.tif", counts, photometric="minisblack", metadata=options | units)
    movie = write_movie(tmp_path / "m", tmp_path / "m.ome.tif", calibration=NOISE)
    with pynwb.NWBHDF5IO(movie.to_nwb(tmp_path / "m.nwb", session_start_time=START), "r") as io:
        series = io.read().acquisition["TwoPhotonSeries"]
        assert series.rate == pytest.approx(25)
        np.testing.assert_allclose(series.imaging_plane.grid_spacing[:], [0.5e-6, 0.75e-6])  # x, y [m]


def test_irregular_times_are_timestamps(movie: PhotonArray, tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.03, 0.04, len(movie)))
    with pynwb.NWBHDF5IO(movie.to_nwb(tmp_path / "m.nwb", session_start_time=START, timestamps=times), "r") as io:
        series = io.read().acquisition["TwoPhotonSeries"]
        np.testing.assert_array_equal(series.timestamps[:], times)
        assert series.rate is None


def test_a_long_movie_takes_no_more_memory(counts: Any, tmp_path: Path, movie: PhotonArray) -> None:
    """Invariant 7: three times as many frames take as much memory (the cache holds one chunk)."""
    long = write_movie(tmp_path / "long", np.concatenate([counts] * 3), calibration=NOISE)
    before = CACHE.max_bytes
    peaks: list[int] = []
    set_cache_size(1)
    tracemalloc.start()
    try:
        for stored in (movie, movie, long):  # the first time also loads NWB's schema
            tracemalloc.reset_peak()
            stored.to_nwb(tmp_path / f"{len(peaks)}.nwb", session_start_time=START, rate=30)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
        set_cache_size(before)
    assert peaks[2] - peaks[1] < 0.1 * (long.nbytes - movie.nbytes)


@pytest.mark.parametrize("name", ["movie.nwb", "movie.nwb.zarr"])
def test_a_failure_leaves_nothing(name: str, movie: PhotonArray, tmp_path: Path) -> None:
    if name.endswith(".zarr"):
        pytest.importorskip("hdmf_zarr", reason="hdmf-zarr 0.14 needs Python 3.12")
    (tmp_path / "movie.zarr" / "c" / "2" / "0" / "0").unlink()
    with pytest.raises(MissingChunkError):
        open_movie(tmp_path / "movie.zarr").to_nwb(tmp_path / name, session_start_time=START, rate=30)
    assert [entry.name for entry in tmp_path.iterdir()] == ["movie.zarr"]


def test_a_file_that_exists_is_left_alone(movie: PhotonArray, tmp_path: Path) -> None:
    (tmp_path / "m.nwb").write_text("mine")
    with pytest.raises(OccupiedError, match=r"m\.nwb exists: choose another path"):
        movie.to_nwb(tmp_path / "m.nwb", session_start_time=START, rate=30)
    assert (tmp_path / "m.nwb").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.h5", {}, r"must end in \.nwb"),
        ("m.nwb", {"rate": 30}, "session_start_time=datetime"),
        ("m.nwb", {"session_start_time": START}, "give rate, in frames/s"),
        ("m.nwb", {"session_start_time": START, "rate": 0}, "rate must be a positive number of frames per second"),
        ("m.nwb", {"session_start_time": START, "rate": 30, "timestamps": [0.0]}, "got both"),
        ("m.nwb", {"session_start_time": START, "timestamps": [0.0, 1.0]}, "has 2 times, and the movie 100 frames"),
    ],
)
def test_what_nwb_needs_is_asked_for(
    name: str, options: dict[str, Any], message: str, movie: PhotonArray, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        movie.to_nwb(tmp_path / name, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["movie.zarr"]


def test_what_describes_a_new_object_is_refused_with_a_given_one(movie: PhotonArray, tmp_path: Path) -> None:
    nwbfile, given = a_file(), plane()
    with pytest.raises(ConfigurationError, match="the given nwbfile has one"):
        movie.to_nwb(tmp_path / "m.nwb", nwbfile=nwbfile, session_start_time=START, rate=30)
    with pytest.raises(ConfigurationError, match="imaging_plane= was given"):
        movie.to_nwb(tmp_path / "m.nwb", nwbfile=nwbfile, imaging_plane=given, indicator="GCaMP6s", rate=30)
    with pytest.raises(ConfigurationError, match="backend must be 'hdf5' or 'zarr', got 'h5'"):
        photon_series(movie, given, backend="h5", rate=30)  # type: ignore[arg-type]


def test_five_axes_are_refused(counts: Any, tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "m", counts[:, None, None], calibration=NOISE)
    with pytest.raises(InvalidMovieError, match="3 or 4 axes"):
        movie.to_nwb(tmp_path / "m.nwb", session_start_time=START, rate=30)


@pytest.mark.parametrize(("name", "package"), [("m.nwb", "pynwb"), ("m.nwb.zarr", "hdmf_zarr")])
def test_a_missing_library_is_named_with_the_extra(
    name: str, package: str, movie: PhotonArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'need .*: pip install "dj-photon-codecs\[nwb\]"'):
        movie.to_nwb(tmp_path / name, session_start_time=START, rate=30)
