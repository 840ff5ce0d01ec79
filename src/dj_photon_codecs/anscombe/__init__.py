"""The transform's mathematics, its lookup tables, and the Zarr V2 and V3 codecs.

The functions of the anscombe-transform package stand here under their own names, as its users know them.
"""

from .legacy import decode, encode, lookup, make_anscombe_lookup, make_inverse_lookup

__all__ = ["decode", "encode", "lookup", "make_anscombe_lookup", "make_inverse_lookup"]
