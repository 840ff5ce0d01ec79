"""The context-model entropy coder: integer codes in, bytes within a few per cent of their Shannon limit out.

Specified in ``docs/spec/rans.md``. :mod:`.coder` turns an array into a payload and back; :mod:`.header` is the
payload's layout, :mod:`.tables` the frequency tables, :mod:`.kernels` the compiled loops, :mod:`.reference` the same
in plain numpy, and :mod:`.codec_v3` the Zarr codec. Nothing here imports numba before the first chunk is coded.
"""
