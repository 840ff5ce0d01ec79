"""Checksums and digest of a stored movie, computed a second time from ``docs/spec/layout.md`` alone.

Nothing of the package and nothing of zarr: folders, JSON and the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EMPTY = 2**64 - 1


def checksums(folder: Path) -> str:
    """The last four bytes of every chunk, in C order of the grid of inner chunks."""
    return base64.b64encode(b"".join(content[-4:] for _, content in chunks(folder))).decode()


def chunks(folder: Path) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Where each inner chunk begins in the array, and its bytes, in C order."""
    if (folder / "zarr.json").exists():
        document = json.loads((folder / "zarr.json").read_text())
        shard = document["chunk_grid"]["configuration"]["chunk_shape"]
        chunk = document["codecs"][0]["configuration"]["chunk_shape"]
    else:
        document = json.loads((folder / ".zarray").read_text())
        shard = chunk = document["chunks"]
    places = [s // c for s, c in zip(shard, chunk, strict=True)]
    grid = [math.ceil(n / c) for n, c in zip(document["shape"], chunk, strict=True)]
    for coords in itertools.product(*(range(n) for n in grid)):
        stored = [i // n for i, n in zip(coords, places, strict=True)]
        if shard == chunk and (folder / ".zarray").exists():
            content = (folder / ".".join(str(i) for i in stored)).read_bytes()
        else:
            content = _chunk_of_shard((folder / "c").joinpath(*map(str, stored)).read_bytes(), coords, places)
        yield tuple(i * c for i, c in zip(coords, chunk, strict=True)), content


def _chunk_of_shard(content: bytes, coords: tuple[int, ...], places: list[int]) -> bytes:
    index = content[-16 * math.prod(places) - 4 : -4]
    place = 0
    for i, n in zip(coords, places, strict=True):
        place = place * n + i % n
    offset, length = struct.unpack_from("<QQ", index, 16 * place)
    assert EMPTY not in (offset, length)
    return content[offset : offset + length]


RECORD = {
    *("format_version", "profile", "step", "dithered", "calibration", "original_bytes", "stored_bytes", "versions"),
    *("checksums", "checksums_digest", "reason", "rounded", "lost", "acquisition"),
}

CALIBRATION = {
    *("conversion_gain", "zero_level", "verdict", "reason", "method", "gain_error", "curve", "under_root"),
    *("saturation", "storage_gain", "storage_zero_level", "region_spread", "time_spread", "correlation", "added_noise"),
}


def digest(row: dict[str, Any]) -> str:
    """Of a row: its record and its documents."""
    record = {key: row[key] for key in RECORD & set(row)}
    if "checksums_digest" in record:
        record.pop("checksums", None)
    record["calibration"] = {key: row["calibration"][key] for key in CALIBRATION}
    text = _text([record, row["zarr"]])
    return hashlib.blake2b(text.encode("ascii"), digest_size=8).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(key)}:{_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return f'"{struct.pack(">d", 0.0 if value == 0 else value).hex()}"'
    assert value.isascii()
    return json.dumps(value)
