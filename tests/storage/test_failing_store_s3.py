"""An S3 service that fails on chosen requests: for a moment, which is repaired below us, or for good."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import datajoint as dj
import numpy as np
import pytest

import killed
from dj_photon_codecs import DamagedChunkError, PhotonCodecError, StorageError
from faulty import Fault, Proxy, faulty_proxy
from services import Pipeline, S3Server, open_pipeline
from tables import declare_movies

#: The objects of the movie, in the order in which they are written.
OBJECTS = ("c/0/0/0", "c/1/0/0", "c/2/0/0", "zarr.json")

#: How often botocore asks, and how often s3fs has it do so for what it calls retryable; both are 5 by themselves.
ATTEMPTS, RETRIES = 2, 2

#: A connection that was closed under a request is opened anew by aiohttp, and the request made again.
REOPENED = 2

#: Requests for one object, at most. s3fs retries a read as a whole, and every request of it.
BOUND = {"PUT": RETRIES * ATTEMPTS * REOPENED, "GET": RETRIES**2 * ATTEMPTS * REOPENED}


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy in front of S3, and S3 clients that neither try nor wait for long."""
    import botocore.retryhandler
    import s3fs

    monkeypatch.setattr(botocore.retryhandler, "delay_exponential", lambda *_, **__: 0.0)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", RETRIES)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(ATTEMPTS))
    killed.small_objects(monkeypatch.setattr)
    with faulty_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 clients that wait for an answer half a second, in place of 15."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.5)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 clients that wait longer than a busy machine takes to answer, so that requests can be counted."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 3)


@pytest.fixture
def pipeline(postgres: Any, s3_server: S3Server, proxy: Proxy) -> Iterator[Pipeline]:
    """A schema whose store is behind the proxy."""
    store = s3_server.store(s3_server.new_bucket()) | {"endpoint": proxy.endpoint.removeprefix("http://")}
    with open_pipeline(postgres, "postgres", "s3", store) as opened:
        yield opened
        proxy.faults.clear()


@pytest.fixture
def recording(pipeline: Pipeline) -> Any:
    return declare_movies(pipeline)


ROW = {"recording": 1}


def insert(recording: Any) -> None:
    recording.insert1({**ROW, "movie": killed.movie()})


def failure_of_insert(pipeline: Pipeline, recording: Any) -> StorageError:
    """The error that an insert ends in, which names store and path; and there is no row."""
    with pytest.raises(StorageError) as caught:
        insert(recording)
    bucket = pipeline.config.get_store_spec(pipeline.store)["bucket"]
    assert f"s3://{bucket}/recordings/_schema/{pipeline.schema.database}/recording/recording=1/movie_" in str(
        caught.value
    )
    assert len(recording()) == 0
    return caught.value


def test_the_library_underneath_repairs_a_passing_error_of_each_object(
    proxy: Proxy, pipeline: Pipeline, recording: Any
) -> None:
    for _ in range(2):  # the first insert of a process into a store marks it
        proxy.requests.clear()
        insert(recording)
        undisturbed = len(proxy.requests)
        (recording & ROW).delete_quick()
    proxy.requests.clear()
    codes = ("SlowDown", "InternalError", "SlowDown", "InternalError")
    proxy.faults = [
        Fault("error", f"PUT .*{key}", times=1, code=code) for key, code in zip(OBJECTS, codes, strict=True)
    ]
    insert(recording)
    assert len(proxy.requests) == undisturbed + 4
    assert (recording & ROW).fetch1("movie").verify()


@pytest.mark.parametrize("key", OBJECTS)
def test_a_lasting_error_of_one_object_ends_the_insert_and_removes_the_others(
    proxy: Proxy, pipeline: Pipeline, recording: Any, key: str
) -> None:
    """Invariant 6."""
    proxy.faults = [Fault("error", f"PUT .*{key}")]
    error = failure_of_insert(pipeline, recording)
    assert re.search(f"object '{key}' of s3://.* could not be written: OSError: .*planned", str(error))
    assert not hasattr(error, "__notes__")
    assert pipeline.objects() == []
    assert proxy.count(f"PUT .*{key}") == ATTEMPTS  # an internal error is none that s3fs retries
    proxy.faults.clear()
    insert(recording)
    assert (recording & ROW).fetch1("movie").verify()


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("error", "PUT", code="SlowDown"), "OSError: .* planned"),
        (Fault("error", "PUT", code="AccessDenied"), "PermissionError: planned"),
        (Fault("error", "", code="InvalidAccessKeyId"), "PermissionError: Forbidden"),
        (Fault("error", "", code="SignatureDoesNotMatch"), "PermissionError: Forbidden"),
        (Fault("error", "PUT", code="ExpiredToken"), "PermissionError: planned"),
        (Fault("reset", "PUT"), "ConnectionClosedError|ClientOSError|ServerDisconnected"),
        (Fault("hang", "PUT .*c/1", seconds=0.6), "Timeout"),
    ],
    ids=["slow down", "no right to write", "unknown key", "wrong key", "expired", "reset", "no answer"],
)
def test_every_lasting_failure_is_one_error_of_ours(
    impatient: None, proxy: Proxy, pipeline: Pipeline, recording: Any, fault: Fault, cause: str
) -> None:
    """Whatever type the libraries underneath raise, and with a bounded number of requests."""
    proxy.faults = [fault]
    error = failure_of_insert(pipeline, recording)
    assert re.search(cause, str(error)), str(error)
    assert error.__cause__ is not None
    puts = Counter(re.findall("PUT .*", "\n".join(proxy.requests)))
    assert max(puts.values(), default=0) <= BOUND["PUT"]
    proxy.faults.clear()
    assert pipeline.objects() == []


def test_an_answer_that_never_came_is_asked_for_again(
    impatient: None, proxy: Proxy, pipeline: Pipeline, recording: Any
) -> None:
    proxy.faults = [Fault(kind, f"PUT .*{key}", times=1) for kind in ("hang", "reset") for key in OBJECTS]
    insert(recording)
    assert (recording & ROW).fetch1("movie").verify()


def test_a_missing_bucket_is_named(proxy: Proxy, pipeline: Pipeline, recording: Any) -> None:
    stores = pipeline.config.stores
    pipeline.config.stores = stores | {"imaging": stores["imaging"] | {"bucket": "nobody-made-it"}}
    with pytest.raises(StorageError, match=r"s3://nobody-made-it/recordings.*FileNotFoundError: .*bucket"):
        insert(recording)
    assert len(recording()) == 0
    pipeline.config.stores = stores


def test_a_service_that_is_not_there_is_named(proxy: Proxy, pipeline: Pipeline, recording: Any) -> None:
    stores = pipeline.config.stores
    pipeline.config.stores = stores | {"imaging": stores["imaging"] | {"endpoint": "127.0.0.1:9"}}
    with pytest.raises(StorageError, match=r"cannot be read: EndpointConnectionError: .*127.0.0.1:9"):
        insert(recording)
    pipeline.config.stores = stores


def test_what_cannot_be_removed_is_named(proxy: Proxy, pipeline: Pipeline, recording: Any) -> None:
    """Invariant 6: everything goes that can, the rest is told, and the collector takes it later."""
    proxy.faults = [Fault("error", "PUT .*c/2/0/0"), Fault("error", "POST .*delete|DELETE", code="AccessDenied")]
    error = failure_of_insert(pipeline, recording)
    [note] = error.__notes__
    assert "'c/0/0/0'" in note
    assert "'c/1/0/0'" in note
    assert "could not be removed" in note
    assert "PermissionError: planned" in note
    left = pipeline.objects()
    assert [name[-7:] for name in left] == ["c/0/0/0", "c/1/0/0"]
    proxy.faults.clear()
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    assert collector.collect(dry_run=False)["orphaned_schema_paths"] == left
    assert pipeline.objects() == []


def test_a_slow_answer_is_an_answer(proxy: Proxy, pipeline: Pipeline, recording: Any) -> None:
    proxy.faults = [Fault("slow", f"PUT .*{key}", seconds=0.2) for key in OBJECTS]
    insert(recording)
    assert (recording & ROW).fetch1("movie").verify()


@pytest.fixture
def movie(proxy: Proxy, recording: Any) -> Any:
    """A stored movie, of which nothing has been read."""
    insert(recording)
    proxy.requests.clear()
    return (recording & ROW).fetch1("movie")


@pytest.mark.parametrize("kind", ["error", "reset", "hang", "short"])
def test_a_read_that_fails_in_passing_gives_the_right_counts(
    unhurried: None, proxy: Proxy, movie: Any, kind: Any
) -> None:
    proxy.faults = [Fault(kind, "GET .*c/1/0/0", times=1, seconds=4)]
    assert np.abs(movie[40].astype(int) - killed.COUNTS[40]).max() < 5
    assert proxy.count("GET .*c/1/0/0") == 2 + 1  # the shard's index, the chunk, and one of them again


@pytest.mark.parametrize(
    ("passes", "kind", "expected"),
    [
        pytest.param(0, "error", StorageError, id="error of the index"),
        pytest.param(0, "short", StorageError, id="short index"),
        pytest.param(0, "truncated", DamagedChunkError, id="truncated index"),
        pytest.param(1, "error", StorageError, id="error of the chunk"),
        pytest.param(1, "reset", StorageError, id="closed connection"),
        pytest.param(1, "hang", StorageError, id="no answer"),
        pytest.param(1, "short", StorageError, id="short chunk"),
        pytest.param(1, "truncated", DamagedChunkError, id="truncated chunk"),
    ],
)
def test_a_read_that_fails_for_good_gives_an_error_and_no_counts(
    impatient: None, proxy: Proxy, movie: Any, kind: Any, expected: type[PhotonCodecError], passes: int
) -> None:
    """Invariant 5, for short reads on the way; `passes` requests are answered before the fault begins."""
    proxy.faults = [Fault("slow", "GET .*c/1/0/0", times=passes, seconds=0), Fault(kind, "GET .*c/1/0/0", seconds=0.6)]
    with pytest.raises(expected, match=r"frames 32 to 47\) in object 'c/1/0/0' of s3://.*movie_"):
        movie[40]
    assert proxy.count("GET .*c/1/0/0") <= passes + BOUND["GET"]
    assert movie[0].shape == (128, 128)  # the others can be read


def test_verify_calls_nothing_damaged_that_could_not_be_read(proxy: Proxy, movie: Any) -> None:
    proxy.faults = [Fault("error", "c/1/0/0", code="AccessDenied")]
    with pytest.raises(StorageError, match="PermissionError"):
        movie.verify()


def test_the_message_and_its_note_reach_the_log(proxy: Proxy, pipeline: Pipeline, recording: Any) -> None:
    """What `populate` keeps of an error, its traceback, tells all."""
    proxy.faults = [Fault("error", "PUT .*c/1/0/0"), Fault("error", "POST .*delete|DELETE")]
    told = "".join(traceback.format_exception(failure_of_insert(pipeline, recording)))
    assert "StorageError: object 'c/1/0/0' of s3://" in told
    assert re.search("could not be removed: .*'c/0/0/0'", told)
