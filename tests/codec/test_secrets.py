"""Planted keys, tokens and passwords are searched for in everything that is shown, logged, stored or sent."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import killed
from dj_photon_codecs import (
    ConfigurationError,
    MissingChunkError,
    PhotonArray,
    PhotonCodecError,
    StorageError,
    open_movie,
    write_movie,
)
from dj_photon_codecs.storage.location import Location
from faulty import Fault, Proxy, faulty_proxy
from services import Pipeline, S3Server, open_pipeline
from tables import declare_movies

ACCESS_KEY, SECRET_KEY = "PLANTEDACCESSKEY", "planted-secret-key"
OTHER_STORE, PASSWORD = "planted-key-of-another-store", "planted-database-password"
PLANTED = (ACCESS_KEY, SECRET_KEY, OTHER_STORE, PASSWORD)


def found_in(text: str | bytes, planted: tuple[str, ...] = PLANTED) -> list[str]:
    """Which of the planted secrets are in a text."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return [secret for secret in planted if secret in text]


def all_of(error: BaseException) -> str:
    """What is shown of an error: its traceback with its causes and notes, its repr, and its pickle."""
    return "".join(traceback.format_exception(error)) + repr(error) + pickle.dumps(error).decode("latin-1")


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    killed.small_objects(monkeypatch.setattr)
    with faulty_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def pipeline(postgres: Any, s3_server: S3Server, proxy: Proxy) -> Iterator[Pipeline]:
    """A pipeline whose configuration is full of secrets."""
    store = s3_server.store(s3_server.new_bucket()) | {"endpoint": proxy.endpoint.removeprefix("http://")}
    if not store["access_key"] == store["secret_key"] == "testing":
        pytest.skip("an S3 service of the environment knows its own keys only")
    store |= {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    with open_pipeline(postgres, "postgres", "s3", store) as opened:
        opened.config.stores = opened.config.stores | {"other": store | {"secret_key": OTHER_STORE}}
        password = opened.config.database.password
        opened.config.database.password = PASSWORD
        yield opened
        opened.config.database.password = password
        proxy.faults.clear()


@pytest.fixture
def recording(pipeline: Pipeline) -> Any:
    return declare_movies(pipeline)


def insert(recording: Any, number: int = 1) -> PhotonArray:
    recording.insert1({"recording": number, "movie": killed.movie()})
    movie: PhotonArray = (recording & {"recording": number}).fetch1("movie")
    return movie


def test_nothing_that_is_shown_of_a_movie_has_a_secret(recording: Any) -> None:
    movie = insert(recording)
    shown = [movie, movie._location, movie.info, movie.store_path, movie.record, movie.verify(), movie.stabilized]
    shown += [killed.movie(), movie._store, movie._chunks, movie.metadata, movie.attrs.asdict()]
    assert [found_in(f"{thing!r} {thing!s}") for thing in shown] == [[]] * len(shown)


def test_nothing_that_is_stored_has_a_secret(pipeline: Pipeline, recording: Any) -> None:
    insert(recording)
    [stored] = recording.proj("movie").cursor(as_dict=True)
    assert found_in(json.dumps(stored)) == []
    backend = pipeline.backend
    contents = {name: backend.fs.cat_file(backend._full_path(name)) for name in pipeline.objects()}
    assert len(contents) == 4
    assert [found_in(name.encode() + content) for name, content in contents.items()] == [[]] * 4


def test_the_log_of_this_package_has_no_secret(proxy: Proxy, recording: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, when all is well and when it is not. botocore's own log at that level shows the access key."""
    with caplog.at_level(logging.DEBUG, "dj_photon_codecs"), caplog.at_level(logging.DEBUG, "zarr"):
        insert(recording).verify()
        proxy.faults = [Fault("error", "PUT .*zarr.json", code="AccessDenied")]
        with pytest.raises(StorageError):
            insert(recording, 2)
    logs = [record for record in caplog.records if record.name.startswith(("dj_photon_codecs", "zarr"))]
    assert found_in("\n".join(record.getMessage() for record in logs)) == []


@pytest.mark.parametrize("request_", ["PUT .*c/1", "PUT .*zarr.json", "POST .*delete", "list-type", "GET .*c/1"])
@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "InternalError"])
def test_no_error_of_a_store_shows_a_secret(proxy: Proxy, recording: Any, request_: str, code: str) -> None:
    cleaning_up = request_ in ("POST .*delete", "list-type")  # what is asked after something else has failed
    proxy.faults = [Fault("error", request_, code=code), Fault("error", "PUT .*c/2" if cleaning_up else "none")]
    with pytest.raises(PhotonCodecError) as caught:
        insert(recording).verify()
    assert found_in(all_of(caught.value)) == []


def test_no_error_of_a_missing_object_or_service_shows_a_secret(pipeline: Pipeline, recording: Any) -> None:
    movie = insert(recording)
    [first] = [name for name in pipeline.objects() if name.endswith("c/0/0/0")]
    pipeline.backend.fs.rm(pipeline.backend._full_path(first))
    with pytest.raises(MissingChunkError) as missing:
        movie[0]
    stores = pipeline.config.stores
    pipeline.config.stores = stores | {"imaging": stores["imaging"] | {"endpoint": "127.0.0.1:9"}}
    with pytest.raises(StorageError) as gone:
        insert(recording, 2)
    pipeline.config.stores = stores
    assert [found_in(all_of(error.value)) for error in (missing, gone)] == [[], []]


def first_frame(pickled: bytes) -> Any:
    """In a worker that was told nothing else."""
    return pickle.loads(pickled)[0]


def test_a_pickled_handle_carries_the_keys_of_its_own_store_and_nothing_else(recording: Any) -> None:
    """A worker reads with it, whatever its configuration is: so these two have to be there."""
    movie = insert(recording)
    pickled = pickle.dumps(movie)
    assert found_in(pickled) == [ACCESS_KEY, SECRET_KEY]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(first_frame, (pickled,)), movie[0])


def test_pickles_of_everything_else_carry_none(recording: Any) -> None:
    movie = insert(recording)
    others = [movie.record, movie.calibration, movie.documents, movie.verify(), killed.movie(), movie[0]]
    assert [found_in(pickle.dumps(thing)) for thing in others] == [[]] * len(others)


def test_a_pickled_handle_of_a_store_with_ambient_credentials_carries_none(
    pipeline: Pipeline, recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment or the machine's role has the keys, and the configuration of DataJoint none."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    bare = {name: value for name, value in pipeline.config.stores["imaging"].items() if "key" not in name}
    pipeline.config.stores = pipeline.config.stores | {"imaging": bare}
    movie = insert(recording)
    assert found_in(pickle.dumps(movie)) == []
    assert np.array_equal(pickle.loads(pickle.dumps(movie))[0], movie[0])


class Talkative(MemoryFileSystem):  # type: ignore[misc]
    """A filesystem whose errors tell all it knows, as signed addresses in the errors of HTTP libraries do."""

    protocol = "talkative"
    cacheable = False

    def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        raise ConnectionError(f"GET https://me:{SECRET_KEY}@host/{path}?signature={ACCESS_KEY}&x=1 with {self._token}")

    pipe_file = cat_file

    def __init__(self, token: str = "", nested: Any = None) -> None:
        super().__init__()
        self._token = token
        self.nested = nested


def test_an_error_that_tells_a_secret_is_told_without_it() -> None:
    """And without its cause, which a traceback would print."""
    location = Location(
        "talkative://movie", "/movie", Talkative(token=OTHER_STORE, nested={"x": [{"password": PASSWORD}]})
    )
    with pytest.raises(StorageError, match=r"https://me:\*\*\*@host/.*\?\*\*\* with \*\*\*") as caught:
        write_movie(location, killed.movie())
    assert caught.value.__context__ is None  # tblib pickles it, once dask.distributed has been imported
    assert found_in(all_of(caught.value)) == []
    assert "ConnectionError" in str(caught.value)
    assert location._secrets() == {OTHER_STORE, PASSWORD}


def test_an_error_without_a_secret_keeps_its_cause() -> None:
    location = Location("memory://none", "/none", LocalFileSystem())
    with pytest.raises(StorageError) as caught, location.errors_named("nothing could be done"):
        raise OSError(28, "No space left on device")
    assert isinstance(caught.value.__cause__, OSError)
    assert str(caught.value) == "nothing could be done: OSError: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("url", "label"),
    [
        (f"http://me:{SECRET_KEY}@host/movie.zarr", "http://me:***@host/movie.zarr"),
        (f"https://host/movie.zarr?sig={SECRET_KEY}&key={ACCESS_KEY}", "https://host/movie.zarr?***"),
        (f"https://me:{SECRET_KEY}@host/movie.zarr?sig={ACCESS_KEY}", "https://me:***@host/movie.zarr?***"),
        ("memory://a/movie.zarr", "memory:///a/movie.zarr"),
    ],
)
def test_a_label_shows_no_secret_of_a_url(url: str, label: str) -> None:
    location = Location.of(url)
    assert location.label == label
    assert found_in(repr(location)) == []


def test_the_settings_of_a_store_in_place_of_a_store_are_refused_unseen() -> None:
    settings = {"protocol": "s3", "bucket": "b", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    with pytest.raises(ConfigurationError, match="got dict$") as caught:
        open_movie(settings)
    assert found_in(all_of(caught.value)) == []


def test_a_pickled_location_on_the_local_disk_is_its_path() -> None:
    assert pickle.loads(pickle.dumps(Location.of("/tmp/movie.zarr"))) == Location.of("/tmp/movie.zarr")
    assert fsspec.available_protocols()  # the registry was not touched by the filesystem above
