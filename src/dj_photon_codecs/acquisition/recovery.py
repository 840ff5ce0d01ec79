"""Recover unfinished movies. Stored data is removed only once the movie has a verified copy of it."""

from __future__ import annotations

from typing import Any

from .._typing import Json
from .._warn import warn
from .._zarr import submit
from ..errors import FormatError, LostFramesWarning
from ..handle import PhotonArray
from ..movies import open_movie
from ..storage.claim import read_claim
from ..storage.documents import JOURNAL, read_documents
from ..storage.journal import KEPT, block_index, read_journal
from ..storage.layout import frames_in_words
from ..storage.location import Location
from ..storage.target import Target
from .remains import Claimed, Remains, journal_of_blocks, refuse_living
from .status import Recovery


def recover_movie(store: Any, *, spilled: Any = None) -> PhotonArray:
    """Finish a movie after its :class:`PhotonWriter` was killed.

    Reads and checks every block in the store. The movie gets the intact blocks, and the frames that were stored or
    spilled before their block was full. Missing and damaged blocks remain as gaps: reading their frames raises an
    error, and ``movie.read_intact()`` masks them. Data is removed from the store only if the movie has a verified copy
    of it. Frames that were only in memory are lost.

    Parameters
    ----------
    store
        The path, URL or store that the writer wrote to.
    spilled
        The ``spill_to`` folder of the writer. Not needed on the machine that the writer ran on.

    Returns
    -------
    PhotonArray
        The movie. A finished movie is only opened.

    Raises
    ------
    FormatError
        If there is no unfinished movie, if it has no intact chunk, or if its writer is still running.
    StorageError
        If the store fails.

    Warns
    -----
    LostFramesWarning
        If frames before the last one are lost; the message lists them.
    """
    location = Location.of(store)
    finished = _finished(location, spilled)
    if finished is not None:
        return finished
    with Claimed(location) as claimed:
        finished = _finished(location, spilled)  # another recovery may have finished it by now
        if finished is not None:
            return finished
        found = Remains(location, spilled)
        movie = found.finish(claimed)
    plan = found.plan()
    if plan.lost:
        n_lost = sum(stop - start for start, stop in plan.lost)
        warn(
            f"{plan.in_seconds(n_lost)} of the movie recovered at {location.label} are lost, in whole or in part: "
            f"{frames_in_words(plan.lost)}. They were not stored, or are damaged: reading them raises an error, and "
            "movie.read_intact() masks them",
            LostFramesWarning,
        )
    return movie


def plan_recovery(store: Any, *, spilled: Any = None) -> Recovery:
    """Report what :func:`recover_movie` would recover, without changing anything.

    Parameters and errors are the same as for :func:`recover_movie`.
    """
    location = Location.of(store)
    finished = _finished(location, spilled)
    if finished is not None:
        return Recovery(location.label, len(finished), finished=True)
    refuse_living(location, submit(read_claim(location)).result())
    return Remains(location, spilled).plan()


def recover_row(store: Any, *, spilled: Any = None) -> Json:
    """Return the row that :meth:`PhotonWriter.for_row` could not insert, ready to be inserted.

    An unfinished movie is recovered first.

    Parameters
    ----------
    store, spilled
        As for :func:`recover_movie`.

    Returns
    -------
    dict
        All attributes of the row. The movie attribute refers to the stored movie, which is not copied.

    Raises
    ------
    FormatError
        If no row is recorded for the movie, and in the cases listed for :func:`recover_movie`.
    StorageError
        If the store fails.
    """
    from ..codec import row_of_ticket

    location = Location.of(store)
    try:
        journal = submit(read_journal(location)).result()
    except FormatError:
        journal = journal_of_blocks(location, submit(Target(location).keys()).result())
    if journal is None or not journal.row:
        raise FormatError(
            f"no row is recorded for the movie at {location.label}: it was not acquired with PhotonWriter.for_row, or "
            "its row was inserted"
        )
    return row_of_ticket(journal.row, recover_movie(location, spilled=spilled))


def _finished(location: Location, spilled: Any) -> PhotonArray | None:
    """Return the movie if it is finished, or None; raise FormatError if there is nothing to recover."""
    try:
        return open_movie(location)
    except FormatError:
        try:
            documents = submit(read_documents(location)).result()
        except FormatError:  # damaged, and rebuilt from the blocks
            documents = {}
        keys = [] if location.is_icechunk else submit(Target(location).keys()).result()
        acquired = [key for key in keys if key == JOURNAL or key.startswith(KEPT) or block_index(key) is not None]
        if "zarr.json" in documents or ".zarray" in documents:
            return open_movie(location)  # another recovery may have finished it meanwhile; if not, this raises again
        if not (acquired or spilled is not None):
            raise
        return None
