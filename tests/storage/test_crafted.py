"""Crafted input: what was made to deceive ends in a clear error, in bounded memory and time (DESIGN invariant 10).

Rows, metadata documents, shard indices, chunks. ``test_crafted_fuzz.py`` goes through the same doors at random.
"""

from __future__ import annotations

import gc
import json
import math
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

import bombs
from dj_photon_codecs import (
    Calibration,
    CalibrationError,
    DamagedChunkError,
    FormatError,
    PhotonArray,
    open_movie,
    write_movie,
)
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.documents import sealed
from dj_photon_codecs.storage.record import MovieRecord, with_record
from tables import fetched, json_row

NOISE = Calibration.given(20.0, 100.0)
COUNTS = np.round(100 + 20 * np.random.default_rng(3).poisson(8, (20, 16, 24))).astype(np.uint16)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 frames in shards of 16."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 8 * 16 * 24)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 2 * 8 * 16 * 24 * 2)


@pytest.fixture
def movie(tmp_path: Path) -> PhotonArray:
    return write_movie(tmp_path / "m", COUNTS, calibration=NOISE)


def row_of(handle: PhotonArray) -> dict[str, Any]:
    row = json_row(handle)
    del row["checksums"]  # who makes up a row leaves out what would give it away
    return row


def made_up(row: dict[str, Any], folder: Path) -> PhotonArray:
    """The handle of an edited row with the digest that goes with it, which is no secret."""
    with suppress(FormatError):
        record = MovieRecord.from_dict(row, "the row")
        row = {**row, "digest": sealed(record, with_record(row["zarr"], record)).digest}
    return fetched(row, folder)


def test_a_row_without_a_digest_is_refused(movie: PhotonArray, tmp_path: Path) -> None:
    row = json_row(movie)
    del row["digest"]
    handle = fetched(row, tmp_path)
    with pytest.raises(FormatError, match="'digest'"):
        handle[0]


# The row


@pytest.mark.parametrize(
    "path",
    [
        "../m",
        "a/../../m",
        "..",
        "/etc/m.zarr",
        "\\\\server\\share",
        "a\\..\\..\\m",
        "~/m",
        "C:/m",
        "file:///etc/m",
        "s3://bucket/m",
        "a/s3://bucket/m",
        "m\0.zarr",
        "",
        None,
        3,
        ["m"],
    ],
    ids=repr,
)
def test_a_row_that_leads_out_of_its_store_is_refused(movie: PhotonArray, tmp_path: Path, path: Any) -> None:
    row = row_of(movie)
    (tmp_path / "store").mkdir()
    with pytest.raises(FormatError, match=r"names the path .*: a movie lies inside its store"):
        fetched({**row, "path": path}, tmp_path / "store")[0]


@pytest.mark.parametrize("path", ["m", "_schema/a b/time=2026-01-01 10:00:00/movie_x..zarr", "...", "a..b/c"])
def test_a_path_inside_the_store_is_not(movie: PhotonArray, tmp_path: Path, path: str) -> None:
    assert fetched({**row_of(movie), "path": path}, tmp_path).shape == COUNTS.shape


@pytest.mark.parametrize(
    "change",
    [
        {"store": ""},
        {"store": ["imaging"]},
        {"store": None},
        {"zarr": {}},
        {"zarr": []},
        {"zarr": {"zarr.json": 3}},
        {"zarr": {"../zarr.json": {}}},
        {"zarr": {"zarr.json": {}, ".zarray": {}}},
        {"format_version": "1"},
        {"format_version": [1]},
        {"calibration": 3},
        {"calibration": {"conversion_gain": "1"}},
        {"step": "half"},
        {"original_bytes": 10**400},
        {"original_bytes": float("inf")},
        {"versions": 7},
        {"checksums": 3},
        {"checksums": "AAAA"},
        {"checksums": "no base64!"},
        {"digest": 3},
        {"digest": "zz"},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_row_with_nonsense_in_it_is_refused(movie: PhotonArray, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        fetched({**row_of(movie), **change}, tmp_path)[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "nul", "[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '{"path": 1', "\ud800"],
    ids=lambda t: t[:9],
)
def test_a_row_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no photon movie"):
        fetched(text, tmp_path)[0]


# The metadata


def put(document: Any, place: list[Any], value: Any) -> None:
    for name in place[:-1]:
        document = document[name]
    document[place[-1]] = value


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


GRID = ["chunk_grid", "configuration", "chunk_shape"]
SHARDING = ["codecs", 0, "configuration"]
METADATA: dict[str, tuple[list[Any], Any]] = {
    "10^18 frames": (["shape", 0], 10**18),
    "10^18 pixels": (["shape"], [1, 10**9, 10**9]),
    "negative shape": (["shape", 0], -1),
    "a shape of floats": (["shape"], [20.5, 16, 24]),
    "no shape": (["shape"], []),
    "a shape of text": (["shape"], "20"),
    "another rank": (["shape"], [20, 16]),
    "chunks of 10^18": ([*SHARDING, "chunk_shape"], [10**18, 16, 24]),
    "chunks of nothing": ([*SHARDING, "chunk_shape"], [0, 16, 24]),
    "shards of nothing": (GRID, [0, 16, 24]),
    "shards of no whole chunks": (GRID, [7, 16, 24]),
    "unknown codec": ([*SHARDING, "codecs", 0], {"name": "evil.codec", "configuration": {}}),
    "codecs of nothing": (["codecs"], []),
    "an index without bytes": ([*SHARDING, "index_codecs"], [{"name": "crc32c"}]),
    "an index of any size": ([*SHARDING, "index_codecs"], [{"name": "bytes"}, {"name": "zstd", "configuration": {}}]),
    "codes of a structure": ([*SHARDING, "codecs", 0, "configuration", "encoded_dtype"], {"a": 1}),
    "a configuration that is none": ([*SHARDING, "codecs", 0, "configuration"], 1),
    "codecs nested": (["codecs"], nested(900)),
    "deep nonsense": (["codecs", 0, "configuration", "codecs", 0, "configuration"], {"zero_level": nested(900)}),
    "an array of text": (["data_type"], "string"),
    "an array of booleans": (["data_type"], "bool"),
    "complex counts": (["data_type"], "complex64"),
    "a data type of no one": (["data_type"], "uint17"),
    "gain of 0": ([*SHARDING, "codecs", 0, "configuration", "conversion_gain"], 0),
    "gain of text": ([*SHARDING, "codecs", 0, "configuration", "conversion_gain"], "high"),
    "codes of floats": ([*SHARDING, "codecs", 0, "configuration", "encoded_dtype"], "float64"),
    "codes of objects": ([*SHARDING, "codecs", 0, "configuration", "encoded_dtype"], "O"),
    "keys elsewhere": (["chunk_key_encoding"], {"name": "default", "configuration": {"separator": "/../"}}),
    "another grid": (["chunk_grid"], {"name": "rectangular", "configuration": {}}),
    "a transformer": (["storage_transformers"], [{"name": "evil", "configuration": {}}]),
    "no array": (["node_type"], "group"),
    "an unknown key": (["must_understand_this"], {"must_understand": True}),
}


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("by", ["row", "document"])
def test_metadata_that_describes_no_movie_is_refused(movie: PhotonArray, tmp_path: Path, kind: str, by: str) -> None:
    row = row_of(movie)
    place, value = METADATA[kind]
    document = row["zarr"]["zarr.json"]
    put(document, place, value)
    if by == "row":
        with pytest.raises(FormatError):
            made_up(row, tmp_path)[0]
        return
    (tmp_path / "m" / "zarr.json").write_text(json.dumps(document))  # without a record: as a foreign array
    with pytest.raises(FormatError):
        open_movie(tmp_path / "m")[0]


@pytest.mark.parametrize(
    "place", [["codecs"], ["fill_value"], [*SHARDING, "codecs", 0, "configuration", "step"]], ids=str
)
@pytest.mark.parametrize("by", ["row", "document"])
def test_the_field_that_is_nested_too_deeply_is_named(
    movie: PhotonArray, tmp_path: Path, by: str, place: list[Any]
) -> None:
    row = row_of(movie)
    put(row["zarr"]["zarr.json"], place, nested(900))
    (tmp_path / "m" / "zarr.json").write_text(json.dumps(row["zarr"]["zarr.json"]))
    with pytest.raises(FormatError, match=f"'{place[0]}' in zarr.json of .* is nested 9.. levels deep, and at most 64"):
        (made_up(row, tmp_path) if by == "row" else open_movie(tmp_path / "m"))[0]


def test_a_record_that_is_nested_too_deeply_is_named(movie: PhotonArray, tmp_path: Path) -> None:
    row = row_of(movie) | {"versions": {"numpy": nested(100)}}
    with pytest.raises(FormatError, match="'attributes' in zarr.json of .* is nested 1.. levels"):
        made_up(row, tmp_path)[0]


def test_made_up_chunks_are_refused_before_anything_is_allocated(movie: PhotonArray, tmp_path: Path) -> None:
    """Invariant 10: 2**36 chunks in a shard have an index of 1 TiB; 10**12 chunks of a pixel never end."""
    for outer, shape in (([2**36, 16, 24], [20, 16, 24]), ([1000, 1000, 1000], [10**4, 10**4, 10**4])):
        row = row_of(movie)
        document = row["zarr"]["zarr.json"]
        inner = [1, 16, 24] if outer[0] == 2**36 else [1000, 1, 1]
        put(document, GRID, outer)
        put(document, [*SHARDING, "chunk_shape"], inner)
        put(document, ["shape"], shape)
        row["original_bytes"] = math.prod(shape) * 2
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match="chunk_shape"):
                made_up(row, tmp_path)[0]
            assert tracemalloc.get_traced_memory()[1] < 1 << 24
        finally:
            tracemalloc.stop()


MODEL = Calibration(20.0, 100.0, "measured", "", "photon-transfer", 0.01, ((110.0, 200.0, 3000),)).to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"curve": [[1.0, 2.0, float("inf")]]},
        {"curve": [[10**400, 2.0, 3]]},
        {"curve": [[1.0, 2.0]]},
        {"curve": 3},
        {"conversion_gain": 10**400},
        {"conversion_gain": "20"},
        {"conversion_gain": True},
        {"conversion_gain": float("inf")},
        {"zero_level": []},
        {"verdict": "no"},
        {"method": ["given"]},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_calibration_with_nonsense_in_it_is_refused(change: dict[str, Any]) -> None:
    assert Calibration.from_dict(MODEL).conversion_gain == 20
    with pytest.raises(CalibrationError):
        Calibration.from_dict({**MODEL, **change})


class Evil:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of the payload ran')",)


@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_no_payload_is_ever_unpickled(tmp_path: Path, place: str) -> None:
    """numcodecs has a codec that runs what the payload says; an array of Zarr V2 that names it is refused."""
    write_movie(tmp_path / "m", COUNTS, calibration=NOISE, zarr_format=2)
    document = json.loads((tmp_path / "m" / ".zarray").read_text())
    document |= {"compressor": None, "filters": None}
    document[place] = {"id": "pickle", "protocol": 5} if place == "compressor" else [{"id": "pickle", "protocol": 5}]
    (tmp_path / "m" / ".zarray").write_text(json.dumps(document))
    (tmp_path / "m" / ".zattrs").unlink()
    (tmp_path / "m" / "0.0.0").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FormatError, match="pickle"):
        open_movie(tmp_path / "m")[0]


# The index of a shard


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 2**63), (2**63, 10), (2**64 - 2, 1), (0, 2**40), (2**40, 100), (0, 0), (5, 3), (0, 2**64 - 2)],
    ids=str,
)
def test_an_index_that_points_anywhere_is_refused(movie: PhotonArray, tmp_path: Path, offset: int, length: int) -> None:
    """Its checksum holds."""
    path = tmp_path / "m" / "c" / "0" / "0" / "0"
    content = path.read_bytes()
    index = np.frombuffer(content[-36:-4], "<u8").reshape(2, 2).copy()
    index[0] = offset, length
    checksum = int(google_crc32c.value(index.tobytes())).to_bytes(4, "little")
    path.write_bytes(content[:-36] + index.tobytes() + checksum)
    expected = movie[8:]
    for read in (lambda: movie[0], lambda: movie[:]):
        with pytest.raises(DamagedChunkError, match=r"chunk \(0, 0, 0\) \(frames 0 to 7\)"):
            read()
    assert movie.verify(progress=False).frames == ((0, 8),)
    np.testing.assert_array_equal(movie[8:], expected)


# Chunks that swell


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX only")
def test_a_chunk_that_would_fill_the_memory_is_refused_before_it_does(tmp_path: Path) -> None:
    """Every compressor, in both formats: 256 MiB behind a few kilobytes, read by a child that counts its memory."""
    for name, bomb in bombs.BOMBS.items():
        bombs.plant(tmp_path / name, bomb)
    done = subprocess.run(
        [sys.executable, bombs.__file__, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["errors"]) == set(bombs.BOMBS)
    for name, error in report["errors"].items():
        assert error.startswith("DamagedChunkError"), (name, error)
        assert "frames 0 to" in error
    assert report["grown_bytes"] < 64 << 20, report  # of the 256 MiB that each of them would take


def test_the_bombs_are_bombs(tmp_path: Path) -> None:
    """What is refused would have been given: shown for gzip, a tenth of its size."""
    small = bombs.gzip_bomb(100 << 20)
    assert len(small) < 1 << 20
    assert len(zlib.decompress(small, wbits=31)) == 100 << 20


HONEST: dict[str, dict[str, Any]] = {
    "zstd": {"compressors": ZstdCodec(level=3, checksum=True)},
    "gzip": {"compressors": GzipCodec(level=1)},
    "blosc lz4": {"compressors": BloscCodec(cname="lz4", typesize=1, shuffle="shuffle")},
    "two in a row": {"compressors": [GzipCodec(level=1), ZstdCodec(level=1)]},
    **{
        f"V2 {codec.codec_id} {index}": {"zarr_format": 2, "compressors": codec}
        for index, codec in enumerate(
            (
                numcodecs.Zstd(3),
                numcodecs.Blosc("blosclz"),
                numcodecs.LZ4(),
                numcodecs.GZip(1),
                numcodecs.Zlib(1),
                numcodecs.BZ2(1),
                numcodecs.LZMA(preset=1),
                numcodecs.LZMA(format=3, filters=[{"id": 0x21, "preset": 1}]),
            )
        )
    },
}


@pytest.mark.parametrize("kind", HONEST)
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_an_honest_chunk_of_every_compressor_reads(tmp_path: Path, kind: str, dtype: str) -> None:
    """Also where it takes more bytes than the counts: noise that nothing compresses."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 24 * np.dtype(dtype).itemsize), np.uint8)
    counts = noise if dtype == "uint8" else np.abs(np.nan_to_num(noise.view(dtype), posinf=1, neginf=1))
    handle = write_movie(tmp_path / "m", counts, profile="lossless", **HONEST[kind])
    np.testing.assert_array_equal(open_movie(tmp_path / "m")[:], counts)
    assert handle.verify(progress=False)


def test_members_of_gzip_and_frames_of_zstd_in_a_row_read(tmp_path: Path) -> None:
    """Both formats allow several streams one after the other; other writers make them."""
    for compressor, codec in ((numcodecs.GZip(1), GzipCodec(level=1)), (numcodecs.Zstd(1), ZstdCodec(level=1))):
        name = type(codec).__name__
        handle = write_movie(tmp_path / name, COUNTS[:8], profile="lossless", compressors=codec)
        plain = COUNTS[:8].tobytes()
        parts = [plain[:1000], plain[1000:]] if name == "GzipCodec" else [plain]
        payload = b"".join(bytes(compressor.encode(part)) for part in parts)
        bombs.replace_chunk(tmp_path / name, payload)
        np.testing.assert_array_equal(open_movie(tmp_path / name)[:], COUNTS[:8])
        assert handle.shape == (8, 16, 24)


def test_zstd_without_a_declared_size_reads(tmp_path: Path) -> None:
    """Streaming writers leave it out: then the number of blocks bounds it."""
    write_movie(tmp_path / "m", COUNTS[:8], profile="lossless", compressors=ZstdCodec(level=1))
    bombs.replace_chunk(tmp_path / "m", bombs.zstd_raw(COUNTS[:8].tobytes()))
    np.testing.assert_array_equal(open_movie(tmp_path / "m")[:], COUNTS[:8])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", ["cut off", "a longer one promised", "a header alone", "blocks of nothing", "empty"])
def test_a_blosc_buffer_that_is_shorter_than_it_says_is_refused(tmp_path: Path, zarr_format: Any, kind: str) -> None:
    """Found by fuzzing: Blosc takes the length of its buffer from the header, and reads on beyond the end."""
    codec: Any = BloscCodec(typesize=2, cname="lz4") if zarr_format == 3 else numcodecs.Blosc("lz4")
    write_movie(tmp_path / "m", COUNTS[:8], profile="lossless", compressors=codec, zarr_format=zarr_format)
    whole = bytes(numcodecs.Blosc("lz4").encode(COUNTS[:8]))
    payload = {
        "cut off": whole[: len(whole) // 2],
        "a longer one promised": whole[:12] + (2**31 - 1).to_bytes(4, "little") + whole[16:],
        "a header alone": whole[:16],
        "blocks of nothing": whole[:8] + bytes(4) + whole[12:],
        "empty": b"",
    }[kind]
    bombs.replace_chunk(tmp_path / "m", payload)
    with pytest.raises(DamagedChunkError, match="are no Blosc buffer"):
        open_movie(tmp_path / "m")[0]


def test_an_object_that_is_far_too_large_is_not_taken_into_memory(movie: PhotonArray, tmp_path: Path) -> None:
    """A sparse file of 1 TiB in place of a shard."""
    with (tmp_path / "m" / "c" / "0" / "0" / "0").open("r+b") as file:
        file.truncate(1 << 40)
    for read in (lambda: movie[0], lambda: movie[:16]):
        with pytest.raises(DamagedChunkError, match=r"frames 0 to 7"):
            read()
    assert movie.verify(progress=False).frames == ((0, 16),)
    gc.collect()


def test_bytes_that_are_no_frame_are_left_to_the_decoder(tmp_path: Path) -> None:
    write_movie(tmp_path / "m", COUNTS[:8], profile="lossless", compressors=ZstdCodec(level=1))
    for payload in (
        b"",
        b"\x28\xb5\x2f\xfd",
        b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
        b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8,
    ):
        bombs.replace_chunk(tmp_path / "m", payload)
        with pytest.raises(DamagedChunkError, match="frames 0 to 7"):
            open_movie(tmp_path / "m")[0]
