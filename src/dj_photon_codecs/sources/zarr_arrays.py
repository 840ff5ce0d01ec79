"""Read Zarr V2 and V3 arrays and groups, and OME-Zarr at full resolution, from a folder or a URL."""

from __future__ import annotations

import warnings
from typing import Any

import zarr

from ..errors import SourceError, StorageError
from .axes import AXES_HELP, given_axes, letters_of, spelled, understood, warn_of_names
from .messages import listed, shown
from .objects import zarr_names
from .paths import Found
from .stack import ChoiceNeeded, Options, Stack

_OLD_OME_AXES = ["t", "c", "z", "y", "x"]  # axes of OME-Zarr 0.1 and 0.2, which do not name them
_STORED_MOVIE = "dj_photon"  # attribute that marks movies stored by this package


def open_files(found: Found, options: Options) -> Stack:
    """Open the array at a path, or in the group at that path."""
    [name] = found.names
    root, where = _root(name)
    array, axis_names = _chosen(root, where, options.dataset)
    if array.name.strip("/"):
        where = f"{where}, array {array.name}"
    if _STORED_MOVIE in array.attrs:
        raise SourceError(
            f"{where} is a movie that this package stored: insert what open_movie(path) gives, which keeps its noise "
            "model"
        )
    axes = _letters(axis_names, where) if options.axes is None else None
    axes = axes or given_axes(options.axes, array.shape, where)
    return Stack(where, axes, array.shape, array.dtype, array.__getitem__)


def _root(name: str) -> tuple[Any, str]:
    """Open the array or group; also return its name for messages, a URL without password."""
    from ..storage.location import Location  # imported here because other formats do not need storage

    what = "cannot be opened as Zarr" + (", the only kind that a URL may name" if "://" in name else "")
    try:
        location = Location.of(name)  # some filesystems connect here
    except Exception as error:  # any library behind fsspec
        raise SourceError(f"{shown(name)} {what}: {type(error).__name__}") from None  # its text may show the password
    try:
        with location.errors_named(f"{location.label} {what}"):
            return zarr.open(location.open(read_only=True), mode="r"), location.label
    except StorageError as error:
        raise SourceError(str(error)) from error.__cause__


def _chosen(root: Any, where: str, given: str | None) -> tuple[Any, Any]:
    """Return the array given by name, or the only candidate, and its axis names."""
    node = root
    if given is not None:
        try:
            node = root[given.strip("/")]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise SourceError(f"{where} has no array {given!r}; {_way_out(_candidates(root))}") from error
    if isinstance(node, zarr.Array):
        return node, zarr_names(node) if node is root else _names_in(root, node)
    image = _multiscale(node)
    if image is not None:
        return node[image["datasets"][0]["path"]], image.get("axes", _OLD_OME_AXES)
    arrays = _candidates(node)
    if len(arrays) != 1:
        text = f"{where} holds {len(arrays)} arrays with the axes of a movie; {_way_out(_candidates(root))}"
        raise ChoiceNeeded(text, "dataset", [array.path for array in arrays])
    return arrays[0], _names_in(root, arrays[0])


def _multiscale(group: Any) -> Any:
    """First image in the OME metadata of a group, or None."""
    attributes = dict(group.attrs)
    found = attributes.get("ome", attributes).get("multiscales")
    return found[0] if found else None


def _names_in(root: Any, array: Any) -> Any:
    """Axis names of an array in a group: its own, or those of the OME image it belongs to."""
    parent = array.path.rpartition("/")[0].removeprefix(root.path).strip("/")
    group = root[parent] if parent else root
    image = _multiscale(group) if isinstance(group, zarr.Group) else None
    return zarr_names(array) if image is None else image.get("axes", _OLD_OME_AXES)


def _letters(names: Any, where: str) -> str | None:
    """Axes as letters; None if unnamed, or (with a warning) if no name is understood."""
    letters = letters_of(names)
    if letters is None or understood(letters):
        return letters
    if set(letters) <= {"!", "?"}:
        warn_of_names(where, names, "Otherwise pass axes=")
        return None
    raise SourceError(
        f"{where} has axes {spelled(names)}, which are not those of a movie in time: give them {AXES_HELP}"
    )


def _candidates(node: Any) -> list[Any]:
    """Arrays with at least 3 axes in a group, at any depth."""
    if not isinstance(node, zarr.Group):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # folders of recordings contain other files too
        members = sorted(node.members(max_depth=None))
    return [member for _, member in members if isinstance(member, zarr.Array) and member.ndim >= 3]


def _way_out(arrays: list[Any]) -> str:
    names = [array.path for array in arrays]
    return f"name one, dataset={names[0]!r}: it has {listed(names, 20)}" if names else "it has none"
