"""The fixtures give what they promise, shown with a codec of DataJoint's own."""

from __future__ import annotations

import os
import sys
from typing import Any

import datajoint as dj
import numpy as np
import pytest

from services import Pipeline, S3Server, populate_in_two_processes


def declare(pipeline: Pipeline) -> tuple[Any, Any]:
    """A table with an array in the store, and one computed from it."""

    @pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : int32
        ---
        frames : <npy@{pipeline.store}>
        """

    @pipeline.schema
    class Brightness(dj.Computed):  # type: ignore[misc]
        definition = """
        -> Recording
        ---
        mean : float64
        process : int64
        """

        def make(self, key: dict[str, Any]) -> None:
            frames = (Recording() & key).fetch1("frames").load()
            self.insert1({**key, "mean": float(frames.mean()), "process": os.getpid()})

    return Recording, Brightness


def test_pipeline_stores_and_drops(pipeline: Pipeline) -> None:
    """An array goes in and comes back, and the collector finds what a deleted row leaves."""
    recording, _ = declare(pipeline)
    frames = np.arange(24).reshape(2, 3, 4)
    recording.insert1({"recording": 1, "frames": frames})
    assert np.array_equal((recording & "recording=1").fetch1("frames").load(), frames)
    (path,) = pipeline.objects()
    assert path.startswith(f"_schema/{pipeline.schema.database}/")
    assert pipeline.backend.exists(path)

    recording.delete()
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    assert collector.collect(dry_run=False)["deleted"] == 1
    assert pipeline.objects() == []


@pytest.mark.skipif(sys.platform == "win32", reason="DataJoint's populate(processes=2) needs fork")
@pytest.mark.parametrize("reserve_jobs", [False, True])
def test_pipeline_survives_a_fork(pipeline: Pipeline, reserve_jobs: bool) -> None:
    """Two forked workers read the store and write the database, and this process goes on with both."""
    recording, brightness = declare(pipeline)
    recording.insert({"recording": i, "frames": np.full((2, 3, 4), i)} for i in range(4))
    outcome = populate_in_two_processes(brightness, reserve_jobs=reserve_jobs)
    assert (outcome["success_count"], outcome["error_list"]) == (4, [])
    rows = brightness.to_dicts(order_by="recording")
    assert [row["mean"] for row in rows] == [0, 1, 2, 3]
    assert os.getpid() not in {row["process"] for row in rows}
    assert (recording & "recording=3").fetch1("frames").load().mean() == 3


def test_pipelines_start_empty_and_apart(
    postgres: Any, local_pipeline: Pipeline, s3_server: S3Server, s3_store: dict[str, Any]
) -> None:
    """Nothing of another test is in a schema, a folder or a bucket."""
    assert local_pipeline.instance is postgres
    assert local_pipeline.schema.list_tables() == []
    assert local_pipeline.objects() == []
    assert s3_server.new_bucket() != s3_store["bucket"]


def test_the_global_configuration_knows_no_store(local_pipeline: Pipeline) -> None:
    """A codec that resolves a store with dj.config, and not with its connection's configuration, fails in the tests."""
    with pytest.raises(dj.DataJointError, match="not configured"):
        dj.config.get_store_spec(local_pipeline.store)
    assert local_pipeline.config.get_store_spec(None)["location"]
