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
from dj_photon_codecs._dither import offset_levels
from dj_photon_codecs.anscombe.cells import cells_of
from dj_photon_codecs.anscombe.codes import decode, encode, fill_count
from dj_photon_codecs.anscombe.parameters import DITHERS, TransformParameters
from spec_reference import FLOATS, INTEGER_RANGES, Reference, SpecError, level

SPEC = Path(__file__).parents[2] / "docs" / "spec"
PAGE = (SPEC / "anscombe.md").read_text()

COLUMNS = [
    "zero_level",
    "conversion_gain",
    "step",
    "under_root",
    "saturation",
    "encoded_dtype",
    "decoded_dtype",
    "dither",
    "n",
    "count",
    "code",
    "decoded",
]

#: Any place: in the first period, at its end, in the second, and far on.
PLACES = st.one_of(st.integers(0, 3 * 4093), st.sampled_from([4092, 4093, 8191, 8192, 65535, 65536]))


def worked_numbers() -> list[dict[str, str]]:
    """The rows of the table on the page."""
    lines = PAGE.split("## Examples")[1].split("##")[0].strip().splitlines()
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
        dither=reference.dither,
        under_root=reference.under_root,
        saturation=reference.saturation,
    )


def package_code(reference: Reference, count: float, n: int, dtype: str | None = None) -> int:
    """The code of a count at the place `n` of a chunk that holds it everywhere."""
    counts = np.full(n + 1, count, dtype or reference.decoded_dtype)
    return int(encode(counts, parameters(reference))[n])


def package_count(reference: Reference, code: int, n: int) -> float:
    """The count of a code at the place `n` of a chunk that holds it everywhere."""
    codes = np.full(n + 1, code, reference.encoded_dtype)
    return float(decode(codes, parameters(reference))[n])


def test_the_levels_are_those_of_the_page() -> None:
    """Levels of a whole period, and the page's list of the first 16."""
    listed = re.search(r"The first 16 levels are ([\d, ]+)\.", PAGE)
    assert listed is not None
    assert [level(n) for n in range(16)] == [int(number) for number in listed[1].split(",")]
    assert offset_levels().tolist() == [level(n) for n in range(4093)]
    assert [level(n) for n in range(4093, 4200)] == [level(n) for n in range(107)]


@pytest.mark.parametrize("row", worked_numbers(), ids=lambda row: "-".join(row.values()))
def test_worked_numbers_of_the_page(row: dict[str, str]) -> None:
    """Each row holds for the reference and for the package."""
    zero, gain, step, under_root = (float(row[name]) for name in COLUMNS[:4])
    saturation = None if row["saturation"] == "null" else float(row["saturation"])
    types = row["encoded_dtype"], row["decoded_dtype"]
    reference = Reference(zero, gain, step, *types, row["dither"], under_root, saturation)
    count: float = float(row["count"]) if row["decoded_dtype"] in FLOATS else int(row["count"])
    n = int(row["n"])
    if row["code"] == "error":
        with pytest.raises(SpecError):
            reference.encode(count, n)
        with pytest.raises(CodeRangeError):
            package_code(reference, count, n)
        return
    code = int(row["code"])
    assert reference.encode(count, n) == code
    assert reference.decode(code, n) == float(row["decoded"])
    assert package_code(reference, count, n) == code
    assert package_count(reference, code, n) == float(row["decoded"])


@st.composite
def configurations(draw: st.DrawFn, decoded: tuple[str, ...] = (*INTEGER_RANGES, *FLOATS)) -> Reference:
    """Cells of one count and wider ones, zero levels of both signs, every pair of dtypes."""
    gain = draw(st.one_of(st.floats(1e-3, 1e4), st.floats(0.05, 10), st.sampled_from([0.25, 1.0, 2.0, 100.0])))
    zero = draw(st.one_of(st.floats(-1e6, 1e6), st.integers(-300, 300).map(float), st.floats(-20, 20)))
    step = draw(st.one_of(st.sampled_from([0.5, 1.0, 0.1]), st.floats(0.02, 8)))
    under_root = draw(st.one_of(st.just(0.375), st.floats(1e-3, 0.375)))
    of_counts = draw(st.sampled_from(sorted(decoded)))
    saturation = draw(st.one_of(st.none(), st.integers(-10, 5000).map(float), st.sampled_from([255.0, 4095.0])))
    dither = draw(st.sampled_from(DITHERS))
    encoded = draw(st.sampled_from(sorted(INTEGER_RANGES)))
    return Reference(zero, gain, step, encoded, of_counts, dither, under_root, saturation)


def representable(reference: Reference, count: float) -> int | float:
    """The nearest number that the decoded dtype holds."""
    if reference.whole:
        low, high = INTEGER_RANGES[reference.decoded_dtype]
        return min(max(int(count), low), high)
    limit = FLOATS[reference.decoded_dtype][0]
    return float(np.dtype(reference.decoded_dtype).type(min(max(count, -limit), limit)))


def interesting(reference: Reference) -> st.SearchStrategy[float]:
    """Counts near the zero level, near 0, near the saturation, where cells begin to be wider than a count, anywhere."""
    gain, zero = reference.conversion_gain, reference.zero_level
    near = st.floats(-30, 300).map(lambda photons: zero + gain * photons)
    joints = [run.start for run in reference.runs if abs(run.start) < 1e18]
    beside = st.tuples(st.sampled_from(joints), st.integers(-3, 3)).map(lambda at: float(round(at[0]) + at[1]))
    wide = st.one_of(st.floats(-1e20, 1e20), st.integers(-(2**63), 2**64).map(float))
    return st.one_of(near, near, beside, st.sampled_from([0.0, 1.0, -1.0]), wide)


@settings(max_examples=60)
@given(reference=configurations(), data=st.data(), n=PLACES)
def test_the_package_encodes_as_the_page_says(reference: Reference, data: st.DataObject, n: int) -> None:
    """The same code at any place, or an error where the page has one."""
    count = representable(reference, data.draw(interesting(reference)))
    try:
        expected = reference.encode(count, n)
    except SpecError:
        with pytest.raises(CodeRangeError):
            package_code(reference, count, n)
        return
    assert package_code(reference, count, n) == expected


@settings(max_examples=25)
@given(reference=configurations(tuple(INTEGER_RANGES)), data=st.data(), n=PLACES)
def test_floating_point_arrays_encode_as_the_page_says(reference: Reference, data: st.DataObject, n: int) -> None:
    """A float64 array with an integer decoded_dtype: whole numbers get the codes of the integers."""
    count = float(representable(reference, data.draw(interesting(reference))))
    try:
        expected = reference.encode(count, n)
    except SpecError:
        with pytest.raises(CodeRangeError):
            package_code(reference, count, n, "float64")
        return
    assert package_code(reference, count, n, "float64") == expected


@settings(max_examples=60)
@given(reference=configurations(), data=st.data(), n=PLACES)
def test_the_package_decodes_as_the_page_says(reference: Reference, data: st.DataObject, n: int) -> None:
    """Every code of the encoded dtype, whether a count has it or not, at any place."""
    low, high = INTEGER_RANGES[reference.encoded_dtype]
    numbers = [run.number - reference.number_of_0 for run in reference.runs]
    beside = [min(max(int(number), low), high) for number in [*numbers, 0.0]]
    around = [st.integers(max(low, code - 20), min(high, code + 20)) for code in beside]
    codes = data.draw(st.lists(st.one_of(*around, st.integers(low, high)), min_size=1, max_size=6)) + beside
    at = level(n) if reference.dither == "position" else None
    found = cells_of(parameters(reference)).counts(np.array(codes, np.float64), at)
    assert found.dtype == reference.decoded_dtype
    assert found.tolist() == [reference.value(float(code), at) for code in codes]


@settings(max_examples=15)
@given(reference=configurations(("uint8", "int16", "uint16", "float32")), data=st.data(), n=PLACES)
def test_chunks_decode_as_the_page_says(reference: Reference, data: st.DataObject, n: int) -> None:
    """A code at any place of a whole chunk, as the codecs decode it."""
    count = representable(reference, data.draw(interesting(reference)))
    low, high = INTEGER_RANGES[reference.encoded_dtype]
    code = min(max(int(reference.cell(count)), low), high)
    assert package_count(reference, code, n) == reference.decode(code, n)


@settings(max_examples=20)
@given(reference=configurations())
def test_the_fill_value_is_what_the_page_says(reference: Reference) -> None:
    """The count that a writer gives to chunks that are lost."""
    assert fill_count(parameters(reference)) == reference.fill_value()


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize(
    ("count", "decoded_dtype"),
    [
        (float("nan"), "float32"),
        (float("inf"), "float64"),
        (60000.5, "float16"),
        (0.5, "uint16"),
        (70000.0, "uint16"),
        (2.0**63, "uint64"),
    ],
    ids=str,
)
def test_what_the_page_calls_an_error_is_one(count: float, decoded_dtype: str, dither: str) -> None:
    """Not finite, not whole, not in the range of the dtype, or not resolved by it."""
    reference = Reference(0.0, 1.0, 0.5, "uint64", decoded_dtype, dither)
    with pytest.raises(SpecError):
        reference.encode(count)
    with pytest.raises(CodeRangeError):
        encode(np.array([count]), parameters(reference))


def test_schema_of_the_codec() -> None:
    """The schema, the page's examples and both codecs accept and refuse the same metadata."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((SPEC / "anscombe.schema.json").read_text())
    examples = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
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
        {"dither": "random"},
        {"dither": None},
        {"under_root": 0},
        {"under_root": 0.376},
        {"under_root": None},
        {"saturation": "4095"},
    ):
        wrong = {**v3, "configuration": {**configuration, **change}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        with pytest.raises(ValueError, match="."):
            AnscombeTransformV3.from_dict(wrong)
        with pytest.raises(ValueError, match="."):
            numcodecs.get_codec({**v2, **change})
    for name in configuration:
        wrong = {**v3, "configuration": {key: value for key, value in configuration.items() if key != name}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        with pytest.raises(ValueError, match=name):
            AnscombeTransformV3.from_dict(wrong)
        with pytest.raises(ValueError, match=name):
            numcodecs.get_codec({key: value for key, value in v2.items() if key != name})
    changes: list[dict[str, Any]] = [
        *({"dither": dither} for dither in DITHERS),
        {"saturation": None},
        {"under_root": 0.01},
    ]
    for change in changes:
        right = {**configuration, **change}
        jsonschema.validate({**v3, "configuration": right}, schema)
        assert AnscombeTransformV3.from_dict({**v3, "configuration": right}).to_dict()["configuration"] == right
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**v3, "name": "anscombe-v1"}, schema)
    with pytest.raises(ValueError, match="anscombe-v1"):
        AnscombeTransformV3.from_dict({**v3, "name": "anscombe-v1"})
