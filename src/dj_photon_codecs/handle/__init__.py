"""The lazy array handle, its chunk cache, frame iterator and stabilised view. Knows no database."""

from .array import PhotonArray, open_array

__all__ = ["PhotonArray", "open_array"]
