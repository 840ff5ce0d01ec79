"""The specification, the package and a second implementation written from the specification alone say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dj_photon_codecs import AnscombeTransformV2, AnscombeTransformV3, CodeRangeError
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.anscombe.transform import decode_codes, encode_counts, top_of_range
from spec_reference import FLOATS, INTEGER_RANGES, Reference, SpecError

SPEC = Path(__file__).parents[1] / "docs" / "spec"

COLUMNS = ["zero_level", "conversion_gain", "step", "encoded_dtype", "decoded_dtype", "count", "code", "decoded"]


def worked_numbers() -> list[dict[str, str]]:
    """The rows of the table on the page."""
    page = (SPEC / "anscombe.md").read_text()
    lines = page.split("## Worked numbers")[1].split("##")[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def parameters(reference: Reference) -> TransformParameters:
    return TransformParameters(
        zero_level=reference.zero_level,
        conversion_gain=reference.conversion_gain,
        encoded_dtype=reference.encoded_dtype,
        decoded_dtype=reference.decoded_dtype,
        step=reference.step,
    )


@pytest.mark.parametrize("row", worked_numbers(), ids=lambda row: "-".join(row.values()))
def test_worked_numbers_of_the_page(row: dict[str, str]) -> None:
    zero, gain, step = (float(row[name]) for name in COLUMNS[:3])
    reference = Reference(zero, gain, step, row["encoded_dtype"], row["decoded_dtype"])
    count: float = float(row["count"]) if row["decoded_dtype"] in FLOATS else int(row["count"])
    counts = np.array([count], row["decoded_dtype"])
    if row["code"] == "error":
        with pytest.raises(SpecError):
            reference.encode(count)
        with pytest.raises(CodeRangeError):
            encode_counts(counts, parameters(reference))
        return
    code = int(row["code"])
    assert reference.encode(count) == code
    assert reference.decode(code) == float(row["decoded"])
    assert encode_counts(counts, parameters(reference)).tolist() == [code]
    assert decode_codes(np.array([code], row["encoded_dtype"]), parameters(reference)).tolist() == [
        float(row["decoded"])
    ]


@st.composite
def configurations(draw: st.DrawFn) -> Reference:
    gain = draw(st.one_of(st.floats(1e-3, 1e4), st.sampled_from([0.25, 1.0, 2.0, 100.0])))
    zero = draw(st.one_of(st.floats(-1e6, 1e6), st.integers(-300, 300).map(float), st.floats(-20, 20)))
    step = draw(st.one_of(st.sampled_from([0.5, 1.0, 0.1]), st.floats(0.02, 8)))
    encoded = draw(st.sampled_from(sorted(INTEGER_RANGES)))
    decoded = draw(st.sampled_from([*sorted(INTEGER_RANGES), *sorted(FLOATS)]))
    return Reference(zero, gain, step, encoded, decoded)


def representable(reference: Reference, count: float) -> int | float:
    """The nearest number that the decoded dtype holds."""
    if reference.decoded_dtype in INTEGER_RANGES:
        low, high = INTEGER_RANGES[reference.decoded_dtype]
        return min(max(int(count), low), high)
    limit = FLOATS[reference.decoded_dtype][0]
    return float(np.dtype(reference.decoded_dtype).type(min(max(count, -limit), limit)))


@settings(max_examples=150)
@given(reference=configurations(), data=st.data())
def test_the_package_encodes_as_the_page_says(reference: Reference, data: st.DataObject) -> None:
    near = st.floats(-30, 300).map(lambda photons: reference.zero_level + reference.conversion_gain * photons)
    wide = st.one_of(near, st.floats(-1e20, 1e20), st.integers(-(2**63), 2**64).map(float))
    count = representable(reference, data.draw(wide))
    counts = np.array([count], reference.decoded_dtype)
    try:
        expected = reference.encode(count)
    except SpecError:
        with pytest.raises(CodeRangeError):
            encode_counts(counts, parameters(reference))
        return
    assert encode_counts(counts, parameters(reference)).tolist() == [expected]


@settings(max_examples=100)
@given(reference=configurations(), data=st.data())
def test_the_package_decodes_as_the_page_says(reference: Reference, data: st.DataObject) -> None:
    low, high = INTEGER_RANGES[reference.encoded_dtype]
    at_zero = min(max(int(reference.code(reference.zero_level)), low), high)
    near = st.integers(max(low, at_zero - 40), min(high, at_zero + 40))
    codes = data.draw(st.lists(st.one_of(near, near, st.integers(low, high)), min_size=1, max_size=20))
    codes.append(at_zero)  # the bin that the zero level divides
    decoded = decode_codes(np.array(codes, reference.encoded_dtype), parameters(reference)).tolist()
    assert decoded == [reference.decode(code) for code in codes]


@settings(max_examples=50)
@given(reference=configurations())
def test_the_fill_value_is_what_the_page_says(reference: Reference) -> None:
    assert top_of_range(parameters(reference)) == reference.fill_value()


@pytest.mark.parametrize(
    ("count", "decoded_dtype"),
    [(float("nan"), "float32"), (float("inf"), "float64"), (0.5, "uint16"), (70000.0, "uint16"), (2.0**63, "uint64")],
    ids=str,
)
def test_what_the_page_calls_an_error_is_one(count: float, decoded_dtype: str) -> None:
    reference = Reference(0.0, 1.0, 0.5, "uint64", decoded_dtype)
    with pytest.raises(SpecError):
        reference.encode(count)
    with pytest.raises(CodeRangeError):
        encode_counts(np.array([count]), parameters(reference))


def test_schema_of_the_codec() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((SPEC / "anscombe.schema.json").read_text())
    examples = re.findall(r"```json\n(.*?)```", (SPEC / "anscombe.md").read_text(), re.DOTALL)
    v3, v2 = (json.loads(text) for text in examples[:2])
    jsonschema.validate(v3, schema)
    assert AnscombeTransformV3.from_dict(v3).to_dict() == v3
    codec = numcodecs.get_codec(dict(v2))
    assert isinstance(codec, AnscombeTransformV2)
    assert codec.get_config() == v2
    configuration = v3["configuration"]
    for change in (
        {"unknown": 1},
        {"conversion_gain": 0},
        {"step": 0},
        {"encoded_dtype": "float32"},
        {"zero_level": "0"},
    ):
        wrong = {**v3, "configuration": {**configuration, **change}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        with pytest.raises(ValueError, match="."):
            AnscombeTransformV3.from_dict(wrong)
    for name in configuration:
        wrong = {**v3, "configuration": {key: value for key, value in configuration.items() if key != name}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        with pytest.raises(ValueError, match=name):
            AnscombeTransformV3.from_dict(wrong)
