"""Which files a path stands for, and of which kind they are by their content."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from ..errors import SourceError, SourceNotFoundError

#: How files of each kind begin: the bytes, and where they stand.
_SIGNATURES = {
    "TIFF": [(0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")],
    "HDF5": [(offset, b"\x89HDF\r\n\x1a\n") for offset in (0, 512, 1024, 2048)],  # behind a header of MATLAB's
    "NPY": [(0, b"\x93NUMPY")],
    "video": [(8, b"AVI "), (0, b"\x1aE\xdf\xa3"), (4, b"ftyp")],
}
_HEAD = 2056
_KINDS = "TIFF, HDF5, NWB, Zarr, NPY, Suite2p's binary, AVI, MKV and MP4"

#: What Suite2p calls its binaries: before registration and after it, of the first channel and the second.
_SUITE2P = ("data_raw.bin", "data.bin", "data_chan2_raw.bin", "data_chan2.bin")


@dataclass(frozen=True)
class Found:
    """The files of one recording, in their order, and their kind."""

    kind: str
    names: list[str]


def find(path: str, *, headerless: bool) -> Found:
    """What a path, a glob or a URL stands for.

    Parameters
    ----------
    path
        Absolute, or a URL.
    headerless
        Whether the caller knows the files for binaries without a header.

    Raises
    ------
    SourceNotFoundError
        When there is nothing.
    SourceError
        For files of no known kind, or of several.
    """
    if "://" in path:
        if path.startswith("file://"):
            return find(url2pathname(urlsplit(path).path), headerless=headerless)
        return Found("Zarr", [path])
    if os.path.isdir(path):
        found = _special_folder(Path(path))
        if found is not None:
            return found
        names = [str(entry) for entry in Path(path).iterdir() if entry.is_file() and not entry.name.startswith(".")]
        if headerless:
            return _together("headerless", path, names)
        kinds = {name: _kind_of_file(name) for name in names}
        names = [name for name in names if kinds[name] is not None]
    elif os.path.exists(path):
        names = [path]
    else:
        names = glob.glob(path, recursive=True)
        if not names:
            raise SourceNotFoundError(
                f"a photon movie must be an array, got str {path!r}, and there is no file or folder of that name"
            )
        if len(names) == 1:
            return find(names[0], headerless=headerless)
        if any(os.path.isdir(name) for name in names):
            raise SourceError(f"{path} stands for folders: {_listed(names)}; open one of them, or name the files in it")
    if headerless:
        return _together("headerless", path, names)
    kinds = {name: _kind_of_file(name) for name in names}
    for name, kind in kinds.items():
        if kind is None:
            size = os.path.getsize(name)
            raise SourceError(
                f"{name} ({size} bytes) is of no kind that is read here: {_KINDS}. A binary without a header opens "
                "with open_source(path, shape=(-1, height, width), dtype=...)"
            )
    if not kinds:
        raise SourceError(f"the folder {path} holds no movie: no file in it is of a kind that is read here: {_KINDS}")
    several = sorted({str(kind) for kind in kinds.values()})
    if len(several) > 1:
        raise SourceError(
            f"{path} stands for files of several kinds, {', '.join(several)}: name those of one with a glob"
        )
    return _together(several[0], path, names)


def _together(kind: str, path: str, names: list[str]) -> Found:
    if not names:
        raise SourceError(f"the folder {path} holds no file")
    if kind in ("Suite2p", "Zarr") and len(names) > 1:
        raise SourceError(f"{path} stands for several movies: {_listed(names)}; open one of them")
    return Found(kind, sorted(names, key=_natural))


def _special_folder(folder: Path) -> Found | None:
    """A folder that is itself a movie: a Zarr array or group, or one plane of Suite2p."""
    if any((folder / name).exists() for name in ("zarr.json", ".zarray", ".zgroup", ".zattrs")):
        return Found("Zarr", [str(folder)])
    if (folder / "ops.npy").exists():
        return _together("Suite2p", str(folder), [str(folder / name) for name in _SUITE2P if (folder / name).exists()])
    planes = [str(plane.parent) for plane in folder.glob("plane*/ops.npy")]
    if planes:
        raise SourceError(f"{folder} holds the planes of Suite2p, a movie each: {_listed(planes)}; open one of them")
    return None


def _kind_of_file(name: str) -> str | None:
    """The kind of a file by its first bytes; Suite2p's binaries by their names."""
    if os.path.basename(name) in _SUITE2P:
        return "Suite2p"
    with open(name, "rb") as file:
        head = file.read(_HEAD)
    for kind, signatures in _SIGNATURES.items():
        if any(head[offset : offset + len(signature)] == signature for offset, signature in signatures):
            return kind
    return None


def _natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts file_2 before file_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)], name


def shown(path: str) -> str:
    """What errors call a path: of a URL neither the password nor the signature."""
    if "://" not in path:
        return path
    parts = urlsplit(path)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _listed(names: list[str]) -> str:
    names = sorted(names, key=_natural)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
