"""Ten thousand rows in one fetch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dj_photon_codecs import PhotonArray
from services import Pipeline
from tables import declare_recording, photon, row


@pytest.mark.parametrize("pipeline", [("mysql", "s3")], ids=["mysql-s3"], indirect=True)
def test_ten_thousand_rows_are_fetched_without_a_request_to_the_store(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8, at length; how long it takes is measured by benchmarks/rows.py."""
    import s3fs

    recording = declare_recording(pipeline.schema)()
    recording.insert1(row(0, photon()))
    [stored] = recording.proj("movie").cursor(as_dict=True)
    value = stored["movie"] if isinstance(stored["movie"], str) else json.dumps(stored["movie"])
    for start in range(1, 10_000, 1111):
        indices = range(start, start + 1111)
        pipeline.instance.connection.query(
            f"INSERT INTO {recording.full_table_name} VALUES " + ",".join(["('m/1', %s, %s)"] * len(indices)),
            args=[argument for index in indices for argument in (index, value)],
        )
    requests: list[str] = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        requests.append(method)
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    movies = [fetched["movie"] for fetched in recording.to_dicts()]
    assert len(movies) == 10_000
    assert all(isinstance(movie, PhotonArray) for movie in movies)
    assert {movie.record.profile for movie in movies} == {"standard"}
    assert requests == []
    assert movies[-1][0].shape == (32, 32)
    assert requests  # it would have shown
