"""Primary keys that would make a bad path: each is stored, fetched, audited and collected, or refused beforehand."""

from __future__ import annotations

from typing import Any

import datajoint as dj
import numpy as np
import pytest

from dj_photon_codecs import ConfigurationError, PhotonMovie, audit_store
from dj_photon_codecs._row_path import check_new_path
from services import Pipeline
from tables import photon

COUNTS = np.random.default_rng(0).poisson(6, size=(2, 16, 16)).astype(np.uint16)

KEYS = {
    "tab": "a\tb",
    "newline": "a\nb",
    "carriage return": "a\r\nb",
    "control characters": "\x01\x1b\x7f\x85",
    "direction marks": "a\u202eb\u200b",
    "line separator": "a\u2028b",
    "noncharacter": "a\ufffeb",
    "blanks": "  a  b  ",
    "dots": "..",
    "slashes": "../../a//b/",
    "backslash": "a\\b",
    "glob": "a*?[b]{c}",
    "URL": "s3://a:b@c/?d=e#f",
    "percent": "50%25 %zz",
    "home": "~root",
    "dollar": "$HOME ${HOME}",
    "quotes": "'a' \"b\" `c`",
    "empty": "",
    "Cyrillic, 150": "ж" * 150,
    "Japanese, 99": "神" * 99,
    "Japanese, 150": "神" * 150,
    "emoji, 70": "🔬" * 70,
    "combined": "e\u0301" * 60,
    "tabs, 150": "\t" * 150,
    "ASCII, 200": "k" * 200,
}


@pytest.fixture
def recording(pipeline: Pipeline) -> Any:
    @pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = f"""
        subject : varchar(200)
        ---
        movie : <photon@{pipeline.store}>
        """

    return Recording


def test_a_movie_comes_back_under_any_key(pipeline: Pipeline, recording: Any) -> None:
    for number, key in enumerate(KEYS.values()):
        recording.insert1({"subject": key, "movie": PhotonMovie(COUNTS + np.uint16(number), profile="lossless")})
    fetched = {row["subject"]: row["movie"] for row in recording.to_dicts()}
    assert set(fetched) == set(KEYS.values())
    for number, key in enumerate(KEYS.values()):
        assert np.array_equal(fetched[key][:], COUNTS + np.uint16(number)), key
        assert fetched[key].verify(), key
    report = audit_store(pipeline.schema, pipeline.store)
    assert (len(report.referenced), len(report.orphaned), len(report.missing)) == (len(KEYS), 0, 0)
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    assert collector.collect()["schema_paths_orphaned"] == 0


@pytest.mark.parametrize("pipeline", [("mysql", "s3")], ids=["mysql-s3"], indirect=True)
def test_a_path_that_the_store_does_not_take_is_refused_before_anything_is_written(pipeline: Pipeline) -> None:
    names = [f"key_{number}_{'x' * 50}" for number in range(15)]

    @pipeline.schema
    class Long(dj.Manual):  # type: ignore[misc]
        definition = "\n".join([*(f"{name} : varchar(20)" for name in names), "---", "movie : <photon@imaging>"])

    with pytest.raises(ConfigurationError, match=r"the store allows 1024.*shorter primary key"):
        Long.insert1({**dict.fromkeys(names, "v" * 20), "movie": photon()})
    assert (len(Long()), pipeline.objects()) == (0, [])


@pytest.mark.parametrize(
    ("path", "local"),
    [("a/" * 2500 + "m", True), ("a/" * 600 + "m", False), ("é" * 128, True)],
    ids=["4k", "1k", "name"],
)
def test_bytes_are_counted_in_names_and_in_paths(path: str, local: bool) -> None:
    with pytest.raises(ConfigurationError, match="the store allows"):
        check_new_path(path, f"/store/{path}", local=local)


@pytest.mark.parametrize("setting", [{"schema_prefix": "../elsewhere"}, {"schema_prefix": "a\nb"}], ids=str)
def test_a_prefix_that_leads_out_of_the_store_is_refused(local_pipeline: Pipeline, setting: dict[str, str]) -> None:
    stores = local_pipeline.config.stores
    local_pipeline.config.stores = {**stores, "imaging": {**stores["imaging"], **setting}}

    @local_pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        movie : <photon@imaging>
        """

    with pytest.raises(ConfigurationError, match="schema_prefix"):
        Recording.insert1({"recording": 1, "movie": photon()})
    assert local_pipeline.objects() == []
