"""A chunk is encoded in one call: the same bytes as codec by codec, and as zarr writes them, in every dtype."""

from __future__ import annotations

import gzip
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore

from dj_photon_codecs import AnscombeTransformV3, CodeRangeError, DamagedChunkError, RansCodec
from dj_photon_codecs._threads import rooms
from dj_photon_codecs._zarr import zarr_dtype
from dj_photon_codecs._zarr.coding import CodecChain
from dj_photon_codecs._zarr.names import array_spec
from dj_photon_codecs.anscombe import codes as transform
from dj_photon_codecs.anscombe.parameters import DITHERS, TransformParameters
from dj_photon_codecs.entropy import coder
from dj_photon_codecs.storage.chunks import format_and_grid
from dj_photon_codecs.storage.decoded import chunk_of

Counts = np.ndarray[Any, Any]

#: Dtypes of counts, and of their codes.
DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "uint64", "float32", "float64")


@st.composite
def movies(draw: st.DrawFn) -> tuple[Counts, TransformParameters]:
    """Counts, most of which can be predicted, and a transform that has codes for them."""
    decoded = draw(st.sampled_from(DTYPES))
    real = decoded.startswith("float")
    gain, zero = draw(st.sampled_from([(1.0, 0.0), (0.3, 2.0), (3.0, 7.5), (2.0, -40.0)]))
    encoded = draw(st.sampled_from(["uint8", "uint16", "int16"] if decoded[0] == "u" else ["int16", "int8"]))
    parameters = TransformParameters(
        max(zero, 0.0) if decoded[0] == "u" else zero, gain, encoded, decoded, draw(st.sampled_from([0.5, 1.5])),
        draw(st.sampled_from(DITHERS)),
    )  # fmt: skip
    shape = draw(st.sampled_from([(6, 8, 9), (5, 260, 3), (3, 2, 4, 40), (70, 5), (500,)]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    counts = rng.normal(draw(st.sampled_from([1.0, 30.0, 90.0])), 3, shape)
    if draw(st.booleans()):
        counts[draw(st.integers(0, shape[0] - 1))] = 12
    counts[rng.random(shape) < 0.01] = 126
    counts -= 60 if encoded == "int8" else 0
    limits = (0, 127) if decoded[0] in "u" else (-7, 20) if encoded == "int8" else (-120, 127)
    counts = counts.clip(*limits) if real else np.rint(counts).clip(*limits)
    return counts.astype(decoded), parameters


def chain_of(counts: Counts, parameters: TransformParameters) -> CodecChain:
    """Transform and entropy coder of chunks such as these."""
    names = ("zero_level", "conversion_gain", "encoded_dtype", "decoded_dtype", "step", "dither")
    codec = AnscombeTransformV3(**{name: getattr(parameters, name) for name in names})
    return CodecChain([codec, RansCodec()], array_spec(counts.shape, zarr_dtype(counts.dtype), 0), 1 << 30)


@settings(max_examples=200, deadline=None)
@given(movies(), st.booleans())
def test_it_is_what_the_codecs_do_one_after_the_other(case: tuple[Counts, TransformParameters], kept: bool) -> None:
    """With new memory, and with memory that has the codes of another chunk in it."""
    counts, parameters = case
    chain = chain_of(counts, parameters)
    rooms.take("codes", counts.size, parameters.encoded_dtype)[:] = 7
    payload = chain.encode(counts, partial(rooms.take, "codes") if kept else np.empty)
    codes = transform.encode(counts, parameters)
    assert payload == coder.encode(codes)
    found = chain.decode(np.frombuffer(payload, np.uint8))
    assert found.dtype == counts.dtype
    np.testing.assert_array_equal(found, transform.decode(codes, parameters))


def test_whole_counts_of_a_dtype_that_is_not_the_decoded_one() -> None:
    """A floating-point movie of whole numbers, which the transform decodes as integers."""
    counts = np.random.default_rng(0).poisson(30, (6, 8, 9)).astype(np.float32)
    parameters = TransformParameters(0.0, 1.0, decoded_dtype="uint16", dither="position")
    codes = transform.encode(counts, parameters)
    assert chain_of(counts, parameters).encode(counts) == coder.encode(codes)
    found = chunk_of(codes, parameters, counts.dtype).counts()
    np.testing.assert_array_equal(found, transform.decode(codes, parameters))
    assert found.dtype == np.float32


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize(("dtype", "count"), [("uint16", 60000), ("int16", -30000)])
def test_a_count_without_a_code_is_refused_as_by_the_transform(dither: str, dtype: str, count: int) -> None:
    parameters = TransformParameters(5.0, 1.0, decoded_dtype=dtype, dither=dither)
    counts = np.full((4, 8, 9), 30, dtype)
    chain = chain_of(counts, parameters)
    counts[2, 3, 4] = count
    with pytest.raises(CodeRangeError, match=str(count)):
        chain.encode(counts)
    with pytest.raises(CodeRangeError, match=str(count)):
        transform.encode(counts, parameters)


def test_a_transform_without_a_code_for_any_count() -> None:
    counts = np.zeros((4, 8, 9), np.uint16)
    with pytest.raises(CodeRangeError):
        transform.encode(counts, TransformParameters(1e300, 1.0, decoded_dtype="uint16", dither="position"))


@settings(max_examples=200, deadline=None)
@given(movies(), st.data())
def test_a_box_of_a_chunk_is_that_of_its_counts(case: tuple[Counts, TransformParameters], data: st.DataObject) -> None:
    """With numpy and compiled, into an array of its own and into a part of one, in every order."""
    counts, parameters = case
    codes = transform.encode(counts, parameters)
    chunk = chunk_of(codes, parameters, counts.dtype)
    inner = tuple(
        slice(data.draw(st.integers(0, n)), data.draw(st.integers(0, n)), data.draw(st.integers(1, 3)))
        for n in counts.shape
    )
    expected = transform.decode(codes, parameters)[inner]
    around = tuple(data.draw(st.integers(0, 2)) for _ in counts.shape)
    target = np.zeros([n + k for n, k in zip(expected.shape, around, strict=True)], counts.dtype)
    backwards = tuple(slice(None, None, data.draw(st.sampled_from([1, -1]))) for _ in counts.shape)
    part = target[tuple(slice(k, None) for k in around)][backwards]
    for modules in (sys.modules, {name: module for name, module in sys.modules.items() if name != "numba"}):
        with mock.patch("dj_photon_codecs.anscombe.tables.sys.modules", modules):
            target[...] = 0
            chunk.copy(inner, part)
        np.testing.assert_array_equal(part, expected)
        assert np.count_nonzero(target) == np.count_nonzero(part)


def test_codes_that_no_table_holds_are_counted_at_once() -> None:
    parameters = TransformParameters(0.0, 1e-4, "int64", "int64", dither="position")
    counts = np.array([[0, 10**9, 5, 10**12]])
    chunk = chunk_of(transform.encode(counts, parameters), parameters, counts.dtype)
    assert chunk.lookup is None
    np.testing.assert_array_equal(chunk.counts(), transform.decode(transform.encode(counts, parameters), parameters))


TRANSFORM = AnscombeTransformV3(zero_level=3.0, conversion_gain=2.0, decoded_dtype="uint16", dither="position")


@pytest.mark.parametrize("serializer", [RansCodec(), BytesCodec(), BytesCodec(endian="big")], ids=["rans", "<", ">"])
@pytest.mark.parametrize(
    "compressors",
    [(Crc32cCodec(),), (ZstdCodec(level=3), Crc32cCodec()), (ZstdCodec(checksum=True),), (BloscCodec(), Crc32cCodec()),
     (GzipCodec(), Crc32cCodec()), ()],
    ids=["crc32c", "zstd", "zstd with checksum", "blosc", "gzip", "none"],
)  # fmt: skip
@pytest.mark.parametrize("filters", [[TRANSFORM], []], ids=["codes", "counts"])
def test_chunks_are_the_bytes_that_zarr_writes(
    filters: Any, serializer: Any, compressors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zarr reads them without this package's storage code."""
    monkeypatch.setattr(gzip, "time", SimpleNamespace(time=lambda: 0.0))  # gzip writes the time into its header
    counts = np.random.default_rng(0).poisson(30, (8, 16, 17)).astype(np.uint16)
    store = MemoryStore()
    array = zarr.create_array(
        store, shape=counts.shape, chunks=(4, 16, 17), dtype="uint16", fill_value=0, filters=filters,
        serializer=serializer, compressors=compressors,
    )  # fmt: skip
    array[:] = counts
    form = format_and_grid(array.metadata, "here")[0]
    for start in (0, 4):
        key = array.metadata.encode_chunk_key((start // 4, 0, 0))
        chunk = counts[start : start + 4]
        assert form.coder.encode(chunk) == store._store_dict[key].to_bytes()
        found = form.coder.decode(np.frombuffer(store._store_dict[key].to_bytes(), np.uint8))
        np.testing.assert_array_equal(found, array[start : start + 4])


def test_damaged_payloads_are_refused() -> None:
    counts = np.random.default_rng(0).poisson(30, (8, 16, 17)).astype(np.uint16)
    chain = chain_of(counts, TransformParameters(0.0, 1.0, dither="position"))
    payload = bytearray(chain.encode(counts))
    for content in (payload[:-1], payload + b"\0", b"", payload[:20], b"\2" + payload[1:]):
        with pytest.raises(DamagedChunkError):
            chain.decode(np.frombuffer(bytes(content), np.uint8))


def undeclared(content: bytes) -> bytes:
    """A Zstd frame whose header does not say how many bytes it gives (RFC 8878, section 3.1.1)."""
    frame: bytes = zstd.compress(content)
    single, size_flag = frame[4] >> 5 & 1, frame[4] >> 6
    return frame[:4] + b"\x00\x58" + frame[5 + (not single) + (single, 2, 4, 8)[size_flag] :]


@pytest.mark.parametrize("short", [undeclared, zstd.compress, Blosc().encode], ids=["undeclared", "zstd", "blosc"])
def test_a_payload_of_too_few_bytes_does_not_give_the_chunk_before(short: Any) -> None:
    """Chunks are decompressed into memory of the thread, in which the one before still lies."""
    compressor = ZstdCodec() if short in (undeclared, zstd.compress) else BloscCodec(typesize=1)
    shape = (8, 128, 128)  # as many bytes as a block of Zstd gives at most
    array = zarr.create_array(
        MemoryStore(), shape=shape, chunks=shape, dtype="uint8", fill_value=0, compressors=[compressor]
    )
    chain = format_and_grid(array.metadata, "here")[0].coder
    counts = np.resize(np.arange(251, dtype=np.uint8), shape)
    payload = np.frombuffer(chain.encode(counts), np.uint8)
    np.testing.assert_array_equal(chain.decode(payload, room=rooms.take), counts)
    content = short(counts[:6].tobytes())
    with pytest.raises((ValueError, RuntimeError)):
        chain.decode(np.frombuffer(content, np.uint8), room=rooms.take)
