"""Invariant 2: a copy of a stored movie, or of a piece of it, has the same counts, whatever chunks it would get now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from dj_photon_codecs import Calibration, write_movie
from dj_photon_codecs.storage import layout, plan

#: Data type, lowest and highest count, gain, zero level: many cells that are wider than a count.
MOVIES = {
    "uint8": ("uint8", 0, 255, 3.0, 10.0),
    "int8": ("int8", -128, 127, 2.0, -100.0),
    "uint16": ("uint16", 0, 9000, 20.0, 100.0),
    "int16": ("int16", -90, 3000, 3.0, -40.5),
    "int32": ("int32", -20, 70000, 5.0, 3.0),
    "uint64": ("uint64", 0, 70000, 100.0, 157.3),
    "whole float32": ("float32", 0, 4000, 20.0, 100.0),
    "float32": ("float32", 0.25, 99.5, 0.8, 2.5),
    "float64": ("float64", -3.7, 99.5, 0.8, 2.5),
}

shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
)


def movie_of(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    dtype, low, high, *_ = MOVIES[name]
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return values.astype(dtype) if dtype.startswith("float") and low % 1 else np.rint(values).astype(dtype)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(MOVIES)),
    shape=shapes,
    first=st.sampled_from(["standard", "dense", "portable"]),
    second=st.sampled_from(["standard", "dense", "portable", "lossless"]),
    zarr_formats=st.tuples(st.sampled_from([2, 3]), st.sampled_from([2, 3])),
    pixels=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore")  # what is said of the noise of movies that are no movies
def test_copies_and_pieces_have_the_same_counts(
    name: str, shape: tuple[int, ...], first: str, second: str, zarr_formats: Any, pixels: Any, data: st.DataObject
) -> None:
    """Shapes, profiles, data types and formats; the copy is written by a release that likes other chunks."""
    first_format, second_format = zarr_formats
    first_format = 3 if first == "dense" else first_format
    second_format = 3 if second == "dense" else second_format
    noise = Calibration.given(*MOVIES[name][3:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_WORTH_ROUNDING", -10.0)  # rounded, whether or not it pays
        patch.setattr(layout, "CHUNK_PIXELS", pixels[0])
        counts = movie_of(name, shape, data.draw(st.integers(0, 99), "seed"))
        stored = write_movie(
            MemoryStore(), counts, calibration=noise, profile=first, zarr_format=first_format, progress=False
        )
        assert stored.step == 0.5
        wanted = stored[...]
        patch.setattr(layout, "CHUNK_PIXELS", pixels[1])
        copy = write_movie(MemoryStore(), stored, profile=second, zarr_format=second_format, progress=False)
        np.testing.assert_array_equal(copy[...], wanted)
        start = data.draw(st.integers(0, shape[0] - 1), "first frame of the piece")
        piece = write_movie(
            MemoryStore(), stored.to_dask()[start:], profile=second, progress=False, zarr_format=second_format
        )
        np.testing.assert_array_equal(piece[...], wanted[start:])
        again = write_movie(MemoryStore(), copy, profile="standard", progress=False)
        np.testing.assert_array_equal(again[...], wanted)


@pytest.mark.parametrize("profile", ["standard", "portable"])
def test_the_counts_of_a_stored_movie_given_as_a_plain_array_are_a_new_movie(profile: str) -> None:
    """Nothing says where they came from: rounded again, each within the bound of the counts that were given."""
    noise = Calibration.given(*MOVIES["uint16"][3:])
    stored = write_movie(
        MemoryStore(), movie_of("uint16", (8, 32, 32), 0), calibration=noise, profile=profile, progress=False
    )
    given_counts = stored[...][1:]
    again = write_movie(MemoryStore(), given_counts, calibration=noise, progress=False)[...]
    highest = np.maximum(again, given_counts).astype(float)
    sigma = 20.0 * np.sqrt(np.maximum((highest - 100) / 20, 0) + 0.375)
    assert (np.abs(again.astype(float) - given_counts) <= 0.25 * sigma + 0.5).all()
