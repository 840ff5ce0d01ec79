"""The reader in JavaScript, written from the pages in docs/spec alone, decodes what the package wrote."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from data.make_golden import GOLDEN, RANS, RANS_V1, V1
from spec_reference_layout import chunks
from test_spec import worked_numbers

#: Of the golden movies those of which this reader decodes the codes; of the others, Zarr alone reads all.
MOVIES = [
    name
    for name in sorted(V1)
    if "dj_photon_codecs." in json.dumps(json.loads((GOLDEN / name / "row.json").read_text())["zarr"])
]


def run(jobs: list[dict[str, Any]], folder: Path) -> list[str]:
    """Have Node.js decode; what it prints."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js, which runs the reader in JavaScript, is not installed")
    (folder / "manifest.json").write_text(json.dumps(jobs))
    command = [node, str(Path(__file__).parent / "decode.mjs"), str(folder / "manifest.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def steps_of(document: dict[str, Any]) -> tuple[str, list[int], list[tuple[str, dict[str, Any]]]]:
    """Data type, chunk shape and codecs, name and configuration, of both Zarr formats."""
    if document["zarr_format"] == 3:
        inner = document["codecs"][0]["configuration"]
        named = [(codec["name"], codec.get("configuration", {})) for codec in inner["codecs"]]
        return document["data_type"], inner["chunk_shape"], named
    named = [(codec["id"], {key: codec[key] for key in codec if key != "id"}) for codec in document["filters"]]
    return np.dtype(document["dtype"]).name, document["chunks"], named


def decompressed(payload: bytes, codecs: list[tuple[str, dict[str, Any]]]) -> bytes:
    """Without its checksum and the compression that any package for Zarr undoes."""
    payload = payload[:-4]
    for name, _ in reversed(codecs):
        if name in ("zstd", "blosc"):
            payload = bytes(numcodecs.get_codec({"id": name}).decode(payload))
    return payload


@pytest.mark.parametrize("name", MOVIES)
def test_it_decodes_the_golden_movies(name: str, tmp_path: Path) -> None:
    """Every data type, with and without the entropy coder, of both Zarr formats."""
    [document] = json.loads((GOLDEN / name / "row.json").read_text())["zarr"].values()
    dtype, shape, codecs = steps_of(document)
    names = dict(codecs)
    transform = names.get("dj_photon_codecs.anscombe")
    whole = transform and transform["decoded_dtype"] != dtype  # whole numbers in floating point
    codes = transform["encoded_dtype"] if transform else dtype
    jobs: list[dict[str, Any]] = []
    places = []
    for place, payload in chunks(GOLDEN / name / "movie.zarr"):
        file = tmp_path / f"{len(jobs)}"
        file.write_bytes(decompressed(payload, codecs))
        rans = "dj_photon_codecs.rans" in names
        jobs.append({"file": str(file), "rans": rans, "shape": shape, "codes": codes, "configuration": transform})
        if whole:
            jobs[-1]["dtype"] = dtype
        places.append(place)
    assert run(jobs, tmp_path) == []
    expected = np.load(GOLDEN / name / "expected.npy")
    found = np.zeros_like(expected)
    for job, place in zip(jobs, places, strict=True):
        decoded = np.fromfile(f"{job['file']}.decoded", "float32" if dtype == "float16" else dtype).reshape(shape)
        region = found[tuple(slice(start, start + n) for start, n in zip(place, shape, strict=True))]
        region[...] = decoded[tuple(map(slice, region.shape))]
    np.testing.assert_array_equal(found, expected)


def test_it_decodes_the_golden_payloads_and_refuses_them_when_cut(tmp_path: Path) -> None:
    """Of the entropy coder: all of them whole, and none that ends early."""
    jobs: list[dict[str, Any]] = []
    for name, golden in RANS_V1.items():
        payload = (RANS / f"{name}.bin").read_bytes()
        for what, content in (("whole", payload), ("cut", payload[:-1]), ("longer", payload + b"\0")):
            (tmp_path / f"{name}.{what}").write_bytes(content)
            file = str(tmp_path / f"{name}.{what}")
            jobs.append({"file": file, "rans": True, "shape": golden.shape, "codes": golden.dtype})
    refused = {line.split(":")[0] for line in run(jobs, tmp_path)}
    assert refused == {job["file"] for job in jobs if not job["file"].endswith(".whole")}
    for name, golden in RANS_V1.items():
        decoded = np.fromfile(tmp_path / f"{name}.whole.decoded", golden.dtype).reshape(golden.shape)
        np.testing.assert_array_equal(decoded, golden.codes())


def test_it_computes_the_examples_of_the_page(tmp_path: Path) -> None:
    """What each code of the table stands for, with and without dither."""
    rows = [row for row in worked_numbers() if row["code"] != "error"]
    numbers = ("zero_level", "conversion_gain", "step", "under_root")
    jobs = [
        {
            "value": {
                "c": int(row["code"]),
                "k": 64 * (int(row["n"]) ** 5 % 4093) // 4093,
                "configuration": {
                    **{name: float(row[name]) for name in numbers},
                    **{name: row[name] for name in ("encoded_dtype", "decoded_dtype", "dither")},
                    "saturation": json.loads(row["saturation"]),
                },
            }
        }
        for row in rows
    ]
    found = run(jobs, tmp_path)
    assert [struct.pack("d", float(text)) for text in found] == [
        struct.pack("d", float(row["decoded"])) for row in rows
    ]
