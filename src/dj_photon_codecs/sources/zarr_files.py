"""Zarr arrays and groups, V2 and V3, and OME-Zarr, at full resolution: from a folder or a URL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import zarr

from ..errors import SourceError, StorageError
from .paths import shown
from .stack import Options, Stack, given_axes, unnamed_axes

#: Names of axes as writers spell them, in lower case. OME-Zarr has the letters themselves.
_LETTER_OF = {
    **dict.fromkeys(("t", "time", "frame", "frames"), "T"),
    **dict.fromkeys(("z", "plane", "planes", "depth"), "Z"),
    **dict.fromkeys(("c", "channel", "channels"), "C"),
    **dict.fromkeys(("y", "height", "row", "rows"), "Y"),
    **dict.fromkeys(("x", "width", "column", "columns"), "X"),
}
#: Of OME-Zarr 0.1 and 0.2, which name no axes.
_OLD_OME_AXES = ["t", "c", "z", "y", "x"]
#: The attribute of the movies that this package stores.
_STORED_MOVIE = "dj_photon"


def open_files(names: Sequence[str], options: Options) -> Stack:
    """The array under a path, or in the group under it.

    Raises
    ------
    SourceError, ConfigurationError
        As :func:`open_source` says.
    """
    [name] = names
    root, where = _root(name)
    found, axis_names = _chosen(root, where, options.dataset)
    if found.name.strip("/"):
        where = f"{where}, array {found.name}"
    if _STORED_MOVIE in found.attrs:
        raise SourceError(
            f"{where} is a movie that this package stored: insert what open_movie(path) gives, which keeps its noise "
            "model"
        )
    if options.axes is not None:
        axes = given_axes(options.axes, found.shape, where)
    else:
        axes = _letters(axis_names, where) or unnamed_axes(found.shape, where)
    return Stack(where, axes, found.shape, found.dtype, found.__getitem__)


def _root(name: str) -> tuple[Any, str]:
    """The array or group, and what errors call it: a URL without its password."""
    from ..storage.location import Location  # only here: a store of this package is no source

    what = "cannot be opened as Zarr" + (", the only kind that a URL may name" if "://" in name else "")
    try:
        location = Location.of(name)  # some filesystems connect
    except Exception as error:  # of any library behind fsspec
        raise SourceError(f"{shown(name)} {what}: {type(error).__name__}") from None  # its text may show the password
    try:
        with location.errors_named(f"{location.label} {what}"):
            return zarr.open(location.open(read_only=True), mode="r"), location.label
    except StorageError as error:
        raise SourceError(str(error)) from error.__cause__


def _chosen(root: Any, where: str, given: str | None) -> tuple[Any, Any]:
    """The array that is meant, and the names of its axes as its metadata has them."""
    node = root
    if given is not None:
        try:
            node = root[given.strip("/")]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise SourceError(f"{where} has no array {given!r}; {_listed(root)}") from error
    if isinstance(node, zarr.Array):
        return node, _names_in(root, node) if node is not root else _own_names(node)
    multiscales = _multiscales(node)
    if multiscales is not None:
        finest = node[multiscales["datasets"][0]["path"]]
        return finest, multiscales.get("axes", _OLD_OME_AXES)
    arrays = _candidates(node)
    if len(arrays) != 1:
        raise SourceError(f"{where} holds {len(arrays)} arrays with the axes of a movie; {_listed(root)}")
    return arrays[0], _names_in(root, arrays[0])


def _multiscales(group: Any) -> Any:
    """The first image of OME metadata, if a group has it."""
    attributes = dict(group.attrs)
    found = attributes.get("ome", attributes).get("multiscales")
    return found[0] if found else None


def _names_in(root: Any, array: Any) -> Any:
    """The names of the axes of an array in a group: its own, or those of the image that it is a resolution of."""
    parent = array.path.rpartition("/")[0].removeprefix(root.path).strip("/")
    group = root[parent] if parent else root
    multiscales = _multiscales(group) if isinstance(group, zarr.Group) else None
    return _own_names(array) if multiscales is None else multiscales.get("axes", _OLD_OME_AXES)


def _own_names(array: Any) -> Any:
    """The names in the metadata of an array: of V3, or as xarray keeps them in V2."""
    return getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")


def _letters(names: Any, where: str) -> str | None:
    """The axes as letters; None where they have no names that are known."""
    if not names:
        return None
    spelled = [name["name"] if isinstance(name, dict) else name for name in names]
    letters = "".join("?" if name is None else _LETTER_OF.get(str(name).lower(), "!") for name in spelled)
    if set(letters) <= {"!", "?"}:
        return None
    repeated = len(set(letters.replace("?", ""))) < len(letters.replace("?", ""))
    if "!" in letters or repeated or not {"Y", "X"} <= set(letters) or "T" not in letters:
        raise SourceError(
            f"{where} has axes {spelled}, which are not those of a movie in time: say what they are with axes=, a "
            "letter each of T (time), Z (plane), C (channel), Y (height) and X (width)"
        )
    return letters


def _candidates(group: Any) -> list[Any]:
    """The arrays in a group, at any depth, with 3 axes or more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other files lie in the folders of many recordings
        members = sorted(group.members(max_depth=None))
    return [member for _, member in members if isinstance(member, zarr.Array) and member.ndim >= 3]


def _listed(root: Any) -> str:
    names = [array.path for array in _candidates(root)] if isinstance(root, zarr.Group) else []
    return f"name one, dataset={names[0]!r}: it has {', '.join(names[:20])}" if names else "it has none"
