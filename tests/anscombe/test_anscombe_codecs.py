"""The Zarr V3 and V2 codecs around the transform."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs.registry import get_codec
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    AnscombeTransformV2,
    AnscombeTransformV3,
    CalibrationError,
    CodeRangeError,
    ConfigurationError,
)
from dj_photon_codecs.anscombe.codes import decode, encode
from dj_photon_codecs.anscombe.parameters import DITHERS, TransformParameters

COUNTS = (np.arange(6 * 5 * 4).reshape(6, 5, 4) * 17 % 3000).astype(np.uint16)


def expected(counts: np.ndarray, gain: float = 10.0, zero: float = 50.0) -> np.ndarray:
    """What the functions behind the codecs give."""
    parameters = TransformParameters(zero, gain, "uint8", counts.dtype.name)
    return decode(encode(counts, parameters), parameters)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint64", "float64"])
def test_a_v3_array_holds_codes_and_gives_counts(dtype: str) -> None:
    store = MemoryStore()
    counts = COUNTS.astype(dtype)
    codec = AnscombeTransformV3(zero_level=50, conversion_gain=10.0)
    array = zarr.create_array(store, data=counts, chunks=(3, 5, 4), filters=[codec], compressors=None)
    assert (array[:] == expected(counts)).all()
    assert array.dtype == dtype
    [stored] = [value for key, value in store._store_dict.items() if key.endswith("c/0/0/0")]
    assert len(stored) == 3 * 5 * 4  # one byte a pixel


def test_the_v3_metadata_holds_every_parameter_and_opens_again() -> None:
    store = MemoryStore()
    codec = AnscombeTransformV3(zero_level=-3.5, conversion_gain=2, encoded_dtype="uint16", step=0.25)
    zarr.create_array(store, shape=(4, 4, 4), dtype="int16", chunks=(4, 4, 4), filters=[codec])
    document = json.loads(store._store_dict["zarr.json"].to_bytes())
    assert document["codecs"][0] == {
        "name": "dj_photon_codecs.anscombe",
        "configuration": {
            "zero_level": -3.5,
            "conversion_gain": 2.0,
            "encoded_dtype": "uint16",
            "decoded_dtype": "int16",
            "step": 0.25,
            "dither": "none",
            "under_root": 0.375,
            "saturation": None,
        },
    }
    reopened = zarr.open_array(store, mode="r").metadata.codecs[0]
    assert reopened == AnscombeTransformV3(-3.5, 2, "uint16", "int16", 0.25)
    assert pickle.loads(pickle.dumps(reopened)) == reopened


@pytest.mark.parametrize(
    "configuration",
    [
        {"zero_level": 0, "conversion_gain": 1},
        {
            "zero_level": 0,
            "conversion_gain": 1,
            "encoded_dtype": "uint8",
            "decoded_dtype": "int16",
            "step": 1,
            "dither": "none",
            "under_root": 0.375,
            "saturation": None,
            "beta": 1,
        },
    ],
    ids=["missing keys", "unknown key"],
)
def test_metadata_with_missing_or_unknown_keys_is_refused(configuration: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="not a valid configuration of dj_photon_codecs.anscombe"):
        AnscombeTransformV3.from_dict({"name": "dj_photon_codecs.anscombe", "configuration": configuration})


def test_the_v3_fill_value_passes_through_the_transform() -> None:
    codec = AnscombeTransformV3(zero_level=0, conversion_gain=10.0)
    array = zarr.create_array(
        MemoryStore(), shape=(4, 4, 4), dtype="uint16", chunks=(2, 4, 4), filters=[codec], fill_value=1000
    )
    assert (array[:] == 1000).all()  # nothing written
    array[0, 0, 0] = 0  # a chunk that is partly fill value goes through the codec
    assert (array[0, 1:] == expected(np.array([1000], np.uint16), zero=0.0)[0]).all()


def test_the_v3_codec_refuses_an_array_it_cannot_code() -> None:
    codec = AnscombeTransformV3(zero_level=0, conversion_gain=10.0, decoded_dtype="uint16")
    with pytest.raises(ConfigurationError, match="decoded_dtype='uint16' cannot code an array of int16"):
        zarr.create_array(MemoryStore(), shape=(4, 4, 4), dtype="int16", chunks=(2, 4, 4), filters=[codec])


def test_a_v3_write_that_does_not_fit_raises_and_names_the_count() -> None:
    codec = AnscombeTransformV3(zero_level=0, conversion_gain=1.0)
    array = zarr.create_array(MemoryStore(), shape=(2, 2, 2), dtype="uint16", chunks=(2, 2, 2), filters=[codec])
    with pytest.raises(CodeRangeError, match=r"65000.*encoded_dtype='uint16'"):
        array[:] = 65000


@pytest.mark.parametrize("role", ["filter", "compressor"])
def test_a_v2_array_holds_codes_and_gives_counts(role: str) -> None:
    store = MemoryStore()
    codec = AnscombeTransformV2(zero_level=50, conversion_gain=10.0)
    options = {"filters": [codec], "compressors": numcodecs.Zstd(1)} if role == "filter" else {"compressors": codec}
    array = zarr.create_array(store, data=COUNTS, chunks=(3, 5, 4), zarr_format=2, **options)
    assert (array[:] == expected(COUNTS)).all()
    assert (zarr.open_array(store, mode="r", zarr_format=2)[:] == expected(COUNTS)).all()


def test_the_v2_configuration_makes_the_same_codec_again() -> None:
    codec = AnscombeTransformV2(-3.5, 2.5, "uint16", "int32", 0.25)
    config = codec.get_config()
    assert json.loads(json.dumps(config)) == config
    assert get_codec(config) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert eval(repr(codec), {"AnscombeTransformV2": AnscombeTransformV2}) == codec


@pytest.mark.parametrize("as_bytes", [False, True], ids=["array", "bytes"])
def test_the_v2_codec_takes_arrays_and_buffers(as_bytes: bool) -> None:
    codec = AnscombeTransformV2(50, 10.0, encoded_dtype="uint16")
    codes = codec.encode(COUNTS.tobytes() if as_bytes else COUNTS)
    decoded = codec.decode(codes.tobytes() if as_bytes else codes)
    assert (np.asarray(decoded).ravel() == expected(COUNTS).ravel()).all()


def test_the_v2_codec_honours_out() -> None:
    codec = AnscombeTransformV2(50, 10.0)
    out = np.empty_like(COUNTS)
    assert codec.decode(codec.encode(COUNTS), out=out) is out
    assert (out == expected(COUNTS)).all()


def test_a_v2_buffer_that_ends_within_a_count_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="3 bytes are not a whole number of uint16"):
        AnscombeTransformV2(0, 1.0).encode(b"abc")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_v2_array_of_another_dtype_is_refused(dtype: str) -> None:
    """Taken for bytes, or cast, its counts would come back as others."""
    with pytest.raises(ConfigurationError, match=f"expects uint16 here, got an array of {dtype}"):
        AnscombeTransformV2(0, 1.0).encode(np.full((2, 3, 4), 7, dtype))


@pytest.mark.parametrize("codec", [AnscombeTransformV2, AnscombeTransformV3])
def test_a_gain_of_0_raises_at_construction(codec: type) -> None:
    with pytest.raises(CalibrationError, match="conversion_gain must be a finite number above 0"):
        codec(zero_level=0, conversion_gain=0)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_process_that_imported_nothing_of_this_package_reads_the_files(tmp_path: Path, zarr_format: int) -> None:
    codec = (AnscombeTransformV2 if zarr_format == 2 else AnscombeTransformV3)(zero_level=50, conversion_gain=10.0)
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=COUNTS.shape,
        dtype=COUNTS.dtype,
        chunks=(3, 5, 4),
        filters=[codec],
        zarr_format=zarr_format,
    )
    array[:] = COUNTS
    script = (
        "import sys, zarr, numpy as np; a = zarr.open_array(sys.argv[1], mode='r')[:]; np.save(sys.argv[2], a)\n"
        "assert not {'datajoint', 'matplotlib', 'numba'} & set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.zarr"), str(tmp_path / "out.npy")], check=True)
    assert (np.load(tmp_path / "out.npy") == expected(COUNTS)).all()


def test_the_v2_codec_needs_numpy_and_numcodecs_only(tmp_path: Path) -> None:
    """A process that can import none of the other dependencies encodes and decodes, and finds the codec by its id."""
    script = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("zarr", "datajoint", "numba", "fsspec", "click", "tqdm", "dask"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
import numcodecs
from dj_photon_codecs.anscombe.codec_v2 import AnscombeTransformV2

counts = np.load(sys.argv[1])
for dither in ("none", "position"):
    codec = AnscombeTransformV2(50, 10.0, dither=dither)
    assert numcodecs.get_codec(codec.get_config()) == codec
    np.save(sys.argv[2] + dither, codec.decode(codec.encode(counts)))
"""
    np.save(tmp_path / "counts.npy", COUNTS)
    command = [sys.executable, "-c", script, str(tmp_path / "counts.npy"), str(tmp_path / "out_")]
    subprocess.run(command, check=True)
    for dither in DITHERS:
        parameters = TransformParameters(50, 10.0, "uint8", "uint16", dither=dither)
        found = np.load(tmp_path / f"out_{dither}.npy")
        assert (found == decode(encode(COUNTS, parameters), parameters)).all()


def test_entry_points_hold_one_name_for_each_format() -> None:
    """What zarr and numcodecs find of this package."""
    found = {
        group: {point.name for point in distribution("dj-photon-codecs").entry_points.select(group=group)}
        for group in ("zarr.codecs", "numcodecs.codecs")
    }
    assert found == {
        "zarr.codecs": {"dj_photon_codecs.anscombe", "dj_photon_codecs.rans", "anscombe-v1"},
        "numcodecs.codecs": {"dj_photon_codecs.anscombe", "anscombe-v1"},
    }
