"""The lazy array handle, its chunk cache, frame iterator and stabilised view. Independent of any database."""

from .array import PhotonArray, open_array
from .cache import set_cache_size
from .live import LiveMovie
from .unreadable import UnreadableArray

__all__ = ["LiveMovie", "PhotonArray", "UnreadableArray", "open_array", "set_cache_size"]
