"""The Anscombe transform, its lookup tables, and the Zarr V2 and V3 codecs.

This package also exports the functions of the anscombe-transform package under their original names.
"""

from .legacy import decode, encode, lookup, make_anscombe_lookup, make_inverse_lookup

__all__ = ["decode", "encode", "lookup", "make_anscombe_lookup", "make_inverse_lookup"]
