"""Movies that earlier releases wrote read as they did then, in every way there is to read them (DESIGN invariant 9)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

from data.make_golden import GOLDEN, SUMS, V1
from dj_photon_codecs import PhotonArray, PhotonCodec, open_movie
from spec_reference import Reference
from spec_reference_dithered import DitheredReference
from spec_reference_layout import checksums, digest

SPEC = Path(__file__).parents[1] / "docs" / "spec"

#: All of them, by name: what is missing fails, and so does what stands in the folder and not here.
NAMES = (
    "v1_uint16",
    "v1_int16_negative",
    "v1_float32_whole",
    "v1_float32_real",
    "v1_lossless",
    "v1_portable",
    "v1_zarr2",
    "v1_zarr2_float32_whole",
    "v1_shard_edges",
    "v1_split_frames",
    "v1_4d",
    "v1_codes_16bit",
    "v1_step_2",
    "v1_gain_below_1",
    "v1_blosc",
    "v1_dense",
    "v1_dense_16bit",
    "v1_dense_lossless",
    "v1_checksums",
    "v1_checksums_zarr2",
    "v1_dithered_uint16",
    "v1_dithered_int16_negative",
    "v1_dithered_float32_whole",
    "v1_dithered_float32_real",
    "v1_dithered_zarr2",
    "v1_dithered_steep",
    "v1_dithered_shard_edges",
    "v1_dithered_split_frames",
    "v1_dithered_codes_16bit",
    "v1_dithered_dense",
    "v1_dithered_dense_16bit",
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


@pytest.mark.parametrize("name", NAMES)
def test_its_counts_are_what_the_specification_says(name: str) -> None:
    """No product code: what was inserted and the expected counts follow from the pages in docs/spec."""
    counts = np.load(GOLDEN / name / "counts.npy")
    np.testing.assert_array_equal(counts, V1[name].counts())
    document = json.loads((GOLDEN / name / "row.json").read_text())
    wanted = expected(name)
    if document["profile"] == "lossless":
        np.testing.assert_array_equal(wanted, counts)
        return
    model = document["calibration"]
    whole = counts.dtype.kind == "f" and bool((counts == np.rint(counts)).all())
    decoded = "uint16" if whole else counts.dtype.name
    settings = model["zero_level"], model["conversion_gain"], document["step"], "int64", decoded
    if document.get("dithered"):
        dithered = DitheredReference(*settings)
        levels = [
            dithered.decode_at(dithered.encode_at(count, n), n)
            for count, n in zip(counts.ravel().tolist(), places_in_chunks(document).ravel().tolist(), strict=True)
        ]
        np.testing.assert_array_equal(wanted, np.array(levels).reshape(counts.shape).astype(counts.dtype))
        return
    reference = Reference(*settings)
    distinct, places = np.unique(counts, return_inverse=True)
    levels = [reference.decode(reference.encode(count)) for count in distinct.tolist()]
    np.testing.assert_array_equal(wanted, np.array(levels)[places].reshape(counts.shape).astype(counts.dtype))


@pytest.mark.parametrize("name", NAMES)
def test_its_row_is_valid_by_the_schema(name: str) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((SPEC / "row.schema.json").read_text())
    jsonschema.validate(json.loads((GOLDEN / name / "row.json").read_text()), schema)
    example = (SPEC / "layout.md").read_text().split("```json")[1].split("```")[0]
    jsonschema.validate(json.loads(example), schema)


@pytest.mark.parametrize("name", NAMES)
def test_its_checksums_and_digest_are_what_the_specification_says(name: str) -> None:
    """No product code here either; stores of before they were recorded have none, and read all the same."""
    row = json.loads((GOLDEN / name / "row.json").read_text())
    assert ("checksums" in row) == ("digest" in row)
    if "checksums" in name or "checksums" in row:
        assert row["checksums"] == checksums(GOLDEN / name / "movie.zarr")
        assert row["digest"] == digest(row)
