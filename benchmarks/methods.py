"""The methods of storing a movie that ``comparison.py`` measures.

Each method imports what it needs in its own process: PYMECompress runs in an environment without this package.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.uint16]

#: Frames in a chunk for peers without shards, as in the documentation of anscombe-transform.
_CHUNK_FRAMES = 100


class Noise(NamedTuple):
    """Conversion gain [ADU per photon] and zero level [ADU]."""

    gain: float
    zero_level: float


@dataclass(frozen=True)
class Method:
    """A method of storing a movie.

    Attributes
    ----------
    name
        Name in the tables.
    write
        Stores counts of known noise in a folder, or under a URL.
    open
        Returns an object to index: ``[...]`` gives all counts, ``[i]`` a frame.
    keeps
        ``counts`` (lossless), ``codes`` (those of this package, at the default step), or ``own`` (another rounding).
    needs
        Module that it needs; without it, the method is skipped.
    """

    name: str
    write: Callable[[str, Counts, Noise], object]
    open: Callable[[str], Any]
    keeps: Literal["counts", "codes", "own"]
    needs: str

    @property
    def ours(self) -> bool:
        """Whether it is this package's."""
        return self.needs == "dj_photon_codecs"

    def missing(self) -> str:
        """Return why it cannot be used here, or an empty string."""
        try:
            importlib.import_module(self.needs)
        except ImportError as error:
            return str(error)
        return ""


def _ours(profile: str) -> Method:
    def write(place: str, counts: Counts, noise: Noise) -> None:
        from dj_photon_codecs import write_movie

        write_movie(place, counts, profile=profile, progress=False)  # measures the noise itself

    def reopen(place: str) -> Any:
        from dj_photon_codecs import open_movie

        return open_movie(place)

    return Method(profile, write, reopen, "counts" if profile == "lossless" else "codes", "dj_photon_codecs")


def _zarr(name: str, settings: Callable[[Noise], dict[str, Any]], keeps: Any = "counts", needs: str = "zarr") -> Method:
    def write(place: str, counts: Counts, noise: Noise) -> None:
        import zarr

        array = zarr.create_array(
            place,
            shape=counts.shape,
            dtype=counts.dtype,
            chunks=(min(_CHUNK_FRAMES, len(counts)), *counts.shape[1:]),
            fill_value=0,
            **settings(noise),
        )
        array[:] = counts

    def reopen(place: str) -> Any:
        import zarr

        settings(Noise(1, 0))  # registers the codec
        return zarr.open_array(place, mode="r")

    return Method(name, write, reopen, keeps, needs)


def _blosc(noise: Noise, cname: Any, level: int) -> dict[str, Any]:
    from zarr.codecs import BloscCodec

    return {"compressors": [BloscCodec(cname=cname, clevel=level, shuffle="bitshuffle", typesize=2)]}


def _zstd(noise: Noise) -> dict[str, Any]:
    from zarr.codecs import ZstdCodec

    return {"compressors": [ZstdCodec(level=3)]}


def _pcodec(noise: Noise) -> dict[str, Any]:
    from zarr.codecs.numcodecs import PCodec

    warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3 specification")
    return {"serializer": PCodec(level=8), "compressors": None}


def _anscombe_transform(noise: Noise) -> dict[str, Any]:
    import zarr
    from anscombe_transform import AnscombeTransformV3
    from zarr.codecs import BloscCodec
    from zarr.registry import register_codec

    register_codec("anscombe-v1", AnscombeTransformV3)  # this package reads that format as well
    zarr.config.set({"codecs.anscombe-v1": f"{AnscombeTransformV3.__module__}.{AnscombeTransformV3.__qualname__}"})
    return {
        "filters": [
            AnscombeTransformV3(
                zero_level=int(noise.zero_level), conversion_gain=float(noise.gain), decoded_dtype="uint16"
            )
        ],
        "compressors": [BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=1)],
    }


def _blosc2() -> Method:
    def write(place: str, counts: Counts, noise: Noise) -> None:
        import blosc2

        os.makedirs(place)
        parameters = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=5, filters=[blosc2.Filter.BITSHUFFLE])
        chunks, blocks = (min(16, len(counts)), *counts.shape[1:]), (1, *counts.shape[1:])
        blosc2.asarray(
            counts, urlpath=f"{place}/movie.b2nd", mode="w", chunks=chunks, blocks=blocks, cparams=parameters
        )

    def reopen(place: str) -> Any:
        import blosc2

        return blosc2.open(f"{place}/movie.b2nd", mode="r")

    return Method("blosc2, zstd-5 bitshuffle", write, reopen, "counts", "blosc2")


def _hdf5() -> Method:
    def write(place: str, counts: Counts, noise: Noise) -> None:
        import h5py
        import hdf5plugin

        os.makedirs(place)
        with h5py.File(f"{place}/movie.h5", "w") as file:
            file.create_dataset(
                "movie",
                data=counts,
                chunks=(min(16, len(counts)), *counts.shape[1:]),
                compression=hdf5plugin.Blosc("zstd", 5, hdf5plugin.Blosc.BITSHUFFLE),
            )

    def reopen(place: str) -> Any:
        import h5py
        import hdf5plugin  # noqa: F401  # registers the filter

        return h5py.File(f"{place}/movie.h5")["movie"]

    return Method("HDF5, Blosc zstd-5 bitshuffle", write, reopen, "counts", "hdf5plugin")


def _tiff() -> Method:
    """Write an uncompressed TIFF stack, as most rigs do."""

    def write(place: str, counts: Counts, noise: Noise) -> None:
        import tifffile

        os.makedirs(place)
        tifffile.imwrite(f"{place}/movie.tif", counts, photometric="minisblack")

    def reopen(place: str) -> Any:
        return TiffStack(f"{place}/movie.tif")

    return Method("TIFF, uncompressed", write, reopen, "counts", "tifffile")


class TiffStack:
    """A TIFF file with the indexing of the other methods."""

    def __init__(self, path: str) -> None:
        import tifffile

        self._file = tifffile.TiffFile(path)
        self.shape = self._file.series[0].shape

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        return self._file.asarray() if key is ... else self._file.asarray(key=key)


Encode = Callable[[npt.NDArray[Any], Noise], Any]
Decode = Callable[[bytes, tuple[int, int], Noise], npt.NDArray[Any]]


def _cores() -> int:
    """Return the number of cores that this process may use; not every environment has the package's n_cores()."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _framewise(
    name: str, coder: Callable[[], tuple[Encode, Decode]], keeps: Any, needs: str, threads: int | None = None
) -> Method:
    """Encode frames separately, on all cores, and write them to one file."""

    def write(place: str, counts: Counts, noise: Noise) -> None:
        encode, ends = coder()[0], [0]
        os.makedirs(place)
        with (
            open(f"{place}/frames", "wb") as file,
            ThreadPoolExecutor(threads or _cores()) as pool,
        ):
            for part in pool.map(encode, counts, itertools.repeat(noise)):
                file.write(part)
                ends.append(file.tell())
        np.savez(f"{place}/index.npz", ends=ends, shape=counts.shape, noise=noise)

    def reopen(place: str) -> FrameFile:
        return FrameFile(place, coder()[1], threads)

    return Method(name, write, reopen, keeps, needs)


class FrameFile:
    """A file of separately encoded frames."""

    def __init__(self, place: str, decode: Decode, threads: int | None) -> None:
        self._bytes = np.memmap(Path(place, "frames"), np.uint8, "r")
        with np.load(Path(place, "index.npz")) as index:
            self._ends, self.shape = index["ends"].tolist(), tuple(index["shape"].tolist())
            self._noise = Noise(*index["noise"].tolist())
        self._decode, self._threads = decode, threads or _cores()

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        if key is not ...:
            part = self._bytes[self._ends[key] : self._ends[key + 1]].tobytes()
            return self._decode(part, self.shape[1:], self._noise)
        counts = np.empty(self.shape, np.uint16)

        def fill(i: int) -> None:
            counts[i] = self[i]

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(fill, range(len(self))))
        return counts


def _jpegls() -> tuple[Encode, Decode]:
    from imagecodecs import jpegls_decode, jpegls_encode

    return (lambda frame, noise: jpegls_encode(frame)), (lambda part, shape, noise: jpegls_decode(part))


def _jpegxl() -> tuple[Encode, Decode]:
    from imagecodecs import jpegxl_decode, jpegxl_encode

    return (
        lambda frame, noise: jpegxl_encode(frame, lossless=True, effort=2, numthreads=1),
        lambda part, shape, noise: jpegxl_decode(part, numthreads=1),
    )


def _pymecompress_default() -> tuple[Encode, Decode]:
    from pymecompress.codecs import HuffmanQuant16

    return (
        lambda frame, noise: HuffmanQuant16(noise.zero_level, 1).encode(frame),
        lambda part, shape, noise: HuffmanQuant16(noise.zero_level, 1).decode(np.frombuffer(part, "u1")).reshape(shape),
    )


def _pymecompress_equal() -> tuple[Encode, Decode]:
    """Round to steps of half a noise standard deviation here: the format's own scaling does not decode correctly."""
    from pymecompress.bcl import huffman_compress_buffer, huffman_decompress_buffer

    def encode(frame: npt.NDArray[Any], noise: Noise) -> Any:
        return huffman_compress_buffer(_roots(noise)[0][frame].ravel())

    def decode(part: bytes, shape: tuple[int, int], noise: Noise) -> npt.NDArray[Any]:
        codes: npt.NDArray[np.uint8] = huffman_decompress_buffer(np.frombuffer(part, "u1"), None)
        return _roots(noise)[1][codes].reshape(shape)

    return encode, decode


@functools.cache
def _roots(noise: Noise) -> tuple[npt.NDArray[np.uint8], Counts]:
    """Return the code of every count (equal steps of its square root), and the count of every code."""
    step = noise.gain**0.5 / 4
    codes = np.rint(np.sqrt(np.maximum(np.arange(65536) - noise.zero_level, 0)) / step)
    counts = np.rint((np.arange(256) * step) ** 2 + noise.zero_level)
    return np.minimum(codes, 255).astype(np.uint8), np.minimum(counts, 65535).astype(np.uint16)


_ALL = (
    *(_ours(profile) for profile in ("standard", "dense", "portable", "lossless")),
    _zarr("zarr, anscombe-transform 1.0.0", _anscombe_transform, "own", "anscombe_transform"),
    _framewise("PYMECompress, half a sigma", _pymecompress_equal, "own", "pymecompress", 1),
    _framewise("PYMECompress, scale 1", _pymecompress_default, "own", "pymecompress", 1),
    _zarr("zarr, Blosc zstd-5 bitshuffle", functools.partial(_blosc, cname="zstd", level=5)),
    _zarr("zarr, Blosc lz4-5 bitshuffle", functools.partial(_blosc, cname="lz4", level=5)),
    _zarr("zarr, zstd-3", _zstd),
    _zarr("zarr, pcodec level 8", _pcodec, needs="pcodec"),
    _blosc2(),
    _hdf5(),
    _tiff(),
    _framewise("JPEG-LS", _jpegls, "counts", "imagecodecs"),
    _framewise("JPEG XL, effort 2", _jpegxl, "counts", "imagecodecs"),
)

#: The methods by name, this package's first.
METHODS = {method.name: method for method in _ALL}

#: The methods compared on an object store.
ON_S3 = ("standard", "dense", "zarr, anscombe-transform 1.0.0", "zarr, Blosc zstd-5 bitshuffle")
