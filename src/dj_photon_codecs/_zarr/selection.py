"""A zarr array with metadata only; a function of ours reads its selections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from .names import ArrayMetadata, AsyncArray, StorePath, any_pipeline

#: Reads a selection, given its kind and the selection itself.
Select = Callable[[str, Any], Any]


class SelectionArray(AsyncArray[Any]):
    """zarr's own array without its reading, which returns zeros for a missing chunk.

    ``select`` reads a selection of kind ``basic``, ``orthogonal`` or ``points``.
    """

    def __init__(self, metadata: ArrayMetadata, store_path: StorePath, select: Select) -> None:
        with any_pipeline():
            super().__init__(metadata=metadata, store_path=store_path)
        object.__setattr__(self, "_select", select)  # zarr's class is a frozen dataclass

    async def _get_selection(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("a zarr.Array made around the async_array of a photon movie: index the handle itself")

    async def getitem(self, selection: Any, *, prototype: Any = None) -> Any:
        """Read like indexing the handle."""
        return await asyncio.to_thread(self._select, "basic", selection)  # type: ignore[attr-defined]

    async def get_orthogonal_selection(self, selection: Any, **options: Any) -> Any:
        """Read like ``oindex`` of the handle."""
        return await asyncio.to_thread(self._select, "orthogonal", selection)  # type: ignore[attr-defined]

    async def get_mask_selection(self, mask: Any, **options: Any) -> Any:
        """Read like ``vindex`` of the handle."""
        return await asyncio.to_thread(self._select, "points", mask)  # type: ignore[attr-defined]

    get_coordinate_selection = get_mask_selection  # type: ignore[assignment]  # parameter names differ
