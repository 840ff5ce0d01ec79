"""Photon-limited movies in DataJoint: measured noise, bounded loss, several times smaller, fetched lazily.

Declare a column ``movie : <photon@store>``, insert raw counts, and fetch a lazy Zarr array that gives counts.
The public names are listed in ``__init__.pyi`` and imported when they are first used: ``import dj_photon_codecs``
itself costs milliseconds.
"""

from ._lazy import attach_stub

__all__, __getattr__, __dir__ = attach_stub(__name__, __file__)
