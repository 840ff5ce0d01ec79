"""Context-model entropy coder: compresses integer codes to within a few per cent of their Shannon limit.

The format is specified in ``docs/spec/rans.md``. :mod:`.codec_v3` is the Zarr codec, :mod:`.coder` encodes and decodes
arrays, and :mod:`.payload` holds the payload layout. The other modules except :mod:`.model` are compiled with numba,
which is not imported until the first chunk is coded.
"""
