"""The two shapes in which DataJoint 2.3 calls a codec: context among the key's values, and in an argument of its own.

Both are tried with the release that is installed; ``.ci/run`` also stores and fetches with the oldest one.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.errors import DataJointError

from dj_photon_codecs import PhotonCodec
from services import Pipeline
from tables import crosswise, declare_recording, photon, row

PRIMARY_KEY = {"subject": "m/1", "recording": 7}


def key_alone(config: Any) -> dict[str, Any]:
    """2.3.0 to 2.3.3: the facts stand in ``key``, with an underscore."""
    facts = {"_schema": "s", "_table": "t", "_field": "movie", "_config": config}
    return {"key": {**facts, **PRIMARY_KEY}}


def context_alone(config: Any) -> dict[str, Any]:
    """2.4, as announced: the facts stand in ``context``, and ``key`` is the primary key."""
    return {"key": PRIMARY_KEY, "context": {"schema": "s", "table": "t", "field": "movie", "config": config}}


def both(config: Any) -> dict[str, Any]:
    """2.3.4 and 2.3.5."""
    return {**key_alone(config), "context": context_alone(config)["context"]}


def context_without_config(config: Any) -> dict[str, Any]:
    """No release does this; the configuration is then where the others have it."""
    given = both(config)
    del given["context"]["config"]
    return given


@pytest.mark.parametrize("shape", [key_alone, context_alone, both, context_without_config])
def test_a_movie_goes_in_and_out_in_each_shape_of_the_call(local_pipeline: Pipeline, shape: Any) -> None:
    """The primary key alone is in the path, and the store is the connection's: dj.config knows none."""
    given = shape(local_pipeline.config)
    before = json.dumps(given, default=str)
    value = PhotonCodec().encode(photon(), **given, store_name="imaging")
    assert json.dumps(given, default=str) == before  # DataJoint uses the key of one value for the next
    assert value["path"].startswith("_schema/s/t/subject=m%2F1/recording=7/movie_")
    assert value["path"].count("/") == 5
    fetched = {"key": {name: fact for name, fact in given["key"].items() if name == "_config"}}
    if "config" in given.get("context", {}):
        fetched["context"] = {"config": local_pipeline.config}
    movie = PhotonCodec().decode(json.loads(json.dumps(value)), **fetched)
    assert np.array_equal(movie[:], PhotonCodec().decode(value, **fetched)[:])
    assert movie.verify()


@pytest.mark.parametrize("shape", [key_alone, context_alone, both])
@pytest.mark.parametrize("fact", ["schema", "table", "field"])
def test_a_fact_that_is_not_told_is_named(local_pipeline: Pipeline, shape: Any, fact: str) -> None:
    """Nothing is stored under a made-up name."""
    given = shape(local_pipeline.config)
    given["key"].pop(f"_{fact}", None)
    given.get("context", {}).pop(fact, None)
    with pytest.raises(DataJointError, match=f"inserting it into a table: {fact} not known"):
        PhotonCodec().encode(photon(), **given, store_name="imaging")
    assert local_pipeline.objects() == []


def test_without_a_connection_the_global_configuration_counts(local_pipeline: Pipeline) -> None:
    dj.config.stores = dict(local_pipeline.config.stores)
    try:
        value = PhotonCodec().encode(photon(), **context_alone(None), store_name=None)
        assert value["store"] == "imaging"
        assert PhotonCodec().decode(value).verify()
    finally:
        dj.config.stores = {}


@crosswise
def test_the_installed_datajoint_calls_in_a_shape_that_is_known(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that passes more, or something else, shows here first."""
    calls: list[dict[str, Any]] = []
    for name in ("encode", "decode"):
        original = getattr(PhotonCodec, name)

        def spy(
            self: Any,
            value: Any,
            *,
            key: Any = None,
            context: Any = None,
            store_name: Any = None,
            original: Any = original,
        ) -> Any:
            calls.append({"key": dict(key or {}), "context": context})
            named = {"store_name": store_name} if original.__name__ == "encode" else {}
            return original(self, value, key=key, context=context, **named)

        monkeypatch.setattr(PhotonCodec, name, spy)
    recording = declare_recording(pipeline.schema)
    recording.insert1(row(1, photon()))
    recording.fetch1("movie")
    inserted, fetched = calls
    config = pipeline.config
    shapes = [
        {name: set(given.get(name) or ()) for name in ("key", "context")}
        for given in (shape(config) for shape in (key_alone, context_alone, both))
    ]
    assert {name: set(inserted[name] or ()) for name in ("key", "context")} in shapes
    told = (fetched["context"] or {}).get("config", fetched["key"].get("_config"))
    assert told is config
    assert (inserted["context"] or {}).get("config", inserted["key"].get("_config")) is config


def test_the_helpers_of_datajoint_that_are_used_take_what_they_are_given() -> None:
    """Their names begin with an underscore: nobody promises them."""
    build = inspect.signature(PhotonCodec._build_path).parameters
    assert {"schema", "table", "field", "primary_key", "ext", "store_name", "config"} <= set(build)
    assert {"store_name", "config"} <= set(inspect.signature(PhotonCodec._get_backend).parameters)
