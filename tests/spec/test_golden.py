"""Movies that earlier releases wrote read as they did then, in every way there is to read them (DESIGN invariant 9)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

import spec_reference_rans
from data.make_golden import GOLDEN, RANS, RANS_V1, SUMS, V1
from dj_photon_codecs import PhotonArray, PhotonCodec, open_movie
from dj_photon_codecs.entropy.coder import decode
from spec_reference import Reference, level
from spec_reference_layout import checksums, digest

SPEC = Path(__file__).parents[2] / "docs" / "spec"

#: All of them, by name: what is missing fails, and so does what stands in the folder and not here.
NAMES = (
    "v1_uint16",
    "v1_int16_negative",
    "v1_float32_whole",
    "v1_float32_real",
    "v1_photons_8bit",
    "v1_photons_16bit",
    "v1_steep",
    "v1_dark",
    "v1_saturated",
    "v1_float32_saturated",
    "v1_step_2",
    "v1_lossless",
    "v1_nothing_to_gain",
    "v1_portable",
    "v1_blosc",
    "v1_shard_edges",
    "v1_split_frames",
    "v1_4d",
    "v1_zarr2",
    "v1_zarr2_float32_whole",
    "v1_zarr2_shard_edges",
    "v1_dense",
    "v1_dense_16bit",
    "v1_dense_lossless",
    "v1_uint8",
    "v1_int8",
    "v1_uint32",
    "v1_uint64",
    "v1_int64",
    "v1_float16_whole",
    "v1_float64_real",
    "v1_int16_saturated",
    "v1_wide_frames",
    "v1_dense_int8",
    "v1_dense_bands",
    "v1_dense_widths",
    "v1_dense_500",
    "v1_dense_4d",
    "v1_portable_float32_real",
    "v1_portable_int16_negative",
    "v1_portable_blocks",
    "v1_portable_dithered",
    "v1_piece",
    "v1_zarr2_portable",
    "v1_zarr2_lossless",
    "v1_zarr2_int16_negative",
    "v1_legacy",
    "v1_zarr2_legacy",
)


def expected(name: str) -> np.ndarray[Any, Any]:
    counts: np.ndarray[Any, Any] = np.load(GOLDEN / name / "expected.npy")
    return counts


def assert_identical(found: object, name: str) -> None:
    wanted = expected(name)
    found = np.asarray(found)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_all_golden_files_are_there_and_none_besides() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()) == sorted(NAMES)
    assert sorted(V1) == sorted(NAMES)


def test_no_golden_file_was_changed_since_it_was_made() -> None:
    recorded = {name: digest for digest, name in (line.split("  ") for line in SUMS.read_text().splitlines())}
    files = [path for path in GOLDEN.rglob("*") if path.is_file() and path != SUMS]
    assert {
        path.relative_to(GOLDEN).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    } == recorded


@pytest.mark.parametrize("name", NAMES)
def test_open_movie_reads_it(name: str) -> None:
    stored = open_movie(GOLDEN / name / "movie.zarr")
    assert_identical(stored[...], name)
    assert_identical(np.stack(list(stored.frames())), name)
    assert stored.verify()
    assert stored.record is not None
    assert stored.record.format_version == 1


def test_a_bare_zarr_reads_them_through_the_entry_points() -> None:
    script = f"""
import sys
from functools import cache
from pathlib import Path
import numpy as np
import zarr
for folder in sys.argv[1:]:
    found = zarr.open_array(Path(folder) / "movie.zarr", mode="r")[...]
    wanted = np.load(Path(folder) / "expected.npy")
    assert found.dtype == wanted.dtype and (found == wanted).all(), folder
heavy = {{"datajoint", "matplotlib", "pandas", "dj_photon_codecs.codec"}} & set(sys.modules)
assert not heavy, heavy
print({len(NAMES)}, "read")
"""
    command = [sys.executable, "-W", "error", "-c", script, *(str(GOLDEN / name) for name in NAMES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == f"{len(NAMES)} read\n", done.stderr


@pytest.mark.parametrize("as_text", [True, False], ids=["string, as from MySQL", "dict, as from PostgreSQL"])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_then_gives_a_handle_now(name: str, as_text: bool) -> None:
    text = (GOLDEN / name / "row.json").read_text()
    config = dj.settings.Config()
    config.stores = {"default": "other", "imaging": {"protocol": "file", "location": str(GOLDEN)}}
    stored = PhotonCodec().decode(text if as_text else json.loads(text), key={"_config": config})
    assert isinstance(stored, PhotonArray)
    assert_identical(stored[...], name)
    assert stored == open_movie(GOLDEN / name / "movie.zarr")  # a row and the store say the same


def places_in_chunks(document: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The place `n` of each count in its inner chunk, in C order, from the stored metadata."""
    [metadata] = document["zarr"].values()
    if metadata["zarr_format"] == 2:
        chunk = metadata["chunks"]
    else:
        chunk = metadata["codecs"][0]["configuration"]["chunk_shape"]
    coordinates = [index % size for index, size in zip(np.indices(metadata["shape"]), chunk, strict=True)]
    return np.asarray(np.ravel_multi_index(coordinates, chunk))


@pytest.mark.parametrize("name", [name for name in NAMES if "legacy" not in name])  # that format has golden files
def test_its_counts_are_what_the_specification_says(name: str) -> None:
    """No product code: what was inserted and the expected counts follow from the pages in docs/spec."""
    counts = np.load(GOLDEN / name / "counts.npy")
    np.testing.assert_array_equal(counts, V1[name].counts()[V1[name].piece :])
    document = json.loads((GOLDEN / name / "row.json").read_text())
    wanted = expected(name)
    assert ("reason" in document) == (name in ("v1_nothing_to_gain", "v1_piece"))
    assert document.get("rounded") == (0.5 if name == "v1_piece" else None)
    if name == "v1_piece":  # the same movie, from its fourth frame on, and not rounded again
        np.testing.assert_array_equal(wanted, expected("v1_uint16")[3:])
        return
    if document["profile"] == "lossless":
        np.testing.assert_array_equal(wanted, counts)
        return
    model = document["calibration"]
    whole = counts.dtype.kind == "f" and bool((counts == np.rint(counts)).all())
    reference = Reference(
        zero_level=model["zero_level"],
        conversion_gain=model["conversion_gain"],
        step=document["step"],
        encoded_dtype="int64",
        decoded_dtype="uint16" if whole else counts.dtype.name,
        dither="position",
        under_root=model["under_root"],
        saturation=model["saturation"],
    )
    places = places_in_chunks(document).ravel()
    levels = [level(n) if document.get("dithered") else 39 * (n // 65536) % 64 for n in places.tolist()]
    position, value = cache(reference.position), cache(reference.value)
    found = [value((position(count) + k) // 64, k) for count, k in zip(counts.ravel().tolist(), levels, strict=True)]
    np.testing.assert_array_equal(wanted, np.array(found).reshape(counts.shape).astype(counts.dtype))


@pytest.mark.parametrize("name", NAMES)
def test_its_row_is_valid_by_the_schema(name: str) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((SPEC / "row.schema.json").read_text())
    jsonschema.validate(json.loads((GOLDEN / name / "row.json").read_text()), schema)
    example = (SPEC / "layout.md").read_text().split("```json")[1].split("```")[0]
    jsonschema.validate(json.loads(example), schema)


@pytest.mark.parametrize("name", NAMES)
def test_its_checksums_and_digest_are_what_the_specification_says(name: str) -> None:
    """No product code here either."""
    row = json.loads((GOLDEN / name / "row.json").read_text())
    assert row["checksums"] == checksums(GOLDEN / name / "movie.zarr")
    assert row["digest"] == digest(row)


# Payloads of the entropy coder

RANS_NAMES = (
    "v1_uint8",
    "v1_int8",
    "v1_uint16",
    "v1_int16",
    "v1_lane_rests",
    "v1_narrow",
    "v1_one_band",
    "v1_two_bands",
    "v1_three_bands",
    "v1_planes",
    "v1_one_row",
    "v1_one_pixel",
    "v1_escapes",
    "v1_blank_frames",
    "v1_all_blank",
    "v1_dithered",
    "v1_dithered_bands",
    "v1_low_bits",
    "v1_low_bits_bands",
    "v1_plain",
    "v1_plain_int16",
)


def test_all_golden_payloads_are_there_and_none_was_changed() -> None:
    recorded = dict(line.split("  ")[::-1] for line in (RANS / "SHA256SUMS").read_text().splitlines())
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in RANS.glob("*.bin")}
    assert files == recorded
    assert sorted(files) == sorted(f"{name}.bin" for name in RANS_NAMES)
    assert sorted(RANS_V1) == sorted(RANS_NAMES)


@pytest.mark.parametrize("name", RANS_NAMES)
def test_a_golden_payload_is_decoded(name: str) -> None:
    """By the package, and by the decoder that the page alone describes."""
    golden, payload = RANS_V1[name], (RANS / f"{name}.bin").read_bytes()
    codes = golden.codes()
    np.testing.assert_array_equal(decode(payload, golden.shape, codes.dtype), codes)
    assert spec_reference_rans.decode(payload, golden.shape, golden.dtype) == codes.ravel().tolist()


def test_golden_payloads_have_what_their_names_say() -> None:
    found = {}
    for name, golden in RANS_V1.items():
        payload = (RANS / f"{name}.bin").read_bytes()
        assert payload[0] == (not name.startswith("v1_plain"))
        if payload[0]:
            found[name] = spec_reference_rans.read(spec_reference_rans.Bytes(payload), golden.shape, golden.dtype)
    assert [len(found[f"v1_{n}"].bands) for n in ("one_band", "two_bands", "three_bands", "all_blank")] == [1, 2, 3, 0]
    for name, coded in found.items():
        assert list(coded.blank) == list(RANS_V1[name].blank)
        assert coded.header.dithered == RANS_V1[name].dithered
        assert (coded.header.low_bits > 0) == ("low_bits" in name)
    assert sum(len(band.escapes) for band in found["v1_escapes"].bands) == 4
    assert all(band.escapes for band in found["v1_three_bands"].bands[:2])
