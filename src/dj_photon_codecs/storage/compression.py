"""The compressor of a movie: chosen by trial on a few of its frames, or given by the user.

High Zstd levels and bit-shuffle hurt noise codes but help sparse photon counts. So the candidates are tried, and the
smallest result wins (figures in ``docs/explanation/compression.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numcodecs
import numpy as np
from numcodecs.abc import Codec as Numcodec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from .._typing import AnyArray, ZarrFormat
from .._zarr import get_codec_class
from ..errors import ConfigurationError

#: Blosc-Zstd candidates as (level, shuffle); only the first is tried when time is short. Plain Zstd is tried before
#: them: at level 1, and for multi-byte counts also at level 2, which makes those a tenth smaller.
_BLOSC_TRIALS = ((1, "bitshuffle"), (5, "bitshuffle"), (1, "shuffle"), (5, "shuffle"))
_FAST_TRIALS = _BLOSC_TRIALS[:1]

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}

#: Fraction of the bytes that a slower candidate must save to beat a faster one.
_WORTH = 0.005


def choose_compressor(sample: AnyArray, *, fast: bool = False) -> Numcodec:
    """Return the numcodecs compressor that makes ``sample`` smallest; near ties go to the faster one.

    ``sample`` is what the compressor will see of an inner chunk: codes or counts. With ``fast``, only compressors that
    keep up with a camera are tried, which costs a few per cent in size.
    """
    sample = np.ascontiguousarray(sample)
    thorough = sample.dtype.itemsize > 1 and not fast
    candidates: list[Numcodec] = [numcodecs.Zstd(level=level) for level in ((1, 2) if thorough else (1,))]
    for level, shuffle in _FAST_TRIALS if fast else _BLOSC_TRIALS:
        if shuffle == "shuffle" and sample.dtype.itemsize == 1:
            continue  # byte shuffle does nothing to single bytes
        candidates.append(numcodecs.Blosc(cname="zstd", clevel=level, shuffle=_SHUFFLES[shuffle]))
    best, smallest = candidates[0], len(candidates[0].encode(sample))
    for candidate in candidates[1:]:
        size = len(candidate.encode(sample))
        if size < smallest * (1 - _WORTH):
            best, smallest = candidate, size
    return best


def entropy_coder_pays(sample: AnyArray, rival: Numcodec) -> bool:
    """Whether the entropy coder supports this dtype and beats ``rival``, the best compressor, on ``sample``."""
    from ..entropy.coder import DTYPES, encode

    sample = np.ascontiguousarray(sample)
    return sample.dtype.name in DTYPES and len(encode(sample)) < len(rival.encode(sample)) * (1 - _WORTH)


def bytes_codecs(chosen: Numcodec, itemsize: int, zarr_format: ZarrFormat) -> tuple[Any, ...]:
    """Return the chosen compressor and crc32c as codecs of a Zarr format."""
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
    """Return the user's compressors as codecs, followed by crc32c.

    ``compressors`` is one codec or a sequence: ``zarr.codecs`` objects or their metadata dictionaries for Zarr format
    3, numcodecs codecs or their configurations for format 2. An empty sequence means no compression. Raises
    ConfigurationError for anything else.
    """
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
        except Exception as error:  # each registry raises its own errors
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
