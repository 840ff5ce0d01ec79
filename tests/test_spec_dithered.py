"""The page of the dithered codec, the package and a second implementation written from the page alone say the same."""

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

from dj_photon_codecs import CodeRangeError, DitheredAnscombeV2, DitheredAnscombeV3
from dj_photon_codecs._dither import offset, offset_levels
from dj_photon_codecs.anscombe.dithered import _counts_of, decode_dithered, encode_dithered, fill_count
from dj_photon_codecs.anscombe.parameters import TransformParameters
from spec_reference import FLOATS, INTEGER_RANGES, SpecError
from spec_reference_dithered import DitheredReference, level
from spec_reference_dithered import offset as offset_of_page

SPEC = Path(__file__).parents[1] / "docs" / "spec"
PAGE = (SPEC / "dithered.md").read_text()

COLUMNS = ["zero_level", "conversion_gain", "step", "encoded_dtype", "decoded_dtype", "n", "count", "code", "decoded"]

#: Any place: in the first period, at its end, in the second, and far on.
PLACES = st.one_of(st.integers(0, 3 * 4093), st.sampled_from([4092, 4093, 8191, 8192, 65535, 65536]))


def worked_numbers() -> list[dict[str, str]]:
    """The rows of the table on the page."""
    lines = PAGE.split("## Worked numbers")[1].split("##")[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def parameters(reference: DitheredReference) -> TransformParameters:
    return TransformParameters(
        zero_level=reference.zero_level,
        conversion_gain=reference.conversion_gain,
        encoded_dtype=reference.encoded_dtype,
        decoded_dtype=reference.decoded_dtype,
        step=reference.step,
    )


def package_code(reference: DitheredReference, count: float, n: int, dtype: str | None = None) -> int:
    """The code of a count at the place `n` of a chunk that holds it everywhere."""
    counts = np.full(n + 1, count, dtype or reference.decoded_dtype)
    return int(encode_dithered(counts, parameters(reference))[n])


def package_count(reference: DitheredReference, code: int, n: int) -> float:
    """The count of a code at the place `n` of a chunk that holds it everywhere."""
    codes = np.full(n + 1, code, reference.encoded_dtype)
    return float(decode_dithered(codes, parameters(reference))[n])


def test_the_offsets_are_those_of_the_page() -> None:
    """Levels and offsets of a whole period, and the page's list of the first 16."""
    listed = re.search(r"The first 16 levels are ([\d, ]+)\.", PAGE)
    assert listed is not None
    assert [level(n) for n in range(16)] == [int(number) for number in listed[1].split(",")]
    assert offset_levels().tolist() == [level(n) for n in range(4093)]
    assert offset(offset_levels()).tolist() == [offset_of_page(n) for n in range(4093)]
    assert [level(n) for n in range(4093, 4200)] == [level(n) for n in range(107)]


@pytest.mark.parametrize("row", worked_numbers(), ids=lambda row: "-".join(row.values()))
def test_worked_numbers_of_the_page(row: dict[str, str]) -> None:
    """Each row holds for the reference and for the package."""
    zero, gain, step = (float(row[name]) for name in COLUMNS[:3])
    reference = DitheredReference(zero, gain, step, row["encoded_dtype"], row["decoded_dtype"])
    count: float = float(row["count"]) if row["decoded_dtype"] in FLOATS else int(row["count"])
    n = int(row["n"])
    if row["code"] == "error":
        with pytest.raises(SpecError):
            reference.encode_at(count, n)
        with pytest.raises(CodeRangeError):
            package_code(reference, count, n)
        return
    code = int(row["code"])
    assert reference.encode_at(count, n) == code
    assert reference.decode_at(code, n) == float(row["decoded"])
    assert package_code(reference, count, n) == code
    assert package_count(reference, code, n) == float(row["decoded"])


@st.composite
def configurations(draw: st.DrawFn, decoded: tuple[str, ...] = (*INTEGER_RANGES, *FLOATS)) -> DitheredReference:
    """Steep and not, zero levels of both signs, every pair of dtypes."""
    gain = draw(st.one_of(st.floats(1e-3, 1e4), st.floats(0.05, 10), st.sampled_from([0.25, 1.0, 2.0, 100.0])))
    zero = draw(st.one_of(st.floats(-1e6, 1e6), st.integers(-300, 300).map(float), st.floats(-20, 20)))
    step = draw(st.one_of(st.sampled_from([0.5, 1.0, 0.1]), st.floats(0.02, 8)))
    encoded = draw(st.sampled_from(sorted(INTEGER_RANGES)))
    of_counts = draw(st.sampled_from(sorted(decoded)))
    return DitheredReference(zero, gain, step, encoded, of_counts)


def representable(reference: DitheredReference, count: float) -> int | float:
    """The nearest number that the decoded dtype holds."""
    if reference.decoded_dtype in INTEGER_RANGES:
        low, high = INTEGER_RANGES[reference.decoded_dtype]
        return min(max(int(count), low), high)
    limit = FLOATS[reference.decoded_dtype][0]
    return float(np.dtype(reference.decoded_dtype).type(min(max(count, -limit), limit)))


def interesting(reference: DitheredReference) -> st.SearchStrategy[float]:
    """Counts near the zero level, near the edge of a steep signal, near 0, and anywhere."""
    gain, zero = reference.conversion_gain, reference.zero_level
    near = st.floats(-30, 300).map(lambda photons: zero + gain * photons)
    edge = reference.edge if reference.steep and abs(reference.edge) < 1e18 else zero
    beside = st.integers(-3, 3).map(lambda step: float(round(edge) + step))
    wide = st.one_of(st.floats(-1e20, 1e20), st.integers(-(2**63), 2**64).map(float))
    return st.one_of(near, beside, st.sampled_from([0.0, 1.0, -1.0]), wide)


@settings(max_examples=35)
@given(reference=configurations(), data=st.data(), n=PLACES)
def test_the_package_encodes_as_the_page_says(reference: DitheredReference, data: st.DataObject, n: int) -> None:
    """The same code at any place, or an error where the page has one."""
    count = representable(reference, data.draw(interesting(reference)))
    try:
        expected = reference.encode_at(count, n)
    except SpecError:
        with pytest.raises(CodeRangeError):
            package_code(reference, count, n)
        return
    assert package_code(reference, count, n) == expected


@settings(max_examples=25)
@given(reference=configurations(tuple(INTEGER_RANGES)), data=st.data(), n=PLACES)
def test_floating_point_arrays_encode_as_the_page_says(
    reference: DitheredReference, data: st.DataObject, n: int
) -> None:
    """A float64 array with an integer decoded_dtype: whole numbers get the codes of the integers."""
    count = float(representable(reference, data.draw(interesting(reference))))
    try:
        expected = reference.encode_at(count, n)
    except SpecError:
        with pytest.raises(CodeRangeError):
            package_code(reference, count, n, "float64")
        return
    assert package_code(reference, count, n, "float64") == expected


@settings(max_examples=60)
@given(reference=configurations(), data=st.data(), n=PLACES)
def test_the_package_decodes_as_the_page_says(reference: DitheredReference, data: st.DataObject, n: int) -> None:
    """Every code of the encoded dtype, whether a count has it or not, at any place."""
    low, high = INTEGER_RANGES[reference.encoded_dtype]

    def code_near(count: float) -> int:
        return min(max(int(reference.dithered_code(count, 0.0)), low), high)

    edge = reference.edge if reference.steep and abs(reference.edge) < 1e18 else reference.zero_level
    beside = [code_near(reference.zero_level), code_near(edge), code_near(0)]
    around = [st.integers(max(low, code - 20), min(high, code + 20)) for code in beside]
    codes = data.draw(st.lists(st.one_of(*around, st.integers(low, high)), min_size=1, max_size=6))
    codes += beside  # the bin that the zero level divides, and where the signal bends
    found = _counts_of(np.array(codes, np.float64), offset(offset_levels()[n % 4093]), parameters(reference))
    assert found.dtype == reference.decoded_dtype
    assert found.tolist() == [reference.decode_at(code, n) for code in codes]


@settings(max_examples=10)
@given(reference=configurations(("uint8", "int16", "uint16", "float32")), data=st.data(), n=PLACES)
def test_chunks_decode_as_the_page_says(reference: DitheredReference, data: st.DataObject, n: int) -> None:
    """A code at any place of a whole chunk, as the codecs decode it."""
    count = representable(reference, data.draw(interesting(reference)))
    low, high = INTEGER_RANGES[reference.encoded_dtype]
    code = min(max(int(reference.dithered_code(count, 0.0)), low), high)
    assert package_count(reference, code, n) == reference.decode_at(code, n)


@settings(max_examples=5)
@given(reference=configurations())
def test_the_fill_value_is_what_the_page_says(reference: DitheredReference) -> None:
    """The count that a writer gives to chunks that are lost."""
    assert fill_count(parameters(reference)) == reference.fill_value_at_start()


@pytest.mark.parametrize(
    ("count", "decoded_dtype"),
    [(float("nan"), "float32"), (float("inf"), "float64"), (0.5, "uint16"), (70000.0, "uint16"), (2.0**63, "uint64")],
    ids=str,
)
def test_what_the_page_calls_an_error_is_one(count: float, decoded_dtype: str) -> None:
    """Not finite, not whole, or not in the range of the dtype."""
    reference = DitheredReference(0.0, 1.0, 0.5, "uint64", decoded_dtype)
    with pytest.raises(SpecError):
        reference.encode_at(count, 0)
    with pytest.raises(CodeRangeError):
        encode_dithered(np.array([count]), parameters(reference))


def test_schema_of_the_codec() -> None:
    """The page's examples are valid, make the codecs, and come back; every departure from them is refused."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((SPEC / "dithered.schema.json").read_text())
    v3, v2 = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[:2])
    jsonschema.validate(v3, schema)
    assert DitheredAnscombeV3.from_dict(v3).to_dict() == v3
    codec = numcodecs.get_codec(dict(v2))
    assert type(codec) is DitheredAnscombeV2
    assert codec.get_config() == v2
    configuration = v3["configuration"]
    changes: tuple[dict[str, Any], ...] = (
        {"unknown": 1},
        {"conversion_gain": 0},
        {"step": 0},
        {"encoded_dtype": "float32"},
        {"zero_level": "0"},
    )
    wrong = [{**v3, "configuration": {**configuration, **change}} for change in changes]
    for name in configuration:
        wrong.append({**v3, "configuration": {key: value for key, value in configuration.items() if key != name}})
    wrong.append({**v3, "name": "dj_photon.anscombe"})
    for document in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema)
        with pytest.raises(ValueError, match="."):
            DitheredAnscombeV3.from_dict(document)
