"""HDF5, and NWB, which is HDF5 with a schema: the dataset of a photon series, or the one that was named."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import SourceError
from .stack import Options, Stack, closed_on_error, concatenated, given_axes, library, unnamed_axes, warn

#: Types of the NWB schema that hold raw movies.
_PHOTON_SERIES = ("TwoPhotonSeries", "OnePhotonSeries")
#: The order that the NWB schema gives the axes of every ImageSeries: frame, x, y and z.
_NWB_AXES = "TXYZ"


def open_files(names: Sequence[str], options: Options) -> Stack:
    """The datasets in files, one after the other in time.

    Raises
    ------
    SourceError, ConfigurationError
        As :func:`open_source` says.
    """
    return concatenated(names, partial(_open, options=options, told=set()))


def _open(name: str, options: Options, told: set[str]) -> Stack:
    h5py = library("h5py", "hdf5", "HDF5 and NWB files")
    file = h5py.File(name, "r")
    with closed_on_error(file.close):
        dataset = _chosen(h5py, file, name, options.dataset)
        where = f"{name}, dataset {dataset.name}"
        axes = _axes(dataset, where) if options.axes is None else given_axes(options.axes, dataset.shape, where)
        if name not in told:  # a file is opened again when it is its turn
            told.add(name)
            _warn_of_holes(dataset, where)
        return Stack(where, axes, dataset.shape, dataset.dtype, dataset.__getitem__, file.close)


def _chosen(h5py: Any, file: Any, name: str, given: str | None) -> Any:
    """The dataset that was named, or else the only one that can be meant."""
    candidates = _candidates(h5py, file)
    way_out = f"name one, dataset={candidates[0]!r}: it has {', '.join(candidates)}" if candidates else "it has none"
    if given is None:
        if len(candidates) != 1:
            raise SourceError(f"{name} holds {len(candidates)} datasets with the axes of a movie; {way_out}")
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
    """The photon series of an NWB file, or else every numeric dataset with 3 axes or more."""
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


def _axes(dataset: Any, where: str) -> str:
    """The axes of a dataset: by the NWB schema, or without names."""
    if _neurodata_type(dataset.parent) and dataset.ndim in (3, 4):
        return _NWB_AXES[: dataset.ndim]
    if "MATLAB_class" in dataset.attrs:
        raise SourceError(
            f"{where} was written by MATLAB, which turns the order of axes round: what is (height, width, time) there "
            f'lies here as {dataset.shape}. Say so, axes="TXY", or what else it is'
        )
    return unnamed_axes(dataset.shape, where)


def _warn_of_holes(dataset: Any, where: str) -> None:
    """HDF5 reads what was never written as fill values, without a word."""
    if dataset.chunks is None:
        return
    chunks = int(np.prod([-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True)]))
    written = dataset.id.get_num_chunks()
    if written < chunks and not dataset.is_virtual:
        warn(
            f"{where}: {chunks - written} of {chunks} chunks were never written, and read as {dataset.fillvalue}: the "
            "recording may have been aborted"
        )
