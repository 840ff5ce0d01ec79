"""Suite2p's binary file and settings; Suite2p itself runs where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import (
    ConfigurationError,
    DamagedChunkError,
    InvalidMovieError,
    OccupiedError,
    PhotonMovie,
    open_source,
    write_movie,
)
from dj_photon_codecs.storage import layout

COUNTS = np.random.default_rng(0).poisson(20, (21, 16, 20)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).poisson(20, (21, 2, 3, 16, 20)).astype(np.uint16)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 images in shards of 8, so that small movies have several of both."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 20)
    monkeypatch.setattr(layout, "SHARD_BYTES", 8 * 16 * 20 * 2)


def stored(folder: Path, counts: Any = COUNTS) -> Any:
    return write_movie(folder / "movie", counts, profile="lossless")


def written(plane: Path, name: str = "data.bin") -> Any:
    return np.fromfile(plane / name, "<i2").reshape(-1, 16, 20)


def settings(plane: Path, name: str) -> Any:
    return np.load(plane / f"{name}.npy", allow_pickle=True).item()


def test_the_binary_file_has_the_counts_halved_as_suite2p_halves_them(tmp_path: Path) -> None:
    plane = stored(tmp_path).to_suite2p(tmp_path / "session", frame_rate=30)
    assert plane == tmp_path / "session" / "suite2p" / "plane0"
    np.testing.assert_array_equal(written(plane), COUNTS // 2)
    assert [each.name for each in plane.parent.iterdir()] == ["plane0"]


def test_our_own_reader_opens_the_folder(tmp_path: Path) -> None:
    plane = stored(tmp_path).to_suite2p(tmp_path / "session", frame_rate=25, as_int16="exact")
    with open_source(plane) as movie:
        np.testing.assert_array_equal(movie[:], COUNTS)
        assert movie.metadata["TimeIncrement"] == 0.04


@pytest.mark.parametrize(
    ("how", "given", "expected"),
    [
        pytest.param("halve", np.array([0, 1, 65535], np.uint16), [0, 0, 32767], id="halved"),
        pytest.param("clip", np.array([0, 32768, 65535], np.uint16), [0, 32767, 32767], id="clipped"),
        pytest.param("exact", np.array([0, 32767, 1], np.uint16), [0, 32767, 1], id="exact"),
        pytest.param("halve", np.array([-32768, -1, 32767], np.int16), [-32768, -1, 32767], id="int16 stays"),
        pytest.param("halve", np.array([0, 1, 255], np.uint8), [0, 1, 255], id="uint8 stays"),
        pytest.param("halve", np.array([-65536, -1, 65535], np.int32), [-32768, -1, 32767], id="int32 halved"),
        pytest.param("clip", np.array([-(10**6), 5, 10**6], np.int32), [-32768, 5, 32767], id="int32 clipped"),
        pytest.param("exact", np.array([-0.4, 1.6, 2.5], np.float32), [0, 2, 2], id="floats rounded"),
    ],
)
def test_counts_fit_into_int16(tmp_path: Path, how: Any, given: Any, expected: Any) -> None:
    frame = np.broadcast_to(np.resize(given, 20), (21, 16, 20))
    movie = write_movie(tmp_path / "movie", PhotonMovie(frame, signed=True, profile="lossless"))
    plane = movie.to_suite2p(tmp_path / "session", frame_rate=30, as_int16=how)
    np.testing.assert_array_equal(written(plane)[0, 0, :3], expected)


@pytest.mark.parametrize(
    ("how", "dtype", "count", "message"),
    [
        ("exact", np.uint16, 40000, r"frame 17 has 40000 at row 3, column 5, .*as_int16=\"halve\" halves all"),
        ("exact", np.int32, -40000, r"frame 17 has -40000 at row 3"),
        ("halve", np.uint32, 90000, r"frame 17 has 45000 .* after halving, outside .*as_int16=\"clip\" replaces"),
        ("halve", np.float32, 1e9, r"frame 17 has 500000000"),
    ],
)
def test_a_count_that_does_not_fit_is_named_and_leaves_nothing_behind(
    tmp_path: Path, how: Any, dtype: Any, count: Any, message: str
) -> None:
    counts = COUNTS.astype(dtype)
    counts[17, 3, 5] = count
    movie = write_movie(tmp_path / "movie", PhotonMovie(counts, signed=True, profile="lossless"))
    with pytest.raises(InvalidMovieError, match=message):
        movie.to_suite2p(tmp_path / "new" / "session", frame_rate=30, as_int16=how)
    assert [each.name for each in tmp_path.iterdir()] == ["movie"]


def test_a_damaged_movie_leaves_nothing_behind(tmp_path: Path) -> None:
    movie = stored(tmp_path)
    last = tmp_path / "movie" / "c" / "2" / "0" / "0"
    last.write_bytes(bytes([byte ^ 255 for byte in last.read_bytes()]))
    with pytest.raises(DamagedChunkError):
        movie.to_suite2p(tmp_path / "session", frame_rate=30)
    assert [each.name for each in tmp_path.iterdir()] == ["movie"]


def test_a_plane_that_exists_is_kept(tmp_path: Path) -> None:
    movie = stored(tmp_path)
    plane = movie.to_suite2p(tmp_path, frame_rate=30)
    (plane / "stat.npy").write_bytes(b"results")
    with pytest.raises(OccupiedError, match="plane0 exists: choose another path, or remove it"):
        movie.to_suite2p(tmp_path, frame_rate=30)
    assert (plane / "stat.npy").read_bytes() == b"results"


def test_each_plane_has_its_folder(tmp_path: Path) -> None:
    movie = stored(tmp_path, VOLUMES)
    for plane in range(3):
        folder = movie.to_suite2p(tmp_path / "session", frame_rate=30, as_int16="exact", plane=(1, plane))
        assert folder.name == f"plane{plane}"
        np.testing.assert_array_equal(written(folder), VOLUMES[:, 1, plane])


@pytest.mark.parametrize("plane", [(), 0, (2, 0), (0, 3), (0, -1), (0, 0, 0)])
def test_a_wrong_plane_is_refused(tmp_path: Path, plane: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is not one plane .* it has an index from 0 to 1, 0 to 2"):
        stored(tmp_path, VOLUMES).to_suite2p(tmp_path / "session", frame_rate=30, plane=plane)


def test_a_movie_of_one_plane_has_plane_0_alone(tmp_path: Path) -> None:
    movie = stored(tmp_path)
    assert movie.to_suite2p(tmp_path / "session", frame_rate=30, plane=0).name == "plane0"
    with pytest.raises(ConfigurationError, match="which has only one: leave it out"):
        movie.to_suite2p(tmp_path / "other", frame_rate=30, plane=1)


def test_a_second_channel_is_beside_the_first(tmp_path: Path) -> None:
    red = write_movie(tmp_path / "red", COUNTS + 3, profile="lossless")
    plane = stored(tmp_path).to_suite2p(tmp_path / "session", frame_rate=30, second_channel=red)
    np.testing.assert_array_equal(written(plane, "data_chan2.bin"), (COUNTS + 3) // 2)
    assert settings(plane, "db")["nchannels"] == 2
    short = write_movie(tmp_path / "short", COUNTS[:5], profile="lossless")
    with pytest.raises(ConfigurationError, match=r"second channel is \(5, 16, 20\), and the first \(21, 16, 20\)"):
        stored(tmp_path / "again").to_suite2p(tmp_path / "other", frame_rate=30, second_channel=short)


def test_the_frame_rate_is_that_of_the_recording(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "m.ome.tif",
        COUNTS,
        ome=True,
        metadata={"axes": "TYX", "TimeIncrement": 50, "TimeIncrementUnit": "ms"},
    )
    movie = stored(tmp_path, tmp_path / "m.ome.tif")
    assert settings(movie.to_suite2p(tmp_path / "session"), "settings")["fs"] == 20
    assert settings(movie.to_suite2p(tmp_path / "other", frame_rate=7), "settings")["fs"] == 7
    silent = write_movie(tmp_path / "silent", COUNTS, profile="lossless")
    with pytest.raises(ConfigurationError, match="does not say how fast it was recorded: give frame_rate"):
        silent.to_suite2p(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="frame_rate must be a positive number"):
        silent.to_suite2p(tmp_path / "none", frame_rate=-1)
    with pytest.raises(ConfigurationError, match='as_int16 must be "halve", "exact" or "clip"'):
        silent.to_suite2p(tmp_path / "none", frame_rate=1, as_int16="wrap")
