"""Private names of zarr, its event loop, and conversion between metadata and documents."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

import numpy as np
from zarr import AsyncArray
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import Buffer, NDBuffer, default_buffer_prototype
from zarr.core.dtype import get_data_type_from_native_dtype
from zarr.core.metadata.v2 import ArrayV2Metadata
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import _get_loop
from zarr.core.sync import loop as _loop
from zarr.registry import get_codec_class
from zarr.storage import StorePath

from ..errors import FormatError

__all__ = [
    "ArrayMetadata",
    "ArraySpec",
    "ArrayV2Metadata",
    "ArrayV3Metadata",
    "AsyncArray",
    "Buffer",
    "BytesCodec",
    "NDBuffer",
    "RangeByteRequest",
    "ShardingCodec",
    "StorePath",
    "SuffixByteRequest",
    "any_pipeline",
    "array_spec",
    "buffer_of",
    "default_buffer_prototype",
    "end_tasks",
    "get_codec_class",
    "metadata_documents",
    "open_store",
    "parse_metadata",
    "submit",
    "zarr_dtype",
]

ArrayMetadata = ArrayV2Metadata | ArrayV3Metadata
T = TypeVar("T")

_LOG = logging.getLogger("dj_photon_codecs")


@cache
def zarr_dtype(dtype: np.dtype[Any]) -> Any:
    """Return zarr's data type object for a numpy dtype; zarr's search takes as long as reading a small chunk."""
    return get_data_type_from_native_dtype(dtype)


def array_spec(shape: tuple[int, ...], data_type: Any, fill_value: Any, order: str = "C") -> ArraySpec:
    """Return the chunk spec for codecs, with ``data_type`` one of zarr's data type objects.

    A ``fill_value`` of None, which Zarr V2 allows, becomes the data type's default.
    """
    if fill_value is None:
        fill_value = data_type.default_scalar()
    config = ArrayConfig.from_dict({"write_empty_chunks": True, "order": order})  # type: ignore[typeddict-item]
    return ArraySpec(
        shape=shape, dtype=data_type, fill_value=fill_value, config=config, prototype=default_buffer_prototype()
    )


def buffer_of(content: bytes) -> Buffer:
    """Wrap bytes in the buffer type that zarr's stores accept."""
    return default_buffer_prototype().buffer.from_bytes(content)


@contextmanager
def any_pipeline() -> Iterator[None]:
    """Allow zarr to create an array with any codec pipeline in ``zarr.config``.

    zarr gives each array a pipeline, which is not used here (:mod:`.coding`). A pipeline that cannot run our codecs
    warns and falls back; that warning goes to the log.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if "unsupported by" in str(warning.message):
            _LOG.info("%s; chunks of photon movies are coded without it", warning.message)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def open_store(store: Store) -> None:
    """Open a store that is not open yet, because some (such as ZipStore) do not open themselves on first use.

    Do not call on zarr's event loop: this waits for it.
    """
    if not store._is_open:
        submit(store._ensure_open()).result()


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on zarr's event loop, which runs in its own thread and survives forks."""
    return asyncio.run_coroutine_threadsafe(coroutine, _get_loop())


def end_tasks(timeout: float) -> None:
    """Cancel the tasks on zarr's event loop, if it runs, and wait up to ``timeout`` [s] for them to end.

    asyncio complains about tasks that are still pending when the loop closes.
    """

    async def cancel() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    if _loop[0] is not None and _loop[0].is_running():
        with suppress(TimeoutError):
            submit(cancel()).result(timeout)


def metadata_documents(metadata: ArrayMetadata) -> dict[str, dict[str, Any]]:
    """Return an array's metadata documents by key (``zarr.json``, or ``.zarray`` and ``.zattrs``), as JSON values."""
    buffers = metadata.to_buffer_dict(default_buffer_prototype())
    return {key: json.loads(buffer.to_bytes()) for key, buffer in buffers.items()}


def parse_metadata(documents: dict[str, dict[str, Any]]) -> ArrayMetadata:
    """Build an array's metadata object from its documents, without a store.

    Raises FormatError if the installed zarr and codecs cannot read an array with these documents.
    """
    try:
        # if the fill value overflows an altered data type, the digest reports it better than a warning
        with np.errstate(all="ignore"):
            if "zarr.json" in documents:
                return ArrayV3Metadata.from_dict(documents["zarr.json"])
            document = dict(documents[".zarray"])
            document["attributes"] = documents.get(".zattrs", {})
            return ArrayV2Metadata.from_dict(document)
    except Exception as error:
        # zarr raises KeyError, TypeError, ValueError and its own errors for malformed metadata
        raise FormatError(f"the Zarr metadata of the movie cannot be read: {type(error).__name__}: {error}") from error
