"""``estimate`` accepts and refuses the same movies as ``write_movie``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import PhotonMovie, estimate, write_movie
from dj_photon_codecs.errors import InvalidMovieError

COUNTS = np.random.default_rng(0).poisson(np.linspace(1, 20, 64), (40, 64, 64)).astype(np.int16) * 10 - 20


@pytest.mark.filterwarnings("ignore::dj_photon_codecs.LosslessWarning")
@pytest.mark.parametrize("movie", [COUNTS, COUNTS.astype(np.float32)], ids=lambda counts: str(counts.dtype))
def test_negative_counts_are_refused_unless_they_have_a_meaning(movie: np.ndarray[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidMovieError, match="negative"):
        estimate(movie)
    with pytest.raises(InvalidMovieError, match="negative"):
        write_movie(tmp_path / "refused", movie)
    signed = PhotonMovie(movie, signed=True)
    stored = write_movie(tmp_path / "stored", signed)
    known = PhotonMovie(movie, conversion_gain=10.0, zero_level=-20.0)
    assert all(estimate(each).ratios["lossless"] > 1 for each in (signed, known, stored, stored.to_dask()))
