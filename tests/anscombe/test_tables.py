"""Lookup tables give the same with numpy and with the compiled loop, and numba is loaded for long work only."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs.anscombe import kernels, tables


@pytest.fixture(params=["numpy", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways, whatever other tests have loaded."""
    if request.param == "numpy":
        monkeypatch.delitem(sys.modules, "numba")
        monkeypatch.setattr(kernels, "look_up", None)
    else:
        assert "numba" in sys.modules
    return str(request.param)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
@pytest.mark.parametrize("entries", ["uint8", "int16", "float16", "float64"])
def test_rows_repeat_over_the_places(way: str, dtype: str, entries: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rows and blocks end at different places."""
    monkeypatch.setattr(tables, "_BLOCK", 100)
    rng = np.random.default_rng(0)
    first = -5 if dtype.startswith("int") else 3
    table = rng.integers(0, 100, (7, 40)).astype(entries)
    rows = rng.integers(0, 7, 13)
    values = rng.integers(first, first + 40, (9, 11, 5)).astype(dtype)
    expected = table[np.resize(rows, values.size).reshape(values.shape), values.astype(int) - first]
    found = tables.apply_rows(table, first, rows, values)
    assert found.dtype == table.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 5000])
def test_a_table_is_looked_up_into_what_is_given(way: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BLOCK", 100)
    table = np.arange(65536, dtype=np.float32) ** 2
    indices = np.random.default_rng(0).integers(0, 65536, size).astype(np.uint16)
    out = np.empty(size, np.float32)
    assert tables.apply_table(table, indices, out) is out
    np.testing.assert_array_equal(out, table[indices])


def test_values_beyond_the_table_read_its_ends(way: str) -> None:
    """Nothing outside the table is read, whatever the values (invariant 10)."""
    table = np.array([[10, 11, 12]], np.uint8)
    values = np.array([-1000, -1, 0, 2, 3, 1000], np.int64)
    found = tables.apply_rows(table, 0, np.array([0]), values)
    assert found.tolist() == [10, 10, 10, 12, 12, 12]


def test_numba_is_loaded_for_long_work_only() -> None:
    script = """
import sys
import numpy as np
from dj_photon_codecs.anscombe import tables
tables.LONG_WORK = 1000
table, values = np.arange(256, dtype=np.uint8), np.zeros(400, np.uint8)
seen = []
for coming in (0, 0, 0, 500):
    tables.prepare(coming)
    tables.apply_table(table, values)
    seen.append("numba" in sys.modules)
print(seen)
"""

    def run(text: str) -> Any:
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.strip()

    assert run(script) == "[False, False, False, True]"
    assert run(script.replace("(0, 0, 0, 500)", "(0, 0, 0, 0)")) == "[False, False, False, True]"
