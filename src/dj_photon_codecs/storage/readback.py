"""Read the first object of a movie back from the store before the second is written.

This detects faults of a codec, an installed library or the store while the original still exists.
"""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from .._threads import encoding_threads
from .._typing import AnyArray, FloatArray
from .._zarr import ArrayMetadata
from ..anscombe.legacy import legacy_domain
from ..anscombe.parameters import TransformParameters
from ..errors import DamagedChunkError, MissingChunkError, StorageError
from .chunks import ChunkReader
from .encoding import Encoding
from .layout import Coords
from .legacy import trusted_metadata
from .location import Location, ProcessStore


class ReadBackError(StorageError):
    """What was written reads back altered. The store or a codec is at fault, so retrying cannot help."""


#: Number of counts compared at a time, because they are converted to float64.
_AT_ONCE = 1 << 20


async def check_first_object(location: Location, metadata: ArrayMetadata, encoding: Encoding, block: AnyArray) -> None:
    """Read the first object of a movie from the store, and compare it with ``block``, the counts of the first frames.

    ``block`` has at least the frames of that object. Raises ReadBackError if a count differs by more than invariant 1
    allows (or at all, if storage is lossless), and StorageError if the object cannot be read.
    """
    # during acquisition the length, and so the last chunk of the object, is not known yet
    metadata = replace(metadata, shape=(min(len(block), metadata.shape[0]), *metadata.shape[1:]))
    reader = ChunkReader(trusted_metadata(metadata), ProcessStore(location))
    failed = f"the first object of {location.label} does not read back as it was written, so no other is written"
    check = partial(_check_chunk, block, encoding, failed)
    found = await asyncio.to_thread(reader.read_object, (0,) * block.ndim)
    run = partial(asyncio.get_running_loop().run_in_executor, encoding_threads(), check)
    await asyncio.gather(*(run(reader.grid.region(coords), chunk) for coords, chunk in found.items()))


def _check_chunk(
    block: AnyArray, encoding: Encoding, failed: str, region: tuple[slice, ...], found: AnyArray | Exception
) -> None:
    """Raise ReadBackError if a chunk that was read back is not within the bound."""
    if isinstance(found, MissingChunkError | DamagedChunkError):
        raise ReadBackError(f"{failed}: {found}") from found
    if isinstance(found, Exception):
        raise found
    written = block[region]
    read = found[tuple(slice(n) for n in written.shape)]
    if _is_within_bound(written, read, encoding):
        return
    step = max(1, _AT_ONCE // math.prod(written.shape[1:]))
    for start in range(0, len(written), step):
        wrong = _beyond_bound(written[start : start + step], read[start : start + step], encoding)
        if wrong.any():
            place = np.unravel_index(int(wrong.argmax()), wrong.shape)
            inside = (start + int(place[0]), *map(int, place[1:]))
            where = tuple(part.start + i for part, i in zip(region, inside, strict=True))
            raise ReadBackError(
                f"{failed}: count {written[inside]} at {where} reads as {read[inside]}. The store altered it, or a "
                f"codec is at fault: try another store, or profile='lossless' instead of {encoding.profile.name!r}"
            )


def check_copied_object(copy: ChunkReader, stored: Coords, payload: AnyArray) -> None:
    """Read an object of a copy from its store; raises ReadBackError if it differs from ``payload``.

    Raises StorageError if it cannot be read.
    """
    failed = f"object {copy.key(stored)!r} of {copy.store.location.label} does not read back as it was written"
    try:
        found = copy.payload(stored)
    except (MissingChunkError, DamagedChunkError) as error:
        raise ReadBackError(f"{failed}: {error}") from error
    if found.tobytes() != payload.tobytes():
        raise ReadBackError(f"{failed}, so no other is written. The store altered it: try another one")


def _is_within_bound(counts: AnyArray, stored: AnyArray, encoding: Encoding) -> bool:
    """Whether a fast check, available once numba is loaded, finds all stored counts within the bound of invariant 1."""
    parameters, small = encoding.parameters, counts.dtype.kind == "u" and counts.dtype.itemsize <= 2
    if parameters is None or encoding.profile.legacy or not small or "numba" not in sys.modules:
        return False
    from ..anscombe.kernels import first_beyond

    flat = np.ascontiguousarray(counts).reshape(-1), np.ascontiguousarray(stored).reshape(-1)
    return bool(first_beyond(*flat, _largest_differences(counts.dtype, encoding.largest_change, parameters)) < 0)


def _beyond_bound(counts: AnyArray, stored: AnyArray, encoding: Encoding) -> AnyArray:
    """Return a mask of the stored counts that differ more than the profile allows (invariant 1)."""
    parameters = encoding.parameters
    if parameters is None:
        return np.asarray(counts != stored)
    if encoding.profile.legacy:  # compare with this format's own tables
        names = parameters.encoded_dtype, parameters.decoded_dtype
        table, inverse = legacy_domain(parameters.conversion_gain, parameters.zero_level, *names)
        return np.asarray(inverse[table[counts]] != stored)
    highest, change = np.maximum(counts, stored), encoding.largest_change
    if counts.dtype.kind == "u" and counts.dtype.itemsize <= 2:  # a table is several times faster than the formula
        return np.asarray(
            highest - np.minimum(counts, stored) > _largest_differences(counts.dtype, change, parameters)[highest]
        )
    original, found = counts.astype(np.float64), stored.astype(np.float64)
    precision = np.finfo(counts.dtype if counts.dtype.kind == "f" else np.float64).eps
    rounding = precision * np.maximum(np.abs(original), np.abs(found))
    # not <=, so that NaN is beyond every bound
    return np.asarray(~(np.abs(found - original) <= _bound(np.maximum(original, found), change, parameters) + rounding))


def _bound(highest: FloatArray, change: float, parameters: TransformParameters) -> FloatArray:
    """Return the largest allowed difference between a count and its stored count, given the higher of the two."""
    return np.asarray(change * parameters.sigma(highest) + 0.5)


@lru_cache(maxsize=4)
def _largest_differences(dtype: np.dtype[Any], change: float, parameters: TransformParameters) -> AnyArray:
    """Return :func:`_bound`, rounded down, for every value of a small unsigned dtype."""
    values = np.arange(np.iinfo(dtype).max + 1, dtype=np.float64)
    rounding = np.finfo(np.float64).eps * values
    return np.minimum(np.floor(_bound(values, change, parameters) + rounding), np.iinfo(dtype).max).astype(dtype)
