"""Compare a stored movie with its original, count by count."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MigrationError
from ..fidelity.blocks import Pair, blocks, keeps_bound
from ..handle import PhotonArray
from ..sources import as_source


def check_copy(original: Any, movie: PhotonArray) -> None:
    """Read both movies in blocks of frames; raise MigrationError unless every count is within the bound.

    A movie that was stored without loss must be equal. Errors while reading either movie are passed on.
    """
    raw = as_source(original)
    if (raw.shape, raw.dtype) != (movie.shape, movie.dtype):
        raise MigrationError(
            f"the stored movie is {movie.dtype} of shape {movie.shape}, and the original {raw.dtype} of shape "
            f"{raw.shape}"
        )
    if not movie.step:
        for start, counts in blocks(raw):
            if not np.array_equal(counts, movie[start : start + len(counts)]):
                raise _differs(start, len(counts), "differ from the original, although they were stored without loss")
        return
    pair = Pair.of(raw, movie, None, None)
    for start, counts, stored in pair:
        if not keeps_bound(counts, stored, pair.codec_sigma(np.maximum(counts, stored)), pair.step):
            raise _differs(
                start, len(counts), "differ from the original by more than half a step of noise and half a count"
            )


def _differs(start: int, length: int, how: str) -> MigrationError:
    return MigrationError(f"counts of frames {start} to {start + length - 1} {how}")
