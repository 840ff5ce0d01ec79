"""Copy one movie: write it, compare it with its original, and only then let its row refer to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .._typing import Json
from .._warn import collected_warnings
from ..codec import movie_place
from ..errors import MigrationError
from ..handle import PhotonArray
from ..movies import write_to
from ..storage.stores import mark_store
from ..storage.target import remove_written
from .columns import Column
from .compare import check_copy
from .originals import Originals

#: Closes the claim of a movie, given what the ledger keeps of it.
Close = Callable[[Json], None]


def copy_movie(originals: Originals, target: Column, key: Json, close: Close) -> None:
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
            _adopt(original, target, key, present, close)
            return
        place = movie_place(target.table, target.name, key)
        movie = write_to(lambda: place.location, original, place.options)
        referred = False
        try:
            mark_store(movie._location)
            check_copy(original, movie)
            remarks = "; ".join(dict.fromkeys(text for text, _ in told))
            # The target is locked before the ledger, as by a worker that inserts a claim: no deadlock.
            with target.locked(key) as present:
                if present is not None:
                    raise MigrationError(f"{target} of {key} was filled by someone else while its movie was copied")
                close(_facts(movie, remarks))
                target.put(key, place.value(movie))
                referred = True  # if COMMIT itself fails, the row may be there
        except BaseException as error:
            if not referred:
                _remove(movie, error)
            raise


def _adopt(original: Any, target: Column, key: Json, present: Any, close: Close) -> None:
    """Take the movie that a row has already as the copy, if it is one."""
    movie = target.movie(present)
    try:
        check_copy(original, movie)
    except MigrationError as error:
        raise MigrationError(f"{target} of {key} holds a movie already, which is left as it is: {error}") from error
    close(_facts(movie, "the movie was there already"))


def _facts(movie: PhotonArray, remarks: str) -> Json:
    record = movie.record
    assert record is not None  # a stored movie has one
    sizes = {"original_bytes": record.original_bytes, "stored_bytes": record.stored_bytes}
    return {**sizes, "verdict": record.calibration.verdict, "profile": record.profile, "remarks": remarks}


def _remove(movie: PhotonArray, error: BaseException) -> None:
    """Remove a movie that nothing refers to; a note on the error says what remains."""
    try:
        remove_written(movie._location)
    except Exception as failure:  # of any store
        error.add_note(f"the copy could not be removed, and is left for the garbage collector: {failure}")
