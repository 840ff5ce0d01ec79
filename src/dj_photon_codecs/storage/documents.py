"""Metadata documents: reading, sealing with a digest, and comparing with the row.

The digest is part of the record, and covers the rest of the record and the Zarr metadata. A handle can therefore tell
without a request whether its metadata is what was written.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from .._typing import Json
from .._zarr import RangeByteRequest, default_buffer_prototype
from ..errors import FormatError, StorageError
from .checksums import digest_of
from .location import Location
from .metadata_checks import check_nesting
from .record import ATTRIBUTE, MovieRecord, without_record

#: The documents of an array by Zarr format; the first one makes it an array.
DOCUMENTS = {3: ("zarr.json",), 2: (".zarray", ".zattrs")}

DOCUMENT_KEYS = frozenset(chain(*DOCUMENTS.values()))

#: Key of the journal of a movie that is being acquired (:mod:`.journal`).
JOURNAL = "acquisition.json"

_DIGEST_BYTES = 8


def sealed(record: MovieRecord, documents: dict[str, Json]) -> MovieRecord:
    """Return the record with a digest of itself and the Zarr metadata."""
    return replace(record, digest=_digest(record, documents))


def is_as_written(record: MovieRecord | None, documents: dict[str, Json]) -> bool:
    """Whether record and Zarr metadata match the digests written with them; true if there are none."""
    if record is None or record.digest is None:
        return True
    if None not in (record.checksums, record.checksums_digest):
        assert record.checksums is not None
        if digest_of(record.checksums) != record.checksums_digest:
            return False
    return record.digest == _digest(record, documents)


async def with_checksums(location: Location, record: MovieRecord | None) -> MovieRecord | None:
    """Return the record with the checksums of its chunks; those of a long movie are read from the store.

    Raises FormatError if the store has none or different ones, and StorageError if it cannot be reached.
    """
    if record is None or record.checksums is not None or record.checksums_digest is None:
        return record
    documents = await read_documents(location)
    attributes = documents.get("zarr.json", {}).get("attributes", documents.get(".zattrs", {}))
    found = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    packed = found.get("checksums") if isinstance(found, dict) else None
    if not isinstance(packed, str) or digest_of(packed) != record.checksums_digest:
        raise FormatError(
            f"the metadata document of {location.label} lacks the checksums of the movie's chunks, or has others than "
            "were written: no count is read without them. Restore the document from a copy"
        )
    return replace(record, checksums=packed)


def _digest(record: MovieRecord, documents: dict[str, Json]) -> str:
    parts = [replace(record.for_row(), digest=None).to_dict(), without_record(documents)]
    check_nesting({"the record": parts[0], **parts[1]}, "the movie")
    content = [_canonical(part) for part in parts]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=_DIGEST_BYTES).hexdigest()


def _canonical(value: Any) -> Any:
    """Replace every number by the bits of its double, because databases write 100.0 as 100, and 1e16 in full."""
    if isinstance(value, dict):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return struct.pack(">d", float(value) + 0.0).hex()  # + 0.0 turns -0.0 into 0.0
        except OverflowError:  # an integer too large for a double; no movie has one
            return "beyond"
    return value


async def read_object(location: Location, key: str, stop: int | None = None) -> bytes | None:
    """Read a small object, or its first ``stop`` bytes; None if it does not exist.

    Raises StorageError if the store cannot be reached.
    """
    with location.errors_named(f"object {key!r} of {location.label} cannot be read"):
        store, path = location.open(read_only=True), location.prefix + key
        try:
            if stop is not None:
                with suppress(Exception):  # any type: a store without ranges, or an empty object
                    buffer = await store.get(path, default_buffer_prototype(), RangeByteRequest(0, stop))
                    return None if buffer is None else buffer.to_bytes()[:stop]
            buffer = await store.get(path, default_buffer_prototype())
        except (FileNotFoundError, NotADirectoryError):  # the folder itself is missing
            return None
    return None if buffer is None else buffer.to_bytes()[:stop]


async def read_documents(location: Location) -> dict[str, Json]:
    """Read the metadata documents in the store, by key: those of Zarr 3, else those of Zarr 2, else an empty dict.

    Raises FormatError if a document is not a JSON object, and StorageError if the store cannot be reached.
    """
    for keys in DOCUMENTS.values():
        contents = {key: await read_object(location, key) for key in keys}
        if any(text is not None for text in contents.values()):
            return {key: _parsed(text, key, location) for key, text in contents.items() if text is not None}
    return {}


def _parsed(text: bytes, key: str, location: Location) -> Json:
    """Parse a document as a JSON object."""
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
    """Describe what is wrong with a handle's metadata, and list both sides of each difference from the store.

    Raises StorageError if the store cannot be reached.
    """
    problems = []
    if not is_as_written(record, documents):
        problems.append("the metadata that this handle was made from was altered after it was written")
    try:
        found = await read_documents(location)
    except FormatError as error:
        return (*problems, str(error))
    stored_elsewhere = record is not None and record.checksums is None and record.checksums_digest is not None
    for key, document in documents.items():
        if key not in found:
            problems.append(f"metadata document {key!r} of {location.label} is missing")
        else:
            problems += (
                f"{key}: {path or 'it'} is {ours} in this handle, and {theirs} in the store at {location.label}"
                for path, ours, theirs in _differences(_compared(document, key), _compared(found[key], key))
                if not (stored_elsewhere and path.endswith(f"{ATTRIBUTE}.checksums"))
            )
    return tuple(problems)


async def refuse_altered(location: Location, record: MovieRecord | None, documents: dict[str, Json]) -> None:
    """Raise FormatError if a handle's metadata is not what was written. The store is read only then, to compare."""
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
    """Return the part of a document that this package wrote; users may add other attributes."""
    if key == ".zattrs":
        return {ATTRIBUTE: document.get(ATTRIBUTE)}
    attributes = document.get("attributes")
    if isinstance(attributes, dict):
        return {**document, "attributes": {ATTRIBUTE: attributes.get(ATTRIBUTE)}}
    return document


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the path and both values of each difference between two JSON values."""
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
    """Return a JSON value as text, shortened to fit a message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
