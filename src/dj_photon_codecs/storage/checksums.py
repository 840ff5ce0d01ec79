"""The crc32c of every inner chunk, kept in the record to identify chunks.

Every chunk that this package writes ends in its own crc32c. That detects an altered chunk, but not an intact chunk in
the wrong place: one from another movie, an older copy, or elsewhere in the same movie. So the record also holds the
checksum that each chunk must end in. A read compares only these four bytes: no extra request, no hashing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math

import numpy as np
import numpy.typing as npt

from ..errors import FormatError

#: Size of the checksum at the end of a chunk [bytes].
CHECKSUM_BYTES = 4

#: Longest packed checksums kept in a database row [characters]: 9,000 chunks, more than an hour of 512 x 512 at 30 Hz.
#: Longer movies keep theirs in the metadata document in the store.
ROW_LIMIT = 48_000

Checksums = npt.NDArray[np.uint32]


def checksum_of(payload: bytes) -> int:
    """Return the crc32c at the end of an encoded chunk."""
    return int.from_bytes(payload[-CHECKSUM_BYTES:], "little")


def pack_checksums(checksums: Checksums) -> str:
    """Encode the checksums of all chunks for the record: base64 of little-endian uint32, in C order of the grid."""
    return base64.b64encode(checksums.astype("<u4").tobytes()).decode("ascii")


def digest_of(packed: str) -> str:
    """Return the 8-byte BLAKE2b digest of packed checksums."""
    return hashlib.blake2b(packed.encode("ascii"), digest_size=8).hexdigest()


def unpack_checksums(text: str, grid: tuple[int, ...], where: str) -> Checksums:
    """Decode packed checksums into an array of shape ``grid`` (chunks along each axis).

    Raises FormatError, naming ``where``, if the text is not base64 or has the wrong number of chunks.
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
