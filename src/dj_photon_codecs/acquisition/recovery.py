"""Finishing a movie whose writer did not live to do so."""

from __future__ import annotations

from typing import Any

from .._zarr import submit
from ..errors import FormatError
from ..handle import PhotonArray, open_array
from ..movies import open_movie
from ..storage.design import finished_documents
from ..storage.journal import read_journal, recover_blocks, remove_journal
from ..storage.location import Location
from ..storage.target import Target
from ..storage.writer import put_documents


def recover_movie(store: Any) -> PhotonArray:
    """Finish a movie whose :class:`PhotonWriter` did not live to finish it.

    Reads and checks what is in the store, from the first frame on, as far as it goes without a gap; what lies
    beyond is removed. Frames of a block that was not full, and those that waited to be written, are lost.

    Parameters
    ----------
    store
        Where the writer wrote to.

    Returns
    -------
    PhotonArray
        The movie; a movie that was finished is only opened.

    Raises
    ------
    FormatError
        When there is no unfinished movie, or not one full block of it is there.
    StorageError
        When the store fails.
    """
    location = Location.of(store)
    target = Target(location)
    journal = submit(read_journal(location)).result()
    if journal is None:
        return open_movie(location)
    metadata, record = journal
    frames_per_block, written = submit(recover_blocks(target, metadata)).result()
    if not written:
        raise FormatError(
            f"the unfinished movie at {location.label} has no full block of frames: nothing can be recovered; "
            "remove the folder, or have DataJoint's garbage collector do so"
        )
    documents = finished_documents(metadata, record, frames_per_block * len(written), written)
    put_documents(target, documents)
    submit(remove_journal(target)).result()
    return open_array(location, documents)
