"""The path of a movie in its store, built from its row's primary key so that every store accepts it."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any
from urllib.parse import quote

from datajoint.storage import encode_pk_value

from .errors import ConfigurationError, FormatError
from .storage.metadata_checks import check_path

#: Longest name in a path that all common file systems allow [bytes].
_NAME_BYTES = 255

#: Longest key on S3, Google and Azure, and longest file path on Linux [bytes].
_KEY_BYTES, _PATH_BYTES = 1024, 4095

#: Bytes below the path of a movie: its longest object key, and the suffix that a file has while it is written.
_BELOW = len("/c/999999/99/99/") + 48

#: Bytes kept of a value that is shortened. DataJoint shortens values of more than 100 characters again.
_SHORTENED = 60


def safe_key(primary_key: dict[str, Any]) -> dict[str, Any]:
    """Return the primary key with values that DataJoint can use as names in any store.

    DataJoint keeps control characters, and counts characters although file systems count bytes. So control characters
    are percent-encoded, and long values are cut and get a hash. Only the path changes; the row keeps its key.
    """
    return {name: _safe(name, value) for name, value in primary_key.items()}


def _safe(name: str, value: Any) -> Any:
    plain = encode_pk_value(value)
    safe = "".join(character if character.isprintable() else quote(character) for character in plain)
    short = len(f"{name}={safe}".encode()) <= _NAME_BYTES
    if safe == plain and short:
        return value
    if len(safe) <= 100 and short:
        return safe
    beginning = re.sub("%.?$", "", safe.encode()[:_SHORTENED].decode(errors="ignore"))
    return f"{beginning}_{hashlib.sha256(str(value).encode()).hexdigest()[:8]}"


def check_new_path(path: str, full: str, *, local: bool) -> None:
    """Refuse a path that the store does not accept, before anything is written there.

    ``path`` is relative to the store and ``full`` includes the store's location; ``local`` means a folder on this
    machine. Raises ConfigurationError for a path that is too long or leads out of the store.
    """
    try:
        check_path(path, "the row")
    except FormatError as error:
        raise ConfigurationError(
            f"the movie would be stored at {path!r:.300}, and no row can refer to such a path: use only folder names "
            "of printable characters in schema_prefix and partition_pattern of the store"
        ) from error
    longest = max(path.split("/"), key=lambda name: len(os.fsencode(name)))
    limit = _PATH_BYTES if local else _KEY_BYTES
    length = len(os.fsencode(full)) + _BELOW
    if len(os.fsencode(longest)) > _NAME_BYTES or length > limit:
        raise ConfigurationError(
            f"the path of the movie would be {path!r:.300}, {length} bytes with the names of its objects, and the "
            f"store allows {limit}, and {_NAME_BYTES} for one name: use a store with a shorter location, or a shorter "
            "primary key"
        )
