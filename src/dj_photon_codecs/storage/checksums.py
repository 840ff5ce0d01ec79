"""Which chunk is which: the crc32c of every inner chunk, held by the record.

Every chunk that this package writes ends in its own crc32c. That finds an altered chunk, and takes a whole one for
good wherever it came from: another movie, an older copy, another place of the same movie. So the record holds the
checksum that each chunk has to end in, and reading one compares four bytes: no request, and nothing is hashed.
"""

from __future__ import annotations

import base64
import binascii
import math

import numpy as np
import numpy.typing as npt

from ..errors import FormatError

#: Bytes of one checksum, at the end of a chunk.
CHECKSUM_BYTES = 4

Checksums = npt.NDArray[np.uint32]


def checksum_of(payload: bytes) -> int:
    """The crc32c that an encoded chunk ends in."""
    return int.from_bytes(payload[-CHECKSUM_BYTES:], "little")


def pack_checksums(checksums: Checksums) -> str:
    """Checksums of all chunks, in C order of the chunk grid, as the record has them."""
    return base64.b64encode(checksums.astype("<u4").tobytes()).decode("ascii")


def unpack_checksums(text: str, grid: tuple[int, ...], where: str) -> Checksums:
    """Inverse of :func:`pack_checksums`.

    Parameters
    ----------
    text
        Of the record.
    grid
        Chunks along each axis of the array.
    where
        Named in the error.

    Raises
    ------
    FormatError
        When the text is none, or is that of an array with another number of chunks.
    """
    n_chunks = math.prod(grid)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{where}: the checksums in the record are not base64 ({error}): it was altered") from error
    if len(content) != CHECKSUM_BYTES * n_chunks:
        raise FormatError(
            f"{where}: the record has checksums of {len(content) / CHECKSUM_BYTES:g} chunks, the Zarr metadata "
            f"describes {n_chunks}: one of them was altered, or is another movie's"
        )
    return np.frombuffer(content, "<u4").astype(np.uint32).reshape(grid)
