"""Read HDF5, NWB and Imaris files."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .axes import given_axes, letters_of, understood, warn_of_names
from .joining import joined
from .messages import warn_source
from .metadata import Metadata, inverse, micrometres
from .paths import Found
from .stack import ChoiceNeeded, Index, Options, Stack, closed_on_error, library

_PHOTON_SERIES = ("TwoPhotonSeries", "OnePhotonSeries")  # NWB types that hold raw movies
#: Third-party HDF5 filters by number.
_FILTERS = {307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle", 32013: "ZFP"} | {
    32015: "Zstd", 32017: "SZ", 32019: "FCIDECOMP", 32024: "SZ3", 32026: "Blosc2"
}  # fmt: skip
_NWB_AXES = "TXYZ"  # axis order of every ImageSeries in the NWB schema: frame, x, y, z


def open_files(found: Found, options: Options) -> Stack:
    """Open the datasets in files, concatenated in time."""
    return joined(found.group(options.axes), options, partial(_open, options=options, told=set()))


def _open(name: str, options: Options, told: set[str]) -> Stack:
    """Open one file; ``told`` holds files already warned about, because files are reopened for reading."""
    h5py = library("h5py", "hdf5", "HDF5 and NWB files")
    file = _file(h5py, name)
    with closed_on_error(file.close):
        if "DataSetInfo/Image" in file and "DataSet/ResolutionLevel 0" in file:
            return _imaris(file, name)
        dataset = _chosen(h5py, file, name, options.dataset)
        where = f"{name}, dataset {dataset.name}"
        _check_filters(h5py, dataset, where)
        axes = _axes(dataset, where) if options.axes is None else given_axes(options.axes, dataset.shape, where)
        if name not in told:
            told.add(name)
            _warn_of_holes(dataset, where)
        metadata = _metadata(file, dataset)
        return Stack(where, axes, dataset.shape, dataset.dtype, dataset.__getitem__, file.close, metadata)


def _file(h5py: Any, name: str) -> Any:
    """Open a file; warn if another program is writing it (SWMR), and raise if it is locked."""
    try:
        return h5py.File(name, "r")
    except OSError as error:
        if "unable to lock" not in str(error) and "already open for write" not in str(error):
            raise
        try:
            file = h5py.File(name, "r", swmr=True)
        except (OSError, ValueError):
            raise SourceError(
                f"{name} is locked: another program is writing it, or was killed while it did ({error}). Close it "
                "there; if no program is writing any more, h5clear -s makes the file readable, and "
                "HDF5_USE_FILE_LOCKING=FALSE helps on file systems without locks"
            ) from error
    warn_source(f"{name} is being written by another program (SWMR): its last frames may be missing")
    return file


def _check_filters(h5py: Any, dataset: Any, where: str) -> None:
    """Raise if a filter is not installed, before reading frames."""
    created = dataset.id.get_create_plist()
    for code, *_ in (created.get_filter(i) for i in range(created.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import_module("hdf5plugin")  # registers its filters on import
            if not h5py.h5z.filter_avail(code):
                raise SourceError(
                    f"{where} is compressed with {_FILTERS.get(code, 'a filter')} (filter {code} of HDF5), which is "
                    "not installed: pip install hdf5plugin"
                )


def _chosen(h5py: Any, file: Any, name: str, given: str | None) -> Any:
    """Return the dataset given by name, or the only candidate."""
    candidates = _candidates(h5py, file)
    way_out = f"name one, dataset={candidates[0]!r}: it has {', '.join(candidates)}" if candidates else "it has none"
    if given is None:
        if len(candidates) != 1:
            text = f"{name} holds {len(candidates)} datasets with the axes of a movie; {way_out}"
            raise ChoiceNeeded(text, "dataset", candidates)
        given = candidates[0]
    found = file.get(given)
    if isinstance(found, h5py.Group):
        if "external_file" in found:
            files = ", ".join(_text(entry) for entry in np.atleast_1d(found["external_file"][()]))
            raise SourceError(f"{name}, {given}: the frames lie in other files, {files}: open those")
        found = found.get("data")
    if not isinstance(found, h5py.Dataset):
        raise SourceError(f"{name} has no dataset {given!r}; {way_out}")
    return found


def _candidates(h5py: Any, file: Any) -> list[str]:
    """Photon series of an NWB file, or else all numeric datasets with at least 3 axes."""
    series: list[str] = []
    datasets: list[str] = []

    def look(path: str, entry: Any) -> None:
        if isinstance(entry, h5py.Group) and _neurodata_type(entry) in _PHOTON_SERIES:
            series.append(f"/{path}")
        elif isinstance(entry, h5py.Dataset) and entry.ndim >= 3 and entry.dtype.kind in "uif" and entry.size:
            datasets.append(f"/{path}")

    file.visititems(look)
    return series or datasets


def _neurodata_type(group: Any) -> str:
    return _text(group.attrs.get("neurodata_type", ""))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def labels(dataset: Any) -> list[str] | None:
    """Axis names of a dataset, from HDF5 labels or scales, or from attributes that other writers use."""
    named = [dimension.label or next(iter(dimension.keys()), "") for dimension in dataset.dims]
    for attribute in ("_ARRAY_DIMENSIONS", "DIMENSION_LABELS", "dimension_names", "dims", "axes", "axistags"):
        if not any(named) and attribute in dataset.attrs:
            found = dataset.attrs[attribute]
            if attribute == "axistags":  # vigra and ilastik
                found = [axis.get("key", "") for axis in json.loads(_text(found)).get("axes", [])]
            words = [_text(one) for one in found] if np.ndim(found) else _text(found).replace(",", " ").split()
            named = list(words[0]) if len(words) == 1 and len(words[0]) == dataset.ndim else words
    return [os.path.basename(name) for name in named] if len(named) == dataset.ndim and any(named) else None


def _axes(dataset: Any, where: str) -> str:
    """Axes of a dataset from its labels, the NWB schema, or the default order."""
    named = labels(dataset)
    letters = letters_of(named)
    if letters is not None and understood(letters):
        return letters
    if letters is not None:
        warn_of_names(where, named, "Otherwise pass axes=")
    if _neurodata_type(dataset.parent) and dataset.ndim in (3, 4):
        return _NWB_AXES[: dataset.ndim]
    if "MATLAB_class" in dataset.attrs:
        raise SourceError(
            f"{where} was written by MATLAB, which reverses the order of axes: (height, width, time) in MATLAB is "
            f'{dataset.shape} in the file. Pass axes="TXY", or other axes'
        )
    return given_axes(None, dataset.shape, where)


def _metadata(file: Any, dataset: Any) -> Metadata:
    """NWB metadata of a series: rate or frame times, and pixel size."""
    series = dataset.parent
    if not _neurodata_type(series):
        return Metadata()
    start, stamps, plane = series.get("starting_time"), series.get("timestamps"), series.get("imaging_plane", {})
    increment = inverse(start.attrs.get("rate")) if start is not None else None
    if increment is None and "imaging_rate" in plane:
        increment = inverse(plane["imaging_rate"][()])
    spacing, sizes = plane.get("grid_spacing"), []
    if spacing is not None:
        unit = _text(spacing.attrs.get("unit", "meters"))
        sizes = [micrometres(size, unit) for size in np.ravel(spacing[()])]
    began = file.get("session_start_time")
    return Metadata(
        increment=increment,
        pixel=sizes[:2],
        depth=sizes[2] if len(sizes) > 2 and dataset.ndim == 4 else None,
        channels=[_text(plane["optical_channel"].name)] if "optical_channel" in plane else [],
        date=_text(began[()]) if began is not None else None,
        times=() if stamps is None else stamps[:] - stamps[0],
    )


def _warn_of_holes(dataset: Any, where: str) -> None:
    """Warn of unwritten chunks, which HDF5 silently reads as fill values."""
    if dataset.chunks is None or dataset.is_virtual:
        return
    chunks = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    unwritten = chunks - dataset.id.get_num_chunks()
    if unwritten > 0:
        warn_source(
            f"{where}: {unwritten} of {chunks} chunks were never written, and read as {dataset.fillvalue}: the "
            "recording may have been aborted"
        )


def _imaris(file: Any, name: str) -> Stack:
    """Full resolution of an Imaris file, which has one dataset per time and channel, padded to whole chunks."""
    info, level = file["DataSetInfo/Image"].attrs, file["DataSet/ResolutionLevel 0"]

    def numbered(group: Any) -> list[str]:
        return sorted(group, key=lambda key: int(key.rpartition(" ")[2]))

    times = numbered(level)
    channels = numbered(level[times[0]])
    first = level[f"{times[0]}/{channels[0]}/Data"]
    width, height, depth = (int(_characters(info, axis)) for axis in "XYZ")
    sizes = []
    for axis, count in enumerate((width, height, depth)):
        low, high = _characters(info, f"ExtMin{axis}"), _characters(info, f"ExtMax{axis}")
        sizes.append((float(high) - float(low)) / count if low and high else None)
    described = [f"DataSetInfo/Channel {i}" for i in range(len(channels))]
    metadata = Metadata(
        pixel=sizes[:2],
        depth=sizes[2] if depth > 1 else None,
        channels=[_characters(file[channel].attrs, "Name") for channel in described if channel in file],
        date=_characters(info, "RecordingDate"),
    )

    def read(index: Index) -> AnyArray:
        some, wanted, *inside = index
        return np.asarray([[level[f"{t}/{c}/Data"][tuple(inside)] for c in channels[wanted]] for t in times[some]])

    shape = (len(times), len(channels), depth, height, width)
    return Stack(name, "TCZYX", shape, first.dtype, read, file.close, metadata)


def _characters(attributes: Any, name: str) -> str:
    """Read a text attribute, which Imaris stores as an array of characters."""
    value = attributes.get(name, "")
    return _text(b"".join(map(bytes, value.ravel())) if isinstance(value, np.ndarray) else value)
