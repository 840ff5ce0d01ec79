"""The dense profile, whole: smaller than the standard one, to the same counts, and honest about when it is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dj_photon_codecs import (
    Calibration,
    ConfigurationError,
    DamagedChunkError,
    DenseWarning,
    LosslessWarning,
    PhotonMovie,
    open_movie,
    write_movie,
)
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.compression import choose_compressor, entropy_coder_pays

NOISE = Calibration.given(20.0, 100.0)


def recording(shape: tuple[int, ...] = (40, 64, 64), dtype: str = "uint16", photons: float = 20.0) -> Any:
    """Poisson counts over a slope of light, at the gain and zero level of ``NOISE``."""
    light = np.broadcast_to(np.linspace(0.05, 1, shape[-1]) * photons, shape)
    return (100 + 20 * np.random.default_rng(0).poisson(light)).astype(dtype)


COUNTS = recording()


def codec_names(handle: Any) -> list[str]:
    """Names of the codecs of an inner chunk, as they are stored."""
    return [codec["name"] for codec in handle.documents["zarr.json"]["codecs"][0]["configuration"]["codecs"]]


def test_it_gives_the_counts_of_the_standard_profile_in_fewer_bytes(tmp_path: Path) -> None:
    standard = write_movie(tmp_path / "standard", COUNTS, calibration=NOISE)
    dense = write_movie(tmp_path / "dense", COUNTS, calibration=NOISE, profile="dense")
    assert dense.profile == "dense"
    assert dense.step == 0.5
    assert codec_names(dense) == ["dj_photon_codecs.anscombe", "dj_photon_codecs.rans", "crc32c"]
    np.testing.assert_array_equal(dense[:], standard[:])
    assert dense.compression_ratio > 1.05 * standard.compression_ratio
    assert dense.verify()
    opened = open_movie(tmp_path / "dense")
    np.testing.assert_array_equal(opened[17], standard[17])
    np.testing.assert_array_equal(np.stack(list(opened.frames(5, 30))), standard[5:30])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint64", "float32"])
def test_movies_of_every_dtype(tmp_path: Path, dtype: str) -> None:
    read_noise = np.random.default_rng(1).integers(0, 20, COUNTS.shape)
    counts = ((recording(photons=4.0) + read_noise) % 251).astype(dtype)
    standard = write_movie(tmp_path / "standard", counts, calibration=NOISE)
    dense = write_movie(tmp_path / "dense", counts, calibration=NOISE, profile="dense")
    assert dense.profile == "dense"
    assert dense.dtype == counts.dtype
    np.testing.assert_array_equal(dense[:], standard[:])


@pytest.mark.parametrize("shape", [(1, 64, 64), (70, 33, 31), (12, 3, 40, 41), (3, 400, 31)], ids=str)
def test_movies_of_every_shape(tmp_path: Path, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where chunks go beyond the edge, in time and in space."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 16 * 1024)
    counts = recording(shape)
    standard = write_movie(tmp_path / "standard", counts, calibration=NOISE)
    dense = write_movie(tmp_path / "dense", counts, calibration=NOISE, profile="dense")
    assert dense.profile == "dense"
    np.testing.assert_array_equal(dense[:], standard[:])


def test_padding_beyond_the_last_frame_costs_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 16 * 64 * 64)
    whole = write_movie(tmp_path / "16", COUNTS[:16], calibration=NOISE, profile="dense")
    padded = write_movie(tmp_path / "17", COUNTS[:17], calibration=NOISE, profile="dense")
    assert whole.record is not None
    assert padded.record is not None
    assert padded.record.stored_bytes - whole.record.stored_bytes < 4000  # one frame of 4096 pixels, at 4 bits and more


def test_16_bit_codes(tmp_path: Path) -> None:
    light = np.linspace(10, 20000, 64 * 64).reshape(1, 64, 64) * np.ones((20, 1, 1))
    counts = np.random.default_rng(0).poisson(light).astype(np.uint16)
    stored = write_movie(tmp_path / "m", counts, calibration=Calibration.given(1.0, 0.0), profile="dense")
    assert stored.profile == "dense"
    transform: Any = stored.metadata.codecs[0].codecs[0]  # type: ignore[union-attr]
    assert transform.encoded_dtype == "uint16"
    assert (np.abs(stored[:].astype(float) - counts) <= 0.25 * np.sqrt(light.max() * 1.1) + 0.5).all()


def test_a_movie_whose_codes_have_no_coder_is_standard_and_says_so(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 1 << 40, (4, 32, 32), np.int64)
    with pytest.warns(DenseWarning, match="does not pay for codes of uint32") as caught:
        stored = write_movie(tmp_path / "m", counts, calibration=Calibration.given(1.0, 0.0), profile="dense")
    assert caught[0].filename == __file__
    assert stored.profile == "standard"
    assert "dj_photon_codecs.rans" not in codec_names(stored)
    assert codec_names(stored)[0] == "dj_photon_codecs.anscombe"
    assert stored.verify()


def test_a_movie_that_a_compressor_makes_smaller_is_standard_and_says_so(tmp_path: Path) -> None:
    """In chunks as small as these, the states of the lanes cost more than the coder saves."""
    counts = (100 + 20 * np.random.default_rng(0).poisson(8, (8, 16, 24))).astype(np.uint16)
    with pytest.warns(DenseWarning, match="does not pay for codes of uint8.*stored with the standard profile"):
        stored = write_movie(tmp_path / "m", counts, calibration=NOISE, profile="dense")
    assert stored.profile == "standard"
    assert stored.verify()


@pytest.mark.filterwarnings("ignore:the given conversion gain")  # the counts are no photons
def test_a_movie_with_codes_of_more_than_16_bits_is_standard_and_says_so(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 8_000_000, (8, 64, 64), np.int32)
    with pytest.warns(DenseWarning, match="codes of uint32.*stored with the standard profile"):
        stored = write_movie(tmp_path / "m", counts, calibration=Calibration.given(0.01, 0.0), profile="dense")
    assert stored.profile == "standard"


def test_without_a_noise_model_it_is_lossless_and_coded_where_that_is_smaller(tmp_path: Path) -> None:
    counts = (COUNTS - 100) // 20  # whole photons: the gain of 1 is not measured here, but said to be unknown
    unknown = Calibration.unknown("none for this test")
    with pytest.warns(LosslessWarning):
        dense = write_movie(tmp_path / "dense", counts, calibration=unknown, profile="dense")
    with pytest.warns(LosslessWarning):
        standard = write_movie(tmp_path / "standard", counts, calibration=unknown)
    assert (dense.profile, standard.profile) == ("lossless", "lossless")
    assert "dj_photon_codecs.rans" in codec_names(dense)
    assert "dj_photon_codecs.rans" not in codec_names(standard)
    assert dense.compression_ratio > standard.compression_ratio
    np.testing.assert_array_equal(dense[:], counts)


def test_without_a_noise_model_a_compressor_is_used_where_that_is_smaller(tmp_path: Path) -> None:
    floats = COUNTS.astype(np.float32) / 3
    with pytest.warns(LosslessWarning) as caught:
        stored = write_movie(tmp_path / "m", floats, calibration=Calibration.unknown("none"), profile="dense")
    assert len(caught) == 1  # and not that the entropy coder was not used: dense is not what was stored
    assert "dj_photon_codecs.rans" not in codec_names(stored)
    np.testing.assert_array_equal(stored[:], floats)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"zarr_format": 2}, "the dense profile needs zarr_format=3, got 2"),
        ({"compressors": {"name": "zstd", "configuration": {"level": 1}}}, "own entropy coder, got compressors="),
    ],
    ids=str,
)
def test_options_that_contradict_it_are_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        write_movie(tmp_path / "m", COUNTS, calibration=NOISE, profile="dense", **options)
    assert not list(tmp_path.iterdir())


def test_moving_between_profiles_loses_nothing_more(tmp_path: Path) -> None:
    """DESIGN invariant 2."""
    standard = write_movie(tmp_path / "standard", COUNTS, calibration=NOISE)
    dense = write_movie(tmp_path / "dense", standard, profile="dense")
    again = write_movie(tmp_path / "again", dense, profile="dense")
    back = write_movie(tmp_path / "back", PhotonMovie(dense, profile="standard"))
    assert [handle.profile for handle in (dense, again, back)] == ["dense", "dense", "standard"]
    for handle in (dense, again, back):
        np.testing.assert_array_equal(handle[:], standard[:])
        assert handle.calibration == NOISE
    objects = [
        {path.relative_to(folder): path.read_bytes() for path in (folder / "c").rglob("*") if path.is_file()}
        for folder in (tmp_path / "dense", tmp_path / "again")
    ]
    assert objects[0] == objects[1]


def test_damage_is_named_with_its_chunk(tmp_path: Path) -> None:
    """Also where the checksum holds: the bytes were coded so."""
    from dj_photon_codecs.entropy.payload import CODED

    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE, profile="dense")
    array = zarr.open_array(tmp_path / "m", mode="r")
    assert array.dtype == COUNTS.dtype
    [shard] = [path for path in (tmp_path / "m" / "c").rglob("*") if path.is_file()]
    content = bytearray(shard.read_bytes())
    assert content[0] == CODED
    content[100] ^= 4
    shard.write_bytes(content)
    with pytest.raises(DamagedChunkError, match="frames 0 to 39.*is damaged"):
        open_movie(tmp_path / "m")[0]
    assert not open_movie(tmp_path / "m").verify()
    assert stored.shape == COUNTS.shape


def test_bright_rows_that_a_sample_missed_are_stored_all_the_same(tmp_path: Path) -> None:
    """From 8-bit codes to 16: the writer begins again."""
    counts = (recording((64, 32, 32)) - 100) // 20  # whole photons
    counts[1, :4] = 65535
    source = zarr.create_array(tmp_path / "source.zarr", shape=counts.shape, chunks=(8, 32, 32), dtype="uint16")
    source[:] = counts
    stored = write_movie(tmp_path / "m", source, calibration=Calibration.given(1.0, 0.0), profile="dense")
    assert stored.profile == "dense"
    assert stored[1, :4].min() > 60000


def test_the_entropy_coder_pays_where_it_says(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).poisson(np.linspace(1, 30, 64), (16, 64, 64)).astype(np.uint8)
    assert entropy_coder_pays(codes, choose_compressor(codes))
    constant = np.zeros((16, 64, 64), np.uint8)
    assert not entropy_coder_pays(constant, choose_compressor(constant))
    wide = codes.astype(np.int32)
    assert not entropy_coder_pays(wide, choose_compressor(wide))


def test_zarr_alone_reads_it_and_imports_neither_datajoint_nor_matplotlib(tmp_path: Path) -> None:
    write_movie(tmp_path / "m", COUNTS, calibration=NOISE, profile="dense")
    np.save(tmp_path / "expected.npy", open_movie(tmp_path / "m")[:])
    script = f"""
import sys
import numpy as np
import zarr
found = zarr.open_array({str(tmp_path / "m")!r}, mode="r")[:]
np.testing.assert_array_equal(found, np.load({str(tmp_path / "expected.npy")!r}))
assert not {{"datajoint", "matplotlib"}} & set(sys.modules)
print("read")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "read\n", done.stderr
