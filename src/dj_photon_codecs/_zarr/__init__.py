"""The only place that uses the parts of zarr that change between releases.

Tested with zarr 3.1.0, 3.1.6, 3.2, 3.3 and 3.4. When a release moves a name, only modules of this package change.

| what                                | zarr | where it is or was                                             |
|-------------------------------------|------|----------------------------------------------------------------|
| grid of an array (`shard_shape`)    | 3.1  | `metadata.chunk_grid` is a `RegularChunkGrid`                  |
|                                     | 3.2  | `metadata.chunk_grid` is a `RegularChunkGridMetadata`          |
| spec of a chunk (`array_spec`)      | 3.1  | `metadata.get_chunk_spec`                                      |
|                                     | 3.2  | removed; built here from the metadata                          |
| place of a shard's index            | 3.1  | `ShardingCodec.index_location` is an enum                      |
|                                     | 3.3  | it is a string                                                 |
| codecs of a chunk (`CodecChain`)    | 3.1  | `ShardingCodec` drops the byte order of its codecs             |
|                                     | 3.3  | fixed; not used here: each codec is called directly            |
| private names                       | all  | `zarr.core`: see :mod:`.names`                                 |

- :mod:`.names`: private names, the event loop, conversion between metadata and documents.
- :mod:`.layout`: shapes and codecs from metadata.
- :mod:`.coding`: encoding and decoding chunks and shard indices, codec by codec.
- :mod:`.bounds`: the decompressed size of a payload, checked before decompression.
- :mod:`.selection`: an array with its own function to read selections.
"""

from __future__ import annotations

from .bounds import chunk_limit
from .coding import EMPTY, HEAD_LIMIT, EncodingRoom, ObjectFormat, Room, ShardIndex, new_room
from .layout import all_codecs, chunk_shape, replace_codecs, shard_shape
from .names import (
    ArrayMetadata,
    ArraySpec,
    ArrayV2Metadata,
    ArrayV3Metadata,
    AsyncArray,
    Buffer,
    NDBuffer,
    RangeByteRequest,
    StorePath,
    SuffixByteRequest,
    any_pipeline,
    buffer_of,
    default_buffer_prototype,
    end_tasks,
    get_codec_class,
    metadata_documents,
    open_store,
    parse_metadata,
    submit,
    zarr_dtype,
)
from .selection import SelectionArray

__all__ = [
    "EMPTY",
    "HEAD_LIMIT",
    "ArrayMetadata",
    "ArraySpec",
    "ArrayV2Metadata",
    "ArrayV3Metadata",
    "AsyncArray",
    "Buffer",
    "EncodingRoom",
    "NDBuffer",
    "ObjectFormat",
    "RangeByteRequest",
    "Room",
    "SelectionArray",
    "ShardIndex",
    "StorePath",
    "SuffixByteRequest",
    "all_codecs",
    "any_pipeline",
    "buffer_of",
    "chunk_limit",
    "chunk_shape",
    "default_buffer_prototype",
    "end_tasks",
    "get_codec_class",
    "metadata_documents",
    "new_room",
    "open_store",
    "parse_metadata",
    "replace_codecs",
    "shard_shape",
    "submit",
    "zarr_dtype",
]
