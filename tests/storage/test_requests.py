"""How many requests reach S3: what the layout needs, and none besides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import killed
from dj_photon_codecs import PhotonWriter
from dj_photon_codecs.handle.cache import CACHE
from faulty import Proxy, faulty_proxy
from services import S3Server, open_pipeline
from tables import declare_movies

#: Objects of the movie, and chunks in each.
OBJECTS, CHUNKS = 3, 2


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    killed.small_objects(monkeypatch.setattr)
    with faulty_proxy(s3_server.endpoint) as running:
        yield running


@pytest.fixture
def recording(postgres: Any, s3_server: S3Server, proxy: Proxy) -> Iterator[Any]:
    """A table whose store is behind the proxy."""
    store = s3_server.store(s3_server.new_bucket()) | {"endpoint": proxy.endpoint.removeprefix("http://")}
    with open_pipeline(postgres, "postgres", "s3", store) as pipeline:
        movies = declare_movies(pipeline)
        movies.insert1({"recording": 0, "movie": killed.movie()})  # the first one marks the store
        proxy.requests.clear()
        yield movies


def methods(proxy: Proxy) -> list[str]:
    """The methods of all requests since the last time."""
    made = [request.split()[0] for request in proxy.requests]
    proxy.requests.clear()
    return made


def test_an_insert_puts_each_object_once_and_asks_for_the_first(recording: Any, proxy: Proxy) -> None:
    """Its path has a random part: nothing can be there."""
    recording.insert1({"recording": 1, "movie": killed.movie()})
    assert methods(proxy) == ["PUT", "GET"] + ["PUT"] * OBJECTS  # the first object is read back


def test_reading_asks_for_what_it_needs(recording: Any, proxy: Proxy) -> None:
    """Invariant 8; then an index and a chunk for a first frame, and an object for all of its chunks."""
    recording.insert1({"recording": 1, "movie": killed.movie()})
    assert methods(proxy)

    def fetched() -> Any:
        return (recording & {"recording": 1}).fetch1("movie")

    movie = fetched()
    assert methods(proxy) == []
    movie[0]
    assert methods(proxy) == ["GET", "GET"]
    movie[1]
    assert methods(proxy) == []
    movie[len(movie) // OBJECTS - 1]  # of the other chunk of this object
    assert methods(proxy) == ["GET"]
    CACHE.reset()  # handles of one movie share what they read, and a thread may keep a deleted one for a moment
    frames = np.stack(list(fetched().frames()))
    asked = methods(proxy)
    assert set(asked) == {"GET"}
    # a chunk that is wanted just before its object is there, whole, is asked for by itself: seen once in forty runs
    assert 0 <= len(asked) - (1 + CHUNKS + OBJECTS - 1) <= 1
    CACHE.reset()
    np.testing.assert_array_equal(fetched()[:], frames)
    assert methods(proxy) == ["GET"] * OBJECTS


def test_frames_to_the_middle_of_an_object_do_not_fetch_more_than_they_need(recording: Any, proxy: Proxy) -> None:
    recording.insert1({"recording": 1, "movie": killed.movie()})
    movie = (recording & {"recording": 1}).fetch1("movie")
    per_object = len(movie) // OBJECTS
    assert methods(proxy)
    assert len(list(movie.frames(0, per_object + 1))) == per_object + 1
    assert methods(proxy) == ["GET"] * (1 + CHUNKS + 2)  # of the second object its index and one chunk
    assert movie._reader._held == {}


def test_a_writer_puts_its_objects_and_removes_its_journal(recording: Any, proxy: Proxy) -> None:
    given = killed.movie()
    with PhotonWriter.for_row(recording, {"recording": 1}, calibration=given.noise_model()) as writer:
        writer.extend(given.movie)
    # the claim and its first heartbeat, the journal before and after the noise is known, the objects, the metadata
    assert [made for made in methods(proxy) if made in ("PUT", "POST")] == ["PUT"] * (2 + 2 + OBJECTS + 1) + [
        "POST"
    ] * 2
