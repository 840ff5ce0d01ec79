"""The table of supported formats: how to recognise each, and which module reads it.

To add a format, add a row here and a module with ``open_files(found, options)`` that returns a ``Stack``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

#: Options of :func:`open_source` that every format accepts.
COMMON = ("channel", "planes", "position", "pattern", "skip_damaged")


@dataclass(frozen=True)
class Format:
    """A kind of file or folder, and the module of this package that opens it."""

    name: str
    module: str
    kinds: str = ""  # name in the list of supported formats
    options: tuple[str, ...] = ()  # options of open_source besides COMMON
    names: tuple[str, ...] = ()  # globs over file names, for formats without a signature
    starts: tuple[tuple[int, bytes], ...] = ()  # signatures: offset and bytes; one match is enough
    marks: tuple[str, ...] = ()  # files that mark a folder as one movie
    single: bool = False  # each file or folder is one movie


#: Suite2p's binaries before and after registration, for the first and second channel.
SUITE2P = ("data_raw.bin", "data.bin", "data_chan2_raw.bin", "data_chan2.bin")
_TIFF = tuple((0, start) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
_HDF5 = tuple((offset, b"\x89HDF\r\n\x1a\n") for offset in (0, 512, 1024, 2048))  # MATLAB puts a header before it
_ND2, _CZI, _LIF = (0, b"\xda\xce\xbe\n"), (0, b"ZISRAWFILE"), (0, b"\x70\0\0\0")
_OIB, _OIR = (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), (0, b"OLYMPUSRAWFORMAT")
_VIDEO = ((8, b"AVI "), (0, b"\x1aE\xdf\xa3"), (4, b"ftyp"))
_ZARR = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
#: In the order in which they are tried.
FORMATS = (
    Format("TIFF", "tiff", "TIFF", ("axes", "shape"), starts=_TIFF),
    Format("OME-XML", "tiff", "", ("axes",), ("*.companion.ome",), single=True),
    Format("HDF5", "hdf5", "HDF5, NWB", ("dataset", "axes"), starts=_HDF5),
    Format("Suite2p", "suite2p", "Suite2p's binary", names=SUITE2P, marks=("ops.npy", "db.npy"), single=True),
    Format("Zarr", "zarr_arrays", "Zarr", ("dataset", "axes"), marks=_ZARR, single=True),
    Format("NPY", "raw", "NPY", ("axes",), starts=((0, b"\x93NUMPY"),)),
    Format("ThorImage", "thorimage", "ThorImage", (), ("*Experiment.xml",), marks=("Experiment.xml",), single=True),
    Format("Scanbox", "scanbox", "Scanbox", names=("*.sbx",), single=True),
    Format("video", "video", "AVI, MKV, MP4", starts=_VIDEO),
    Format("microscope", "microscopes", "ND2, CZI, LIF, OIB", starts=(_ND2, _CZI, _LIF, _OIB, _OIR), single=True),
    Format("headerless", "raw", "", ("axes", "shape", "dtype", "offset")),
)
BY_NAME = {one.name: one for one in FORMATS}
#: Supported formats, for messages.
KINDS = ", ".join(one.kinds for one in FORMATS if one.kinds)
_HEAD = 2056


def format_of(name: str) -> Format | None:
    """Return the format of a file by its name and first bytes, or None if unknown."""
    base = os.path.basename(name)
    for one in FORMATS:
        if any(fnmatchcase(base, pattern) for pattern in one.names):
            return one
    with open(name, "rb", buffering=0) as file:
        head = file.read(_HEAD)
    for one in FORMATS:
        if any(head[offset : offset + len(start)] == start for offset, start in one.starts):
            return one
    return None


def is_blank(name: str) -> bool:
    """Whether a file is empty or starts with only zeros, as space reserved but never written does."""
    with open(name, "rb") as file:
        return not file.read(_HEAD).strip(b"\0")


def format_of_folder(folder: Path) -> Format | None:
    """Return the format of a folder that is one movie, or None for a folder of files."""
    for one in FORMATS:
        if any((folder / mark).is_file() for mark in one.marks):
            return one
    return None
