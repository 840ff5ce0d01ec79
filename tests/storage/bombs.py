"""Chunks that decompress to 256 MiB, and movies that hold one; run as a script, it reads them and counts its memory.

python tests/storage/bombs.py FOLDER
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from dj_photon_codecs import PhotonCodecError, open_movie, write_movie

SIZE = 1 << 28


def zstd_bomb(size: int, *, declared: bool) -> bytes:
    """A frame of run-length blocks of 128 KiB, 4 bytes each (RFC 8878)."""
    header = bytes.fromhex("28b52ffd") + (b"\xe0" + size.to_bytes(8, "little") if declared else b"\x00\x70")
    blocks = size >> 17
    return header + b"".join(
        (1 << 20 | 1 << 1 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks)
    )


def zstd_raw(content: bytes) -> bytes:
    """A frame of one block as it is, that does not say its size."""
    return bytes.fromhex("28b52ffd0070") + (len(content) << 3 | 1).to_bytes(3, "little") + content


def zlib_bomb(size: int, wbits: int = 15) -> bytes:
    stream = zlib.compressobj(1, wbits=wbits)
    block = bytes(1 << 22)
    return b"".join([*(stream.compress(block) for _ in range(size >> 22)), stream.flush()])


def gzip_bomb(size: int) -> bytes:
    """One member."""
    return zlib_bomb(size, 31)


def repeated(compress: Callable[[bytes], bytes]) -> bytes:
    """Many streams in a row, of 64 MiB each."""
    return compress(bytes(1 << 26)) * (SIZE >> 26)


@dataclass(frozen=True)
class Bomb:
    """How it is read, and what is in it."""

    options: dict[str, Any]
    payload: Callable[[], bytes] = field(repr=False)


def _v2(codec: Any) -> dict[str, Any]:
    return {"zarr_format": 2, "compressors": codec}


BLOSC_HEADER = b"\x02\x01\x21\x01" + SIZE.to_bytes(4, "little") + (1 << 18).to_bytes(4, "little")

BOMBS: dict[str, Bomb] = {
    "zstd": Bomb({"compressors": ZstdCodec(level=1)}, lambda: zstd_bomb(SIZE, declared=True)),
    "zstd-undeclared": Bomb({"compressors": ZstdCodec(level=1)}, lambda: zstd_bomb(SIZE, declared=False)),
    "blosc": Bomb(
        {"compressors": BloscCodec(typesize=1)}, lambda: BLOSC_HEADER + (16 + 200).to_bytes(4, "little") + bytes(200)
    ),
    "gzip": Bomb({"compressors": GzipCodec(level=1)}, cache(lambda: gzip_bomb(SIZE))),
    "gzip-members": Bomb({"compressors": GzipCodec(level=1)}, lambda: repeated(lambda b: gzip.compress(b, 1))),
    "gzip-in-gzip": Bomb(
        {"compressors": [GzipCodec(level=1), GzipCodec(level=1)]}, lambda: gzip.compress(gzip_bomb(SIZE))
    ),
    "v2-zstd": Bomb(_v2(numcodecs.Zstd(1)), lambda: zstd_bomb(SIZE, declared=True)),
    "v2-zstd-undeclared": Bomb(_v2(numcodecs.Zstd(1)), lambda: zstd_bomb(SIZE, declared=False)),
    "v2-lz4": Bomb(_v2(numcodecs.LZ4()), lambda: SIZE.to_bytes(4, "little") + bytes(200)),
    "v2-zlib": Bomb(_v2(numcodecs.Zlib(1)), lambda: zlib_bomb(SIZE)),
    "v2-gzip": Bomb(_v2(numcodecs.GZip(1)), lambda: gzip_bomb(SIZE)),
    "v2-bz2": Bomb(_v2(numcodecs.BZ2(1)), lambda: repeated(lambda b: bz2.compress(b, 1))),
    "v2-lzma": Bomb(_v2(numcodecs.LZMA(preset=0)), lambda: repeated(lambda b: lzma.compress(b, preset=0))),
}


def plant(folder: Path, bomb: Bomb) -> None:
    """A movie whose one chunk is the bomb, its checksum right, and without what would tell it from the one written."""
    counts = np.arange(8 * 16 * 24, dtype=np.uint16).reshape(8, 16, 24)
    write_movie(folder, counts, profile="lossless", **bomb.options)
    replace_chunk(folder, bomb.payload())


def replace_chunk(folder: Path, payload: bytes) -> None:
    """Other bytes in place of the one chunk of a movie."""
    payload += int(google_crc32c.value(payload)).to_bytes(4, "little")
    name = "zarr.json" if (folder / "zarr.json").exists() else ".zattrs"
    document = json.loads((folder / name).read_text())
    record = (document["attributes"] if name == "zarr.json" else document)["dj_photon"]
    record.pop("checksums", None)
    record.pop("digest", None)
    (folder / name).write_text(json.dumps(document))
    if name == ".zattrs":
        (folder / "0.0.0").write_bytes(payload)
        return
    index = np.array([0, len(payload)], "<u8").tobytes()
    index += int(google_crc32c.value(index)).to_bytes(4, "little")
    (folder / "c" / "0" / "0" / "0").write_bytes(payload + index)


def main(folder: Path) -> None:
    """Read every movie in a folder; print the error of each, and the memory that all of it took."""
    if sys.platform == "win32":
        raise NotImplementedError("the resource module is POSIX only")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    errors: dict[str, str] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in sorted(folder.iterdir()):
        for selection in (0, slice(None)):
            try:
                open_movie(path)[selection]
            except PhotonCodecError as error:
                errors[path.name] = f"{type(error).__name__}: {error}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"errors": errors, "grown_bytes": grown * unit}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
