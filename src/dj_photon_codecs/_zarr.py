"""The one place for zarr names that have no public home.

When a zarr release moves one of them, this module is what changes. It is tested against zarr 3.1.0 and newer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
from zarr.abc.codec import CodecPipeline
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import Buffer, NDBuffer, default_buffer_prototype
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.core.dtype import get_data_type_from_native_dtype
from zarr.core.indexing import get_indexer
from zarr.core.metadata.v2 import ArrayV2Metadata
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import _get_loop
from zarr.registry import get_pipeline_class
from zarr.storage import StorePath

from .errors import FormatError

__all__ = [
    "ArrayConfig",
    "ArrayMetadata",
    "ArraySpec",
    "ArrayV2Metadata",
    "ArrayV3Metadata",
    "AsyncArray",
    "BatchedCodecPipeline",
    "Buffer",
    "CodecPipeline",
    "NDBuffer",
    "RangeByteRequest",
    "RegularChunkGrid",
    "ShardingCodec",
    "StorePath",
    "SuffixByteRequest",
    "V2Codec",
    "default_buffer_prototype",
    "get_indexer",
    "get_pipeline_class",
    "metadata_documents",
    "parse_metadata",
    "submit",
    "zarr_dtype",
]

ArrayMetadata = ArrayV2Metadata | ArrayV3Metadata
T = TypeVar("T")


def zarr_dtype(dtype: np.dtype[Any]) -> Any:
    """Zarr's data type object for a numpy dtype."""
    return get_data_type_from_native_dtype(dtype)


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on zarr's event loop, which runs in a thread of its own and survives forks."""
    return asyncio.run_coroutine_threadsafe(coroutine, _get_loop())


def metadata_documents(metadata: ArrayMetadata) -> dict[str, dict[str, Any]]:
    """The metadata documents of an array by key (``zarr.json``, or ``.zarray`` and ``.zattrs``), as JSON values."""
    buffers = metadata.to_buffer_dict(default_buffer_prototype())
    return {key: json.loads(buffer.to_bytes()) for key, buffer in buffers.items()}


def parse_metadata(documents: dict[str, dict[str, Any]]) -> ArrayMetadata:
    """The metadata object of an array from its documents, without a store.

    Raises
    ------
    FormatError
        When the documents describe no array that the installed zarr and codecs can read.
    """
    try:
        # a fill value that an altered data type does not hold is told by the digest, better than by a warning
        with np.errstate(all="ignore"):
            if "zarr.json" in documents:
                return ArrayV3Metadata.from_dict(documents["zarr.json"])
            document = dict(documents[".zarray"])
            document["attributes"] = documents.get(".zattrs", {})
            return ArrayV2Metadata.from_dict(document)
    except Exception as error:
        # zarr raises KeyError, TypeError, ValueError and its own errors for the many ways to be malformed
        raise FormatError(f"the Zarr metadata of the movie cannot be read: {type(error).__name__}: {error}") from error
