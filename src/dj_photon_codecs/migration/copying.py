"""Copy one movie: write it, compare it with its original, and only then let its row refer to it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from .._typing import Json
from .._warn import collected_warnings
from ..codec import movie_place
from ..errors import MigrationError
from ..fidelity.blocks import Pair, blocks, keeps_bound
from ..handle import PhotonArray
from ..movies import write_to
from ..sources import as_source
from ..storage.stores import mark_store
from ..storage.target import remove_written
from .columns import Column
from .ledger import DONE, Ledger
from .originals import Originals


def copy_movie(originals: Originals, target: Column, ledger: Ledger, key: Json, token: str) -> None:
    """Copy the movie of a row, and close its claim in the transaction that makes the row refer to the copy.

    If the row has a movie already, that is compared with the original, and never replaced. Until the row refers to the
    copy, an error removes the copy again.
    """
    cell = originals.column.cell(key)
    if cell is None:
        raise MigrationError(f"{originals.column} of {key} became NULL, or the row was deleted")
    told: deque[tuple[str, type[Warning]]] = deque()
    with collected_warnings(told), originals.opened(cell) as original:
        present = target.cell(key)
        if present is not None:
            _close(ledger, token, _adopted(original, target, key, present), "the movie was there already")
            return
        place = movie_place(target.table, target.name, key)
        movie = write_to(lambda: place.location, original, place.options)
        referred = False
        try:
            mark_store(movie._location)
            check_copy(original, movie)
            remarks = "; ".join(dict.fromkeys(text for text, _ in told))
            # Lock the target before the ledger, as a worker that inserts a claim does, to avoid a deadlock.
            with target.locked(key) as present:
                if present is not None:
                    raise MigrationError(f"{target} of {key} was filled by someone else while its movie was copied")
                _close(ledger, token, movie, remarks)
                target.put(key, place.value(movie))
                referred = True  # if COMMIT itself fails, the row may be there
        except BaseException as error:
            if not referred:
                _remove(movie, error)
            raise


def _adopted(original: Any, target: Column, key: Json, present: Any) -> PhotonArray:
    """Take the movie that a row has already as the copy, if it is one."""
    movie: PhotonArray = target.movie(present)
    try:
        check_copy(original, movie)
    except MigrationError as error:
        raise MigrationError(f"{target} of {key} holds a movie already, which is left as it is: {error}") from error
    return movie


def _close(ledger: Ledger, token: str, movie: PhotonArray, remarks: str) -> None:
    record = movie.record
    assert record is not None  # a stored movie has one
    sizes = {"original_bytes": record.original_bytes, "stored_bytes": record.stored_bytes}
    ledger.close(token, DONE, remarks, **sizes, verdict=record.calibration.verdict, profile=record.profile)


def _remove(movie: PhotonArray, error: BaseException) -> None:
    """Remove a movie that nothing refers to; a note on the error says what remains."""
    try:
        remove_written(movie._location)
    except Exception as failure:  # of any store
        error.add_note(f"the copy could not be removed, and is left for the garbage collector: {failure}")


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
