"""Metadata documents: read from the store, sealed by a digest, and compared with what a row says of them.

The digest lies in the record, and covers the rest of the record and the Zarr metadata: what a handle is made from
is known for what was written, or not, without a request to the store.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .._typing import Json
from .._zarr import default_buffer_prototype
from ..errors import FormatError, StorageError
from .location import Location
from .record import ATTRIBUTE, MovieRecord, without_record

#: The documents of an array by Zarr format; the first is the one that makes it an array.
DOCUMENTS = {3: ("zarr.json",), 2: (".zarray", ".zattrs")}

_DIGEST_BYTES = 8


def sealed(record: MovieRecord, documents: dict[str, Json]) -> MovieRecord:
    """The record with the digest of itself and of the Zarr metadata."""
    return replace(record, digest=_digest(record, documents))


def is_as_written(record: MovieRecord | None, documents: dict[str, Json]) -> bool:
    """Whether record and Zarr metadata have the digest that they were written with; true where none was."""
    return record is None or record.digest is None or record.digest == _digest(record, documents)


def _digest(record: MovieRecord, documents: dict[str, Json]) -> str:
    try:
        content = [_canonical(replace(record, digest=None).to_dict()), _canonical(without_record(documents))]
    except RecursionError:
        raise FormatError(
            "the metadata of the movie is nested deeper than any that was written: it was made up"
        ) from None
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=_DIGEST_BYTES).hexdigest()


def _canonical(value: Any) -> Any:
    """JSON values with the bits of a double for every number: databases write 100.0 as 100, and 1e16 in full."""
    if isinstance(value, dict):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return struct.pack(">d", float(value) + 0.0).hex()  # and no negative zero
        except OverflowError:  # an integer beyond the doubles, which is in no movie
            return "beyond"
    return value


async def read_object(location: Location, key: str) -> bytes | None:
    """The content of a small object; None where it is not there.

    Raises
    ------
    StorageError
        When the store cannot be reached.
    """
    with location.errors_named(f"object {key!r} of {location.label} cannot be read"):
        try:
            buffer = await location.open(read_only=True).get(key, default_buffer_prototype())
        except (FileNotFoundError, NotADirectoryError):  # the folder itself is not there
            return None
    return None if buffer is None else buffer.to_bytes()


async def read_documents(location: Location) -> dict[str, Json]:
    """The metadata documents that are in the store, by key; those of Zarr 3 first, and empty when there are none.

    Raises
    ------
    FormatError
        When a document is there, but is not a JSON object.
    StorageError
        When the store cannot be reached.
    """
    for keys in DOCUMENTS.values():
        contents = {key: await read_object(location, key) for key in keys}
        if any(text is not None for text in contents.values()):
            return {key: _parsed(text, key, location) for key, text in contents.items() if text is not None}
    return {}


def _parsed(text: bytes, key: str, location: Location) -> Json:
    """The JSON object of a document."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        problem = f"{len(text)} bytes that are no JSON ({type(error).__name__}: {error})"
    else:
        if isinstance(document, dict):
            return document
        problem = f"a JSON {type(document).__name__}, not an object"
    raise FormatError(
        f"metadata document {key!r} of {location.label} is damaged: it holds {problem}. Restore it from a copy; a "
        "handle fetched from the database reads without it, and has its content in .documents"
    )


async def document_problems(
    location: Location, record: MovieRecord | None, documents: dict[str, Json]
) -> tuple[str, ...]:
    """What is wrong with the metadata of a handle, and where it differs from that in the store: both sides of each.

    Parameters
    ----------
    location, record, documents
        Of the handle.

    Raises
    ------
    StorageError
        When the store cannot be reached.
    """
    problems = []
    if not is_as_written(record, documents):
        problems.append("the metadata that this handle was made from was altered after it was written")
    try:
        found = await read_documents(location)
    except FormatError as error:
        return (*problems, str(error))
    for key in documents:
        if key not in found:
            problems.append(f"metadata document {key!r} of {location.label} is missing")
        else:
            problems += (
                f"{key}: {path or 'it'} is {ours} in this handle, and {theirs} in the store at {location.label}"
                for path, ours, theirs in _differences(_compared(documents[key], key), _compared(found[key], key))
            )
    return tuple(problems)


async def refuse_altered(location: Location, record: MovieRecord | None, documents: dict[str, Json]) -> None:
    """Raise where a handle's metadata is not what was written; asks the store for its side only then.

    Raises
    ------
    FormatError
        With both sides.
    """
    if is_as_written(record, documents):
        return
    try:
        problems = await document_problems(location, record, documents)
    except StorageError as error:
        problems = (f"the store's own copy of it cannot be read for comparison: {error}",)
    raise FormatError(
        f"the metadata of the movie at {location.label} (its row, or the document it was opened by) is not what was "
        f"written, and no count is read by it: {'; '.join(problems)}. Restore the row, or the document, from a copy"
    )


def _compared(document: Json, key: str) -> Any:
    """Of a document, what this package wrote: users may add attributes of their own."""
    if key == ".zattrs":
        return {ATTRIBUTE: document.get(ATTRIBUTE)}
    attributes = document.get("attributes")
    if isinstance(attributes, dict):
        return {**document, "attributes": {ATTRIBUTE: attributes.get(ATTRIBUTE)}}
    return document


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two JSON values differ: the path, and what stands there on either side."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted({*ours, *theirs}, key=str):
            inner = f"{path}.{name}" if path else str(name)
            if name not in theirs:
                yield inner, _shown(ours[name]), "absent"
            elif name not in ours:
                yield inner, "absent", _shown(theirs[name])
            else:
                yield from _differences(ours[name], theirs[name], inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif _canonical(ours) != _canonical(theirs):
        yield path, _shown(ours), _shown(theirs)


def _shown(value: Any) -> str:
    """A JSON value, shortened to what fits a message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
