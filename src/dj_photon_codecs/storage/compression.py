"""The compressor of a movie: chosen by trial on a few of its frames, or given by hand.

On noise codes a high Zstd level and bit-shuffle hurt; for sparse photon counts it is the other way round. So
the candidates are tried, and the smallest result wins (``docs/explanation/compression.md`` has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numcodecs
import numpy as np
from numcodecs.abc import Codec as Numcodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from .._typing import AnyArray, ZarrFormat
from ..errors import ConfigurationError

#: What is tried: Zstd level 1, and Blosc-Zstd as (level, shuffle); the first only where time is short.
_BLOSC_TRIALS = ((1, "bitshuffle"), (5, "bitshuffle"), (1, "shuffle"), (5, "shuffle"))
_FAST_TRIALS = _BLOSC_TRIALS[:1]

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}

#: A slower candidate must save this share of the bytes to win over a faster one before it.
_WORTH = 0.005


def choose_compressor(sample: AnyArray, *, fast: bool = False) -> Numcodec:
    """The numcodecs compressor that makes ``sample`` smallest; faster ones first among equals.

    Parameters
    ----------
    sample
        What the compressor will see of an inner chunk: codes, or counts.
    fast
        Whether only those come into question that keep up with a camera, at a few per cent of size.
    """
    sample = np.ascontiguousarray(sample)
    candidates: list[Numcodec] = [numcodecs.Zstd(level=1)]
    for level, shuffle in _FAST_TRIALS if fast else _BLOSC_TRIALS:
        if shuffle == "shuffle" and sample.dtype.itemsize == 1:
            continue  # bytes of single bytes have no order to change
        candidates.append(numcodecs.Blosc(cname="zstd", clevel=level, shuffle=_SHUFFLES[shuffle]))
    best, smallest = candidates[0], len(candidates[0].encode(sample))
    for candidate in candidates[1:]:
        size = len(candidate.encode(sample))
        if size < smallest * (1 - _WORTH):
            best, smallest = candidate, size
    return best


def entropy_coder_pays(sample: AnyArray, rival: Numcodec) -> bool:
    """Whether the entropy coder takes codes of this dtype, and makes ``sample`` smaller than the best compressor."""
    from ..entropy.coder import DTYPES, encode

    sample = np.ascontiguousarray(sample)
    return sample.dtype.name in DTYPES and len(encode(sample)) < len(rival.encode(sample)) * (1 - _WORTH)


def bytes_codecs(chosen: Numcodec, itemsize: int, zarr_format: ZarrFormat) -> tuple[Any, ...]:
    """A chosen compressor followed by crc32c, as codecs of a Zarr format."""
    if zarr_format == 2:
        return chosen, numcodecs.get_codec({"id": "crc32c"})
    if isinstance(chosen, numcodecs.Zstd):
        return ZstdCodec(level=chosen.level), Crc32cCodec()
    names = {number: name for name, number in _SHUFFLES.items()}
    shuffle: Any = names[chosen.shuffle]
    return (
        BloscCodec(typesize=itemsize, cname=chosen.cname, clevel=chosen.clevel, shuffle=shuffle, blocksize=0),
        Crc32cCodec(),
    )


def given_codecs(compressors: Any, zarr_format: ZarrFormat) -> tuple[Any, ...]:
    """Compressors given by hand, followed by crc32c.

    Parameters
    ----------
    compressors
        One codec or a sequence of them: for Zarr format 3 ``zarr.codecs`` objects or their metadata
        dictionaries, for format 2 numcodecs codecs or their configurations. An empty sequence compresses nothing.
    zarr_format
        2 or 3.

    Raises
    ------
    ConfigurationError
        For anything else.
    """
    from zarr.abc.codec import BytesBytesCodec
    from zarr.registry import get_codec_class

    several = isinstance(compressors, Sequence) and not isinstance(compressors, str | bytes)
    codecs: list[Any] = []
    for given in compressors if several else [compressors]:
        codec = given
        try:
            if isinstance(given, dict):
                codec = (
                    numcodecs.get_codec(dict(given))
                    if zarr_format == 2
                    else get_codec_class(given["name"]).from_dict(given)
                )
        except Exception as error:  # each registry raises its own
            raise ConfigurationError(f"compressors: {given!r} is no known codec ({error})") from error
        expected = Numcodec if zarr_format == 2 else BytesBytesCodec
        if not isinstance(codec, expected):
            example = "numcodecs.Zstd(level=3)" if zarr_format == 2 else "zarr.codecs.ZstdCodec(level=3)"
            raise ConfigurationError(
                f"compressors for zarr_format={zarr_format} are bytes-to-bytes codecs such as {example}, got {given!r}"
            )
        if not isinstance(codec, Crc32cCodec) and getattr(codec, "codec_id", "") != "crc32c":
            codecs.append(codec)
    return (*codecs, numcodecs.get_codec({"id": "crc32c"}) if zarr_format == 2 else Crc32cCodec())
