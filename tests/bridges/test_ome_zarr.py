"""Movies as OME-Zarr 0.5: valid, with the same counts, further levels of means, and all or nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray
import zarr
from ome_zarr_models.v05 import Image
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    Calibration,
    ConfigurationError,
    DamagedChunkError,
    InvalidMovieError,
    MissingChunkError,
    OccupiedError,
    PhotonArray,
    open_movie,
    open_source,
    write_movie,
)
from dj_photon_codecs.bridges import ome_zarr
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.chunks import ChunkReader
from services import S3Server

RECORDING = Path(__file__).parents[2] / "examples" / "data" / "fmi_two_photon.tif"
NOISE = Calibration.given(20, 100)
COUNTS = np.round(100 + 20 * np.random.default_rng(1).poisson(8, (24, 37, 50))).astype(np.uint16)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels until frames have 16 pixels a side."""
    monkeypatch.setattr(ome_zarr, "_SMALL", 16)


@pytest.fixture
def movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotonArray:
    """A movie in chunks of 4 frames, in objects of 8."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 4 * 37 * 50)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 2 * 4 * 37 * 50 * 2)
    return write_movie(tmp_path / "movie.zarr", COUNTS, calibration=NOISE)


def means(counts: Any, level: int) -> Any:
    """Means of 2**level x 2**level counts, by adding them up one by one."""
    side = 1 << level
    height, width = (n // side * side for n in counts.shape[-2:])
    total = sum(counts[..., i:height:side, j:width:side].astype(np.float64) for i in range(side) for j in range(side))
    return total / side**2


def test_a_real_recording_is_a_valid_image(tmp_path: Path) -> None:
    recording = write_movie(tmp_path / "fmi.zarr", RECORDING)
    recording.to_ome_zarr(tmp_path / "fmi.ome.zarr", frame_rate=30, pixel_size=0.5)
    group = zarr.open_group(tmp_path / "fmi.ome.zarr", mode="r")
    image = Image.from_zarr(group)
    [multiscale] = image.attributes.ome.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        ("t", "time", "second"),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    assert [dataset.path for dataset in multiscale.datasets] == ["0", "1", "2", "3"]
    assert multiscale.datasets[2].coordinateTransformations[0].scale == pytest.approx([1 / 30, 2, 2])
    assert multiscale.datasets[2].coordinateTransformations[1].translation == [0, 0.75, 0.75]
    np.testing.assert_array_equal(group["0"][:], recording[:])
    np.testing.assert_array_equal(group["2"][:], np.rint(means(recording[:], 2)))
    window = group.attrs["ome"]["omero"]["channels"][0]["window"]
    assert window["start"] == pytest.approx(recording.calibration.zero_level)
    assert (window["min"], window["max"]) == (0, 65535)


def test_every_level_has_means_of_counts_and_the_names_of_the_axes(movie: PhotonArray, tmp_path: Path) -> None:
    movie.to_ome_zarr(tmp_path / "image")
    group = zarr.open_group(tmp_path / "image", mode="r")
    assert [group[str(level)].shape for level in range(3)] == [(24, 37, 50), (24, 18, 25), (24, 9, 12)]
    assert "3" not in group
    for level in range(3):
        array = group[str(level)]
        assert array.metadata.dimension_names == ("t", "y", "x")
        assert array.dtype == np.uint16
        np.testing.assert_array_equal(array[:], np.rint(means(movie[:], level)))
        assert (array.chunks[0], array.shards[0]) == (4, 8)


def test_any_zarr_reader_opens_it_unless_it_is_copied_as_it_is_stored(movie: PhotonArray, tmp_path: Path) -> None:
    portable = movie.to_ome_zarr(tmp_path / "portable")
    stored = movie.to_ome_zarr(tmp_path / "stored", profile=None)
    assert (portable.profile, stored.profile) == ("portable", "standard")
    assert "dj_photon" not in str(zarr.open_array(tmp_path / "portable" / "0", mode="r").metadata.codecs)
    assert (tmp_path / "stored/0/c/0/0/0").read_bytes() == (tmp_path / "movie.zarr/c/0/0/0").read_bytes()
    for level in ("1", "2"):
        assert "dj_photon" not in str(zarr.open_array(tmp_path / "stored" / level, mode="r").metadata.codecs)


def test_level_0_is_a_movie_with_its_noise_model(movie: PhotonArray, tmp_path: Path) -> None:
    """Its axes have other names, and its digest covers them."""
    written = movie.to_ome_zarr(tmp_path / "image")
    opened = open_movie(tmp_path / "image" / "0")
    for level in (written, opened):
        assert level.verify()
        assert level.calibration == movie.calibration
        np.testing.assert_array_equal(level[:], movie[:])
    again = write_movie(tmp_path / "again", opened, profile="portable")
    np.testing.assert_array_equal(again[:], movie[:])
    with open_source(tmp_path / "image", dataset="1") as source:
        assert source.shape == (24, 18, 25)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("profile", ["standard", "portable", "lossless", "anscombe-v1"])
@pytest.mark.parametrize("wanted", ["portable", None])
def test_counts_are_never_rounded_again(tmp_path: Path, profile: str, wanted: Any, zarr_format: Any) -> None:
    movie = write_movie(tmp_path / "m", COUNTS, calibration=NOISE, profile=profile, zarr_format=zarr_format)
    image = movie.to_ome_zarr(tmp_path / "image", profile=wanted)
    np.testing.assert_array_equal(image[:], movie[:])
    assert image.metadata.zarr_format == 3


@pytest.mark.parametrize("name", ["v2", "v3"])
@pytest.mark.parametrize("profile", ["portable", None])
def test_arrays_of_anscombe_transform_keep_their_counts(tmp_path: Path, name: str, profile: Any) -> None:
    """They have no record, and the copy is lossless."""
    foreign = open_movie(Path(__file__).parents[1] / "data" / "anscombe_v1" / f"{name}.zarr")
    image = foreign.to_ome_zarr(tmp_path / "image", profile=profile)
    assert image.profile == "lossless"
    np.testing.assert_array_equal(image[:], foreign[:])


def test_each_chunk_is_decoded_once_for_all_levels(
    movie: PhotonArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[Any] = Counter()
    read = ChunkReader.read

    def counted(self: ChunkReader, coords: Any, *args: Any, **options: Any) -> Any:
        reads[self.store.location.label, coords] += 1
        return read(self, coords, *args, **options)

    monkeypatch.setattr(ChunkReader, "read", counted)
    movie.to_ome_zarr(tmp_path / "image", profile=None)
    ours = {coords: n for (label, coords), n in reads.items() if label == movie._location.label}
    assert ours == {(i, 0, 0): 1 for i in range(6)}


@pytest.mark.parametrize(
    ("shape", "axes"), [((6, 2, 74, 50), "tzyx"), ((3, 2, 2, 74, 25), "tczyx"), ((24, 37, 50), "tyx")]
)
def test_planes_and_channels(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    movie = write_movie(tmp_path / "m", np.resize(COUNTS, shape), calibration=NOISE)
    movie.to_ome_zarr(tmp_path / "image", pixel_size=(5, 1, 1) if "z" in axes else 1)
    group = zarr.open_group(tmp_path / "image", mode="r")
    [multiscale] = Image.from_zarr(group).attributes.ome.multiscales
    assert "".join(axis.name for axis in multiscale.axes) == axes
    np.testing.assert_array_equal(group["1"][:], np.rint(means(movie[:], 1)))


def test_more_axes_have_no_names(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "m", np.resize(COUNTS, (2, 2, 2, 2, 37, 50)), calibration=NOISE)
    with pytest.raises(InvalidMovieError, match="more axes"):
        movie.to_ome_zarr(tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_floats_stay_floats(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "m", COUNTS.astype(np.float32), calibration=NOISE)
    movie.to_ome_zarr(tmp_path / "image")
    level = zarr.open_array(tmp_path / "image" / "1", mode="r")
    np.testing.assert_array_equal(level[:], means(movie[:], 1).astype(np.float32))


def test_small_and_narrow_frames(tmp_path: Path) -> None:
    small = write_movie(tmp_path / "small", COUNTS[:, :16, :16], calibration=NOISE)
    small.to_ome_zarr(tmp_path / "small.ome.zarr")
    assert sorted(zarr.open_group(tmp_path / "small.ome.zarr", mode="r")) == ["0"]
    line = write_movie(tmp_path / "line", COUNTS[:, :1, :], calibration=NOISE)
    line.to_ome_zarr(tmp_path / "line.ome.zarr")
    assert sorted(zarr.open_group(tmp_path / "line.ome.zarr", mode="r")) == ["0"]


@pytest.mark.parametrize("where", ["store", "url"])
def test_it_is_written_wherever_movies_are(movie: PhotonArray, where: str) -> None:
    folder: Any = MemoryStore() if where == "store" else "memory://images/movie.ome.zarr"
    written = movie.to_ome_zarr(folder, name="m17")
    group = zarr.open_group(folder, mode="r")
    assert Image.from_zarr(group).attributes.ome.multiscales[0].name == "m17"
    np.testing.assert_array_equal(group["1"][:], np.rint(means(movie[:], 1)))
    assert written.verify()


def test_it_is_written_to_s3_completely_or_not_at_all(
    movie: PhotonArray, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"key": s3_server.access_key, "secret": s3_server.secret_key}
    files = fsspec.filesystem("s3", **keys, client_kwargs={"endpoint_url": s3_server.endpoint})
    bucket = s3_server.new_bucket()
    written = movie.to_ome_zarr(files.get_mapper(f"{bucket}/image"))
    np.testing.assert_array_equal(written[:], movie[:])
    files.invalidate_cache()
    assert f"{bucket}/image/zarr.json" in files.find(bucket)
    monkeypatch.setattr(ome_zarr, "_halved", lambda values: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        movie.to_ome_zarr(files.get_mapper(f"{bucket}/failed"))
    files.invalidate_cache()
    assert not [key for key in files.find(bucket) if "failed" in key]


def test_xarray_opens_a_level(movie: PhotonArray, tmp_path: Path) -> None:
    movie.to_ome_zarr(tmp_path / "image")
    dataset = xarray.open_zarr(tmp_path / "image", consolidated=False, drop_variables=["1", "2"])
    assert dataset["0"].dims == ("t", "y", "x")
    np.testing.assert_array_equal(dataset["0"], movie[:])


@pytest.mark.parametrize("where", ["folder", "store"])
def test_a_failure_leaves_nothing(
    movie: PhotonArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Invariant 6, also where level 0 and parts of the others are there."""
    halved, calls, store = ome_zarr._halved, iter(range(100)), MemoryStore()

    def failing(values: Any) -> Any:
        if next(calls) == 3:
            raise MemoryError
        return halved(values)

    monkeypatch.setattr(ome_zarr, "_halved", failing)
    with pytest.raises(MemoryError):
        movie.to_ome_zarr(store if where == "store" else tmp_path / "image")
    assert not store._store_dict
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_damaged_movie_is_no_image(movie: PhotonArray, tmp_path: Path, damage: str) -> None:
    chunk = tmp_path / "movie.zarr/c/1/0/0"
    if damage == "missing":
        chunk.unlink()
    else:
        content = bytearray(chunk.read_bytes())
        content[100] ^= 1
        chunk.write_bytes(content)
    with pytest.raises((MissingChunkError, DamagedChunkError)):
        movie.to_ome_zarr(tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_what_is_there_stays(movie: PhotonArray, tmp_path: Path) -> None:
    movie.to_ome_zarr(tmp_path / "image")
    before = {path: path.read_bytes() for path in (tmp_path / "image").rglob("*") if path.is_file()}
    with pytest.raises(OccupiedError, match="image is not empty"):
        movie.to_ome_zarr(tmp_path / "image")
    assert {path: path.read_bytes() for path in (tmp_path / "image").rglob("*") if path.is_file()} == before


def test_options_are_checked_before_anything_is_written(movie: PhotonArray, tmp_path: Path) -> None:
    for given in ({"profile": "dense"}, {"frame_rate": 0}, {"pixel_size": "small"}):
        with pytest.raises(ConfigurationError, match=next(iter(given))):
            movie.to_ome_zarr(tmp_path / "image", **given)
    assert not (tmp_path / "image").exists()
