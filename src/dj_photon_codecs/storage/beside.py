"""Frame data and user attributes: stored beside the counts of a movie, and copied with it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field

from .._typing import Json
from .._warn import warn
from .._zarr import buffer_of, submit
from ..errors import AcquisitionWarning, FormatError
from .documents import read_documents, read_object
from .journal import FRAME_DATA
from .location import Location
from .record import ATTRIBUTE
from .target import Target


@dataclass(frozen=True)
class Beside:
    """The content of ``frames.npz`` (None if there is none) and the user's attributes."""

    frame_data: bytes | None = None
    attributes: Json = field(default_factory=dict)


async def read_beside(location: Location) -> Beside:
    """Read frame data and attributes of a stored movie; raises StorageError if the store cannot be read."""
    attributes: Json = {}
    with suppress(FormatError, TypeError, ValueError):  # damaged documents: a movie opened from its row needs none
        documents = await read_documents(location)
        attributes = dict(documents.get("zarr.json", {}).get("attributes", documents.get(".zattrs", {})))
    ours = {ATTRIBUTE, "_ARRAY_DIMENSIONS"}
    attributes = {name: value for name, value in attributes.items() if name not in ours}
    return Beside(None if location.is_icechunk else await read_object(location, FRAME_DATA), attributes)


def put_beside(target: Target, documents: dict[str, Json], beside: Beside) -> dict[str, Json]:
    """Write the frame data of a movie, and return its documents with the attributes added.

    Attribute values that JSON cannot represent become strings. Warns (AcquisitionWarning) on icechunk, which stores
    only arrays.
    """
    if beside.frame_data is not None and target.location.is_icechunk:
        warn(
            f"the frame data (numbers, times, arrays) is not stored at {target.location.label}: icechunk accepts only "
            "arrays. read_frame_data(movie) returns it for the original",
            AcquisitionWarning,
        )
    elif beside.frame_data is not None:
        submit(target.put(FRAME_DATA, buffer_of(beside.frame_data))).result()
    if not beside.attributes:
        return documents
    key = "zarr.json" if "zarr.json" in documents else ".zattrs"
    said = json.loads(json.dumps(beside.attributes, default=str))
    if key == ".zattrs":
        return {**documents, key: {**said, **documents.get(key, {})}}
    return {key: {**documents[key], "attributes": {**said, **documents[key].get("attributes", {})}}}
