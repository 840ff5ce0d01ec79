"""Coverage-guided fuzzing of the parsers and decoders, by hand; atheris is no dependency of this project.

    python tests/storage/fuzz_atheris.py DOOR [CORPUS FOLDER] -max_total_time=600 -rss_limit_mb=1500

What it finds goes into ``tests/storage/test_crafted.py`` as a case of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["dj_photon_codecs"]):
    from dj_photon_codecs import Calibration, PhotonCodecError, open_movie
    from dj_photon_codecs._zarr.bounds import _zstd_size
    from dj_photon_codecs.entropy.coder import decode
    from dj_photon_codecs.storage.documents import _digest, _parsed
    from dj_photon_codecs.storage.location import Location
    from dj_photon_codecs.storage.metadata_checks import check_path
    from dj_photon_codecs.storage.record import MovieRecord

from test_crafted_fuzz import MOVIES, objects_of, store_of, unsealed, use, with_first_chunk


def rans(content: bytes) -> None:
    for dtype in ("uint8", "int16"):
        decode(content, (4, 32, 32), np.dtype(dtype))


def record(content: bytes) -> None:
    document = _parsed(content, "zarr.json", Location.of("here"))
    Calibration.from_dict(document.get("calibration", {}))
    found = MovieRecord.from_dict(document, "here")
    _digest(found, {"zarr.json": document})


def path(content: bytes) -> None:
    check_path(content.decode("utf-8", "replace"), "here")


def zstd_header(content: bytes) -> None:
    assert _zstd_size(memoryview(content)) >= 0


def document(content: bytes) -> None:
    use(open_movie(store_of({**unsealed(objects_of("standard")), "zarr.json": content})))


def document_v2(content: bytes) -> None:
    use(open_movie(store_of({**unsealed(objects_of("V2")), ".zarray": content})))


def chunk(name: str) -> Callable[[bytes], None]:
    return lambda content: use(open_movie(store_of(with_first_chunk(name, lambda _: content))))


DOORS: dict[str, Callable[[bytes], None]] = {
    "rans": rans,
    "record": record,
    "path": path,
    "document": document,
    "document-v2": document_v2,
    "zstd-header": zstd_header,
    **{f"chunk-{name}": chunk(name) for name in MOVIES},
}


def seeds(door: str) -> list[bytes]:
    """What is right, to begin from."""
    if door.startswith("chunk-"):
        taken: list[bytes] = []

        def keep(content: bytes) -> bytes:
            taken.append(content)
            return content

        with_first_chunk(door.removeprefix("chunk-"), keep)
        return taken
    if door == "rans":
        return seeds("chunk-dense")
    if door == "record":
        return [json.dumps(json.loads(objects_of("standard")["zarr.json"])["attributes"]["dj_photon"]).encode()]
    if door == "document":
        return [unsealed(objects_of(name))["zarr.json"] for name in ("standard", "dense")]
    if door == "document-v2":
        return [objects_of("V2")[".zarray"]]
    return seeds("chunk-zstd")


def main() -> None:
    door = sys.argv.pop(1)
    enter = DOORS[door]

    def one(content: bytes) -> None:
        with suppress(PhotonCodecError):
            enter(content)

    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        folder = Path(sys.argv[1])
        folder.mkdir(exist_ok=True)
        for index, content in enumerate(seeds(door)):
            (folder / f"seed-{index}").write_bytes(content)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
