"""Every parser and decoder, given what nobody wrote: a value, or an error of this package; never another one.

A short run in CI; a long one by hand, of so many examples for each door:

    DJ_TEST_FUZZ_EXAMPLES=20000 pytest tests/storage/test_crafted_fuzz.py
    python tests/storage/fuzz_atheris.py DOOR -max_total_time=600    # coverage-guided, where atheris is installed

What was found stands in ``tests/storage/test_crafted.py``, and runs for ever.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datajoint as dj
import google_crc32c
import numcodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    AnscombeTransformV3,
    Calibration,
    CalibrationError,
    FormatError,
    PhotonArray,
    PhotonCodec,
    PhotonCodecError,
    open_movie,
    write_movie,
)
from dj_photon_codecs.anscombe.legacy_codecs import LegacyAnscombeV3
from dj_photon_codecs.entropy.codec_v3 import RansCodec
from dj_photon_codecs.entropy.coder import decode
from dj_photon_codecs.simulation import Recording, presets, simulate
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.record import MovieRecord, without_record

pytestmark = pytest.mark.fuzz

EXAMPLES = int(os.environ.get("DJ_TEST_FUZZ_EXAMPLES", "6"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

SHAPE = (12, 48, 48)
COUNTS = np.round(100 + 20 * np.random.default_rng(5).poisson(8, SHAPE)).astype(np.uint16)

MOVIES: dict[str, dict[str, Any]] = {
    "standard": {},
    "dense": {"profile": "dense"},
    "zstd": {"profile": "lossless", "compressors": ZstdCodec(level=1)},
    "blosc": {"profile": "lossless", "compressors": BloscCodec(cname="zstd", typesize=2, shuffle="bitshuffle")},
    "blosc lz4": {"profile": "lossless", "compressors": BloscCodec(cname="lz4", typesize=2, shuffle="shuffle")},
    "gzip": {"profile": "lossless", "compressors": GzipCodec(level=1)},
    "V2": {"zarr_format": 2},
    "V2 lzma": {"zarr_format": 2, "compressors": numcodecs.LZMA(preset=0)},
    "V2 lz4": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "V2 zlib": {"zarr_format": 2, "compressors": numcodecs.Zlib(1)},
    "V2 bz2": {"zarr_format": 2, "compressors": numcodecs.BZ2(1)},
    "anscombe-v1": {"profile": "anscombe-v1"},
}


@cache
def objects_of(name: str) -> dict[str, bytes]:
    """What is stored of a small movie, by key: 3 chunks in 2 shards, or in as many objects."""
    before = layout_module.CHUNK_PIXELS, layout_module.SHARD_BYTES
    layout_module.CHUNK_PIXELS, layout_module.SHARD_BYTES = 4 * 48 * 48, 2 * 4 * 48 * 48 * 2
    store = MemoryStore()
    try:
        write_movie(store, COUNTS, calibration=Calibration.given(20.0, 100.0), progress=False, **MOVIES[name])
    finally:
        layout_module.CHUNK_PIXELS, layout_module.SHARD_BYTES = before
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def unsealed(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Without what gives an altered document or chunk away: the doors behind are to hold as well."""
    objects = dict(objects)
    for key in ("zarr.json", ".zattrs"):
        if key in objects:
            document = json.loads(objects[key])
            record = document.get("attributes", document)["dj_photon"]
            del record["checksums"], record["digest"]
            objects[key] = json.dumps(document).encode()
    return objects


def store_of(objects: dict[str, bytes]) -> MemoryStore:
    buffer = default_buffer_prototype().buffer
    return MemoryStore({key: buffer.from_bytes(value) for key, value in objects.items()})


def use(handle: PhotonArray) -> None:
    """Everything that a user does with a handle; what is larger than any of these movies is left alone."""
    repr(handle)
    _ = handle.calibration, handle.compression_ratio, handle.profile, handle.step
    if handle.ndim == 0 or handle.nbytes > 1 << 22 or int(np.prod(handle.chunks)) > 1 << 20:
        return
    for read in (lambda: handle[0], lambda: handle[...], handle.read_intact):
        try:
            assert np.asarray(read()).dtype == handle.dtype
        except (PhotonCodecError, IndexError):  # IndexError: a movie without a frame 0
            continue
    if int(np.prod(handle._reader.grid.objects)) < 1000:
        handle.verify(progress=False)


def tolerated(action: Callable[[], Any], allowed: Any = PhotonCodecError) -> None:
    """Run it: it succeeds, or raises one of the allowed errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr warns of names it does not know
            action()
    except allowed:
        pass


# JSON that is nearly right

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**18, 10**400, 1e308, 1e-320, -0.0, float("inf"), float("nan")])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "bytes",
            "zstd",
            "crc32c",
            "sharding_indexed",
            "dj_photon_codecs.anscombe",
            "dj_photon_codecs.rans",
            "transpose",
        ]
    )
    | st.sampled_from(["uint8", "int64", "float64", "float16", "<u2", "|O", "|S4", "u1,", "(3,)u2", "pickle"])
    | st.sampled_from(["default", "v2", "end", "start", "NaN"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, part in inner for place in places_in(part, (*path, name)))]


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with up to three values replaced, taken away, moved or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = places_in(document)
        path = draw(st.sampled_from(places))
        if not path:
            continue
        parent = document
        for name in path[:-1]:
            parent = parent[name]
        how = draw(st.sampled_from(["replace", "replace", "number", "remove", "copy", "wrap"]))
        if how == "remove":
            del parent[path[-1]]
        elif how == "copy":
            source: Any = document
            for name in draw(st.sampled_from(places)):
                source = source[name]
            parent[path[-1]] = copy.deepcopy(source)
        elif how == "wrap":
            parent[path[-1]] = [parent[path[-1]]]
        elif how == "number":
            parent[path[-1]] = draw(st.integers(-2, 70) | st.integers())
        else:
            parent[path[-1]] = draw(JSON)
    return document


NOISE_MODEL = Calibration(
    20.0, 100.0, "measured", "", "photon-transfer", 0.01, ((110.0, 200.0, 3000), (210.0, 2200.0, 10))
)


@fuzzed
@given(altered(NOISE_MODEL.to_dict()) | JSON)
def test_calibrations(document: Any) -> None:
    tolerated(lambda: Calibration.from_dict(document), CalibrationError)


def record_of(name: str = "standard") -> Any:
    return json.loads(objects_of(name)["zarr.json"])["attributes"]["dj_photon"]


@fuzzed
@given(altered(record_of()) | JSON)
def test_records(document: Any) -> None:
    tolerated(lambda: MovieRecord.from_dict(document, "here").to_dict(), FormatError)


def row_of(name: str) -> Any:
    handle = open_movie(store_of(objects_of(name)))
    assert handle.record is not None
    return {"path": "m", "store": "s", **handle.record.to_dict(), "zarr": without_record(handle.documents)}


@fuzzed
@given(st.sampled_from(["standard", "dense", "V2"]).flatmap(lambda name: altered(row_of(name))) | JSON)
def test_rows(row: Any) -> None:
    config = dj.settings.Config()
    config.stores = {"default": "s", "s": {"protocol": "file", "location": tempfile.gettempdir()}}

    def fetch() -> None:
        handle = PhotonCodec().decode(row, key={"_config": config})
        repr(handle)
        _ = handle[0]

    tolerated(fetch, (PhotonCodecError, dj.errors.DataJointError, IndexError))


@fuzzed
@given(st.data(), st.sampled_from([*MOVIES]))
def test_metadata_documents(data: st.DataObject, name: str) -> None:
    objects = unsealed(objects_of(name))
    key = data.draw(st.sampled_from([key for key in objects if "json" in key or key.startswith(".z")]))
    document = json.loads(objects[key])
    content = data.draw(
        altered(document).map(lambda value: json.dumps(value).encode())
        | JSON.map(lambda value: json.dumps(value).encode())
        | spoiled(objects[key])
        | st.binary()
    )
    tolerated(lambda: use(open_movie(store_of({**objects, key: content}))))


CODECS: dict[str, tuple[Any, Any]] = {
    "anscombe": (
        AnscombeTransformV3.from_dict,
        AnscombeTransformV3(zero_level=1.5, conversion_gain=2.0, decoded_dtype="uint16").to_dict(),
    ),
    "dithered anscombe": (
        AnscombeTransformV3.from_dict,
        AnscombeTransformV3(zero_level=1.5, conversion_gain=2.0, decoded_dtype="int16", dither="position").to_dict(),
    ),
    "anscombe-v1": (LegacyAnscombeV3.from_dict, LegacyAnscombeV3(zero_level=0, conversion_gain=20).to_dict()),
    "rans": (RansCodec.from_dict, RansCodec().to_dict()),
}


@pytest.mark.parametrize("name", CODECS)
@fuzzed
@given(data=st.data())
def test_configurations_of_codecs(name: str, data: st.DataObject) -> None:
    parse, document = CODECS[name]
    tolerated(lambda: parse(data.draw(altered(document) | st.dictionaries(st.text(max_size=5), JSON))).to_dict())


# Bytes that are nearly right


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some of them flipped, replaced, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = len(changed)
        start = draw(st.integers(0, max(0, size - 1)) | st.integers(0, max(0, min(size - 1, 40))))
        stop = min(size, start + draw(st.integers(0, 8) | st.integers(0, max(size, 1))))
        how = draw(st.sampled_from(["flip", "byte", "cut", "double", "insert", "ones"]))
        if how == "flip" and size:
            changed[start] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte" and size:
            changed[start] = draw(st.integers(0, 255))
        elif how == "cut":
            del changed[start:stop]
        elif how == "double" and stop - start < 4096:
            changed[start:start] = changed[start:stop]
        elif how == "ones":
            changed[start:stop] = b"\xff" * (stop - start)
        else:
            changed[start:start] = draw(st.binary(max_size=16))
    return bytes(changed)


def checked(content: bytes) -> bytes:
    """Bytes with a checksum that holds."""
    return content + int(google_crc32c.value(content)).to_bytes(4, "little")


def with_first_chunk(name: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """A movie with other bytes in its first chunk, whose checksum and index hold."""
    objects = unsealed(objects_of(name))
    if "0.0.0" in objects:
        return {**objects, "0.0.0": checked(change(objects["0.0.0"][:-4]))}
    shard = objects["c/0/0/0"]
    index = np.frombuffer(shard[-36:-4], "<u8").reshape(2, 2)
    parts = [shard[offset : offset + length] for offset, length in index.tolist()]
    parts[0] = checked(change(parts[0][:-4]))
    index = np.array([[0, len(parts[0])], [len(parts[0]), len(parts[1])]], "<u8")
    return {**objects, "c/0/0/0": b"".join(parts) + checked(index.tobytes())}


@pytest.mark.parametrize("name", MOVIES)
@fuzzed
@given(data=st.data())
def test_payloads_of_chunks(name: str, data: st.DataObject) -> None:
    """The checksum holds: it is the decoder that has to."""
    objects = with_first_chunk(name, lambda content: data.draw(spoiled(content) | st.binary(max_size=200)))
    tolerated(lambda: use(open_movie(store_of(objects))))


@fuzzed
@given(data=st.data())
def test_indices_of_shards(data: st.DataObject) -> None:
    """Every number of the index may be any; its checksum holds."""
    objects = unsealed(objects_of("standard"))
    shard = objects["c/0/0/0"]
    numbers = st.integers(0, 2**64 - 1) | st.integers(0, len(shard) + 5)
    index = np.array([data.draw(numbers) for _ in range(4)], np.uint64)
    objects["c/0/0/0"] = shard[:-36] + checked(index.astype("<u8").tobytes())
    tolerated(lambda: use(open_movie(store_of(objects))))


@fuzzed
@given(data=st.data())
def test_whole_objects(data: st.DataObject) -> None:
    """As they are in the store, with the record's checksums: any other bytes raise, or are the same counts."""
    name = data.draw(st.sampled_from([*MOVIES]))
    objects = dict(objects_of(name))
    key = data.draw(st.sampled_from([key for key in objects if key[0] in "c01234"]))
    objects[key] = data.draw(spoiled(objects[key]))
    handle = open_movie(store_of(objects))
    intact = handle.read_intact()
    expected = open_movie(store_of(objects_of(name)))[...]
    np.testing.assert_array_equal(intact.data[~intact.mask], expected[~np.asarray(intact.mask)])


@fuzzed
@given(data=st.data())
def test_payloads_of_the_entropy_coder(data: st.DataObject) -> None:
    shard = objects_of("dense")["c/0/0/0"]
    length = int(np.frombuffer(shard[-36:-4], "<u8")[1])
    payload = data.draw(spoiled(shard[: length - 4]))
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "int8", "uint16", "int16"])))
    tolerated(lambda: decode(payload, (4, 48, 48), dtype))


# Folders of recordings

CUT = Path(__file__).parents[1] / "data" / "minisim" / "cut.zarr"


@cache
def saved_recording() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dj-photon-fuzz-")) / "recording"
    return simulate(presets.one_photon_miniscope(height_px=24, width_px=24, n_frames=4)).save(folder)


@pytest.fixture(scope="module", autouse=True)
def _remove_recording() -> Any:
    yield
    if saved_recording.cache_info().currsize:
        shutil.rmtree(saved_recording().parent)


def spoil_a_file(folder: Path, name: str, data: st.DataObject) -> None:
    path = folder / name
    content = path.read_bytes()
    changes = spoiled(content) | st.binary(max_size=50)
    if path.name in ("zarr.json", "spec.json", ".zarray", ".zattrs", ".zgroup"):
        changes = altered(json.loads(content)).map(lambda value: json.dumps(value).encode()) | changes
    path.write_bytes(data.draw(changes))


@pytest.mark.parametrize("kind", ["own", "minisim"])
@fuzzed
@given(data=st.data())
def test_folders_of_recordings(kind: str, data: st.DataObject) -> None:
    source = saved_recording() if kind == "own" else CUT
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    documents = [name for name in names if name.endswith(("json", ".zarray", ".zattrs", ".zgroup"))]
    if kind == "minisim":
        names = documents  # its chunks are Blosc's, read by zarr alone: see test_crafted.py for what Blosc does then
    top = [name for name in documents if "/" not in name]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(shutil.copytree(source, Path(folder) / "r"))
        spoil_a_file(
            target, data.draw(st.sampled_from(names) | st.sampled_from(documents) | st.sampled_from(top)), data
        )
        tolerated(lambda: Recording.load(target))
