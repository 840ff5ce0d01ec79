"""A row of the database stays small whatever the length of the movie: the checksums of a long one stay in the store."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spec_reference_layout
from dj_photon_codecs import Calibration, DamagedChunkError, FormatError, PhotonMovie, open_movie, write_movie
from dj_photon_codecs._zarr import metadata_documents, parse_metadata
from dj_photon_codecs.codec import _row
from dj_photon_codecs.handle import PhotonArray, open_array
from dj_photon_codecs.storage import checksums, layout
from dj_photon_codecs.storage.layout import plan_grid
from dj_photon_codecs.storage.location import Location
from dj_photon_codecs.storage.metadata_checks import _MOVIE_BYTES
from dj_photon_codecs.storage.object_writer import Written
from dj_photon_codecs.storage.plan import finished_documents
from dj_photon_codecs.storage.record import ATTRIBUTE, MovieRecord, with_record
from services import Pipeline

NOISE = Calibration.given(10.0, 0.0)
COUNTS = (10 * np.random.default_rng(0).poisson(40, (40, 16, 24))).astype(np.uint16)

#: Bytes of a row's JSON, at most.
ROW_BYTES = 100_000


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A movie of ten chunks counts as long."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 24)
    monkeypatch.setattr(layout, "SHARD_BYTES", 2 * 16 * 16 * 24)
    monkeypatch.setattr(checksums, "ROW_LIMIT", 40)


def fetched(stored: PhotonArray) -> PhotonArray:
    """The handle that a row of this movie gives."""
    row = json.loads(json.dumps(_row("m", "store", stored)))
    assert "checksums" not in row
    record = MovieRecord.from_dict(row, "a row")
    return PhotonArray(stored._location, with_record(row["zarr"], record), record)


@pytest.mark.parametrize("dimensions", [3, 5])
@pytest.mark.parametrize("itemsize", [1, 8])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_row_of_the_longest_movie_stays_below_100_kB(dimensions: int, itemsize: int, zarr_format: Any) -> None:
    """No movie has more than 1 PiB: of frames of 512 x 512 that is 2**32 frames of 8 bits."""
    frame = (512, 512) if dimensions == 3 else (2, 2, 256, 256)
    shape = (_MOVIE_BYTES // (itemsize * math.prod(frame)), *frame)
    n_chunks = math.prod(-(-n // c) for n, c in zip(shape, plan_grid(shape, itemsize, zarr_format).chunk, strict=True))
    short = write_movie({}, np.zeros((2, *frame), f"u{itemsize}"), calibration=NOISE, zarr_format=zarr_format)
    grid = (1 << 20, *[1] * (dimensions - 1))  # a million checksums stand for the rest: their number is all that counts
    assert n_chunks > 1 << 20
    assert short.record is not None
    blocks = [Written(1 << 20, np.zeros(grid, np.uint32))]
    documents = finished_documents(parse_metadata(short.documents), short.record, shape[0], blocks)
    row = _row("schema/table/key=1/movie_token.zarr", "store", open_array(Location("m", "m"), documents))
    assert len(json.dumps(row)) < ROW_BYTES
    assert len(json.dumps(documents)) > ROW_BYTES  # where they went


def test_a_movie_as_long_as_a_row_holds_keeps_its_checksums_in_the_row() -> None:
    short = write_movie({}, COUNTS, calibration=NOISE)
    assert short.record is not None
    metadata = parse_metadata(short.documents)
    n_chunks = checksums.ROW_LIMIT * 3 // 4 // checksums.CHECKSUM_BYTES
    rows = []
    for extra in (0, 1):
        blocks = [Written(1, np.zeros((n_chunks + extra, 1, 1), np.uint32))]
        stored = open_array(Location("m", "m"), finished_documents(metadata, short.record, 40, blocks))
        rows.append(_row("schema/table/key=1/movie_token.zarr", "store", stored))
    assert [("checksums" in row, "checksums_digest" in row) for row in rows] == [(True, False), (False, True)]
    assert max(len(json.dumps(row)) for row in rows) < ROW_BYTES
    assert len(metadata_documents(replace(metadata, attributes={}))) == 1


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_long_movie_reads_verifies_and_is_copied_by_its_row(tmp_path: Path, zarr_format: Any) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE, zarr_format=zarr_format)
    handle = fetched(stored)
    assert np.array_equal(handle[17], stored[17])
    assert np.array_equal(fetched(stored)[:], stored[:])
    report = fetched(stored).verify(progress=False)
    assert report, str(report)
    row = _row("m", "store", stored)
    assert spec_reference_layout.digest(row) == row["digest"]
    assert spec_reference_layout.checksums(tmp_path / "m") == stored.record.checksums  # type: ignore[union-attr]
    copy = write_movie(tmp_path / "copy", fetched(stored))
    assert copy.verify(progress=False)
    assert open_movie(tmp_path / "copy").verify(progress=False)
    assert np.array_equal(copy[:], stored[:])


@pytest.mark.usefixtures("long")
def test_a_chunk_from_another_place_of_a_long_movie_is_noticed(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    first, second = (tmp_path / "m" / "c" / str(index) / "0" / "0" for index in (0, 1))
    second.write_bytes(first.read_bytes())
    with pytest.raises(DamagedChunkError, match="is not the one that was written"):
        fetched(stored)[17]
    assert len(fetched(stored).verify(progress=False).damaged) == 4


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("change", ["gone", "altered", "without checksums"])
def test_without_its_checksums_no_count_of_a_long_movie_is_read(tmp_path: Path, change: str) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    path = tmp_path / "m" / "zarr.json"
    document = json.loads(path.read_text())
    record = document["attributes"][ATTRIBUTE]
    if change == "gone":
        path.unlink()
    else:
        record["checksums"] = record["checksums"].swapcase()
        if change == "without checksums":
            del record["checksums"]
        path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match="lacks the checksums"):
        fetched(stored)[17]
    report = fetched(stored).verify(progress=False)
    assert not report
    assert "lacks the checksums" in str(report)
    if change == "altered":
        with pytest.raises(FormatError, match="is not what was written"):
            open_movie(tmp_path / "m")


@pytest.mark.usefixtures("long")
def test_a_column_of_long_movies(local_pipeline: Pipeline) -> None:
    import datajoint as dj

    @local_pipeline.schema
    class LongRecording(dj.Manual):
        definition = f"""
        id : int32
        ---
        movie : <photon@{local_pipeline.store}>
        """

    LongRecording.insert1({"id": 1, "movie": PhotonMovie(COUNTS, calibration=NOISE)})
    movie = (LongRecording & {"id": 1}).fetch1("movie")
    assert movie.record.checksums is None
    assert movie.shape == COUNTS.shape
    assert movie.verify(progress=False)
    LongRecording.insert1({"id": 2, "movie": movie})
    again = (LongRecording & {"id": 2}).fetch1("movie")
    assert np.array_equal(again[:], movie[:])
    assert again.verify(progress=False)
