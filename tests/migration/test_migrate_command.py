"""``dj-photon migrate``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from typing import Any

import datajoint as dj
import numpy as np
import pytest

from dj_photon_codecs.cli import main
from services import Pipeline

LIGHT = np.linspace(1, 15, 64) * np.ones((64, 1))


@pytest.fixture
def table(local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A table of two movies, one of which is none, that the command reaches."""
    monkeypatch.setattr(dj, "conn", lambda: local_pipeline.instance.connection)

    @local_pipeline.schema
    class OldRecording(dj.Imported):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        movie = null : <blob@imaging>
        photons = null : <photon@imaging>
        """

    counts = (100 + 20 * np.random.default_rng(0).poisson(LIGHT, size=(80, 64, 64))).astype(np.uint16)
    OldRecording.insert1({"recording": 1, "movie": counts}, allow_direct_insert=True)
    OldRecording.insert1({"recording": 2, "movie": "no movie"}, allow_direct_insert=True)
    return OldRecording


def run(table: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["migrate", f"{table.database}.OldRecording.movie", "--to", "OldRecording.photons", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_plans_copies_and_forgets(
    table: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(table, capsys, "--dry-run")
    assert code == 1
    assert "2 to copy" in out
    assert "cannot be migrated: {'recording': 2}" in out
    code, out, _ = run(table, capsys, "--json")
    assert code == 1
    document = json.loads(out)
    assert (document["ok"], document["done"], document["failed"], document["remaining"]) == (False, 1, 1, 0)
    (table & "recording = 2").delete(prompt=False)
    code, out, _ = run(table, capsys)
    assert (code, out.partition(",")[0]) == (0, "1 of 1 movies done")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    code, out, _ = run(table, capsys, "--forget-originals")
    assert (code, out) == (130, "")
    assert table.fetch1("movie") is not None
    code, out, _ = run(table, capsys, "--forget-originals", "--yes")
    assert (code, out) == (0, "1 originals forgotten, 0 kept\n")
    assert table.fetch1("movie") is None
    assert table.fetch1("photons").shape == (80, 64, 64)


def test_names_that_are_wrong_are_said_to_be(table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    database = table.database
    for arguments, message in [
        ([f"{database}.OldRecording.movie"], "--to is missing"),
        (["OldRecording.movie", "--to", "OldRecording.photons"], "give SCHEMA.TABLE.COLUMN"),
        ([f"{database}.New.movie", "--to", "New.photons"], "has no table New: it has _old_recording"),
        ([f"{database}.old_recording.film", "--to", "OldRecording.photons"], "has no column 'film'"),
        (["no_such_schema.New.movie", "--to", "New.photons"], "no_such_schema"),
        ([f"{database}.OldRecording.movie", "--to", "x.y", "--dry-run", "--forget-originals"], "contradict"),
    ]:
        assert main(["migrate", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_database_that_does_not_answer_has_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(dj, "conn", refuses)
    assert main(["migrate", "lab.Recording.movie", "--to", "Recording.photons"]) == 4
    assert "cannot be reached: refused" in capsys.readouterr().err
