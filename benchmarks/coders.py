"""The coders that ``coding.py`` compares. Each one encodes and decodes a chunk of codes on one thread.

Chunks are uint8, shape (frames, height, width). Image formats code frame by frame. The times include converting the
codes to the coder's input format.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from compression import candidates
from worker import Process

Codes = npt.NDArray[np.uint8]

_U8 = np.dtype(np.uint8)

#: General compressors, named as in compression.py.
_GENERAL = ("zstd-1", "zstd-9", "blosc zstd-1", "blosc zstd-5 bitshuffle", "blosc zstd-9 bitshuffle")

#: JPEG XL: the fastest effort that models neighbours, and the default.
_JPEGXL_EFFORTS = (2, 7)

#: WebP: the library's default. The slowest setting saves about 1 % more.
_WEBP_METHOD = 4


@dataclass(frozen=True)
class Trial:
    """One run of a coder on a chunk: encoded bytes, and seconds to encode and decode."""

    size: int
    encode: float
    decode: float


@dataclass(frozen=True)
class Peer:
    """A coder: its name in the tables, and the function that runs it on a chunk."""

    name: str
    try_chunk: Callable[[Codes], Trial]


def ours() -> Peer:
    """Return the coder of this package."""
    from dj_photon_codecs.entropy.coder import decode, encode

    return _peer("dj-photon-codecs", lambda chunk: [encode(chunk)], lambda parts, shape: decode(parts[0], shape, _U8))


def find_peers() -> tuple[list[Peer], list[str]]:
    """Return the other coders, and a line for each package that is unavailable."""
    peers, missing = [], []
    for package, of_package in (("numcodecs", _general), ("pcodec", _pcodec), ("imagecodecs", _images)):
        try:
            peers += of_package()
        except ImportError as error:
            missing.append(f"Left out: {package} ({error})")
    return peers, missing


def pymecompress(process: Process) -> Peer:
    """Run the Huffman coder of PYMECompress, without its quantisation, in a process of its own environment."""

    def try_chunk(chunk: Codes) -> Trial:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "chunk.npy"
            np.save(path, chunk)
            done = process.ask("code", chunk=str(path))
        if not done["same"]:
            raise RuntimeError("PYMECompress does not give the codes back")
        return Trial(done["size"], done["encode"], done["decode"])

    return Peer("PYMECompress, Huffman", try_chunk)


def _peer(
    name: str,
    encode: Callable[[Codes], Sequence[Any]],
    decode: Callable[[Sequence[Any], tuple[int, ...]], npt.NDArray[Any]],
) -> Peer:
    return Peer(name, lambda chunk: _timed(name, encode, decode, chunk))


def _timed(
    name: str,
    encode: Callable[[Codes], Sequence[Any]],
    decode: Callable[[Sequence[Any], tuple[int, ...]], npt.NDArray[Any]],
    chunk: Codes,
) -> Trial:
    """Encode a chunk, decode it and compare."""
    start = time.perf_counter()
    parts = encode(chunk)
    between = time.perf_counter()
    decoded = decode(parts, chunk.shape)
    end = time.perf_counter()
    if decoded.dtype != chunk.dtype or not np.array_equal(decoded, chunk):
        raise RuntimeError(f"{name} does not give the codes back")
    return Trial(sum(len(part) for part in parts), between - start, end - between)


def _general() -> list[Peer]:
    """Return byte-oriented compressors of numcodecs."""

    def peer(name: str, compressor: Any) -> Peer:
        return _peer(
            name,
            lambda chunk: [compressor.encode(chunk)],
            lambda parts, shape: np.frombuffer(compressor.decode(parts[0]), _U8).reshape(shape),
        )

    found = candidates()
    return [peer(name, found[name]) for name in _GENERAL]


def _pcodec() -> list[Peer]:
    """Return Pcodec at its highest level, hardly slower than the default. It needs an option to accept bytes."""
    from pcodec import ChunkConfig, standalone

    config = ChunkConfig(12, enable_8_bit=True)
    return [
        _peer(
            "pcodec, level 12",
            lambda chunk: [standalone.simple_compress(chunk.ravel(), config)],
            lambda parts, shape: np.asarray(standalone.simple_decompress(parts[0])).reshape(shape),
        )
    ]


def _images() -> list[Peer]:
    """Return lossless image formats."""
    from imagecodecs import jpegls_decode, jpegls_encode, jpegxl_decode, jpegxl_encode, webp_decode, webp_encode

    def frames(name: str, encode: Callable[[Codes], Any], decode: Callable[[Any], npt.NDArray[Any]]) -> Peer:
        return _peer(
            name,
            lambda chunk: [encode(frame) for frame in chunk],
            lambda parts, shape: np.stack([decode(part) for part in parts]),
        )

    def jpegxl(effort: int) -> Peer:
        return frames(
            f"JPEG XL, effort {effort}",
            lambda frame: jpegxl_encode(frame, lossless=True, effort=effort, numthreads=1),
            lambda part: jpegxl_decode(part, numthreads=1),
        )

    webp_grey = frames(
        f"WebP, grey, method {_WEBP_METHOD}",
        lambda frame: webp_encode(np.repeat(frame[..., None], 3, 2), lossless=True, method=_WEBP_METHOD, numthreads=1),
        lambda part: webp_decode(part, hasalpha=False)[..., 1],
    )
    webp_packed = frames(
        f"WebP, 4 pixels as RGBA, method {_WEBP_METHOD}",
        lambda frame: webp_encode(frame.reshape(len(frame), -1, 4), lossless=True, method=_WEBP_METHOD, numthreads=1),
        lambda part: (pixels := webp_decode(part, hasalpha=True)).reshape(len(pixels), -1),
    )
    return [
        frames("JPEG-LS", jpegls_encode, jpegls_decode),
        *(jpegxl(effort) for effort in _JPEGXL_EFFORTS),
        webp_grey,
        webp_packed,
    ]
