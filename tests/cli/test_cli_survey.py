"""dj-photon survey: every movie in a folder of twelve kinds, and what storing it would give; nothing is written."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from dj_photon_codecs import open_source, write_movie
from dj_photon_codecs.cli import main
from dj_photon_codecs.options import ESTIMATED
from rigs_folder import make
from services import S3Server

MOVIES = {
    "arrays": "NPY",
    "bruker channel=0": "TIFF",
    "bruker channel=1": "TIFF",
    "confocal pattern=cells.ome.tif": "TIFF",
    "confocal pattern=dish.tif": "TIFF",
    "epi": "TIFF",
    "hdf5": "HDF5",
    "processed": "NPY",
    "scanimage": "TIFF",
    "suite2p/plane0": "Suite2p",
    "thor": "ThorImage",
    "zarr/raw.zarr": "Zarr",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey") / "lab"
    make(folder)
    return folder


def survey(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["survey", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def content(folder: Path) -> dict[str, Any]:
    """Names, times and digests of all that is there."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


def test_every_movie_is_listed_once_and_nothing_is_written(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(lab)
    code, out, _ = survey(capsys, str(lab))
    assert content(lab) == before
    assert code == 1  # one file is damaged
    listed, _, rest = out.partition("\n\n")
    lines = listed.splitlines()[1:]
    assert [line.split("  ")[0].strip() for line in lines] == list(MOVIES)
    by_name = dict(zip(MOVIES, lines, strict=True))
    for name, line in by_name.items():
        assert MOVIES[name] in line
        assert "x 64 x 64" in line
        assert ("measured" in line) == (name != "processed")  # whose frames overlap: less noise than photons have
    assert "files are missing between those that are there: number 3" in by_name["epi"]
    assert all(line.endswith("  -") for name, line in by_name.items() if name != "epi")
    assert rest.startswith("12 movies, ")
    assert "days of copying at 1 Gbit/s" in rest
    assert "1 could not be read:\nbroken: " in rest
    assert "aborted.tif is truncated" in rest


def test_json_and_csv_say_the_same(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = survey(capsys, str(lab), "--json", "--csv", str(tmp_path / "list.csv"), "--jobs", "2")
    document = json.loads(out)
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 1
    assert [row["movie"] for row in rows if not row["error"]] == list(MOVIES)
    assert len(document["movies"]) == 12
    assert [Path(one["path"]).name for one in document["failures"]] == ["broken"]
    for one in document["movies"]:
        with warnings.catch_warnings():
            warnings.simplefilter("error" if not one["doubts"] else "ignore")
            with open_source(one["path"], **one["options"]) as movie:  # what it says opens as it says
                assert list(movie.shape) == one["shape"]
        assert set(one["expected"]) == set(ESTIMATED)
        assert 0 < one["expected"]["dense"] <= one["expected"]["lossless"] < one["bytes"]
    total = document["total"]
    assert total["bytes"] == sum(one["bytes"] for one in document["movies"])
    for name in ESTIMATED:
        assert total["saved"][name] == total["bytes"] - sum(one["expected"][name] for one in document["movies"])


def test_the_expected_size_is_that_of_the_movie_when_it_is_stored(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(survey(capsys, str(lab / "thor"), "--json")[1])
    [one] = document["movies"]
    for profile in ("standard", "lossless"):
        stored = write_movie(tmp_path / profile, lab / "thor", profile=profile)
        assert stored.record is not None
        assert one["expected"][profile] == pytest.approx(stored.record.stored_bytes, rel=0.15)


def test_movies_that_are_stored_already_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = np.random.default_rng(0).poisson(20, size=(20, 32, 32)).astype(np.uint16)
    write_movie(tmp_path / "lab" / "movie.zarr", counts, profile="lossless")
    code, out, _ = survey(capsys, str(tmp_path / "lab"), "--json")
    document = json.loads(out)
    assert code == 0
    assert [(one["format"], one["verdict"]) for one in document["movies"]] == [("stored (lossless)", "stored")]
    assert document["total"]["bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone"], "no folder"),
        (["empty"], "holds no file of a supported format"),
        (["lab", "--csv", "lab/list.csv"], "not written to"),
    ],
    ids=str,
)
def test_what_cannot_be_surveyed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "lab").mkdir()
    code, out, err = survey(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_zarr_in_a_bucket_is_found(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import zarr

    settings = {"endpoint_url": s3_server.endpoint, "key": s3_server.access_key, "secret": s3_server.secret_key}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    url = f"s3://{s3_server.new_bucket()}/lab"
    counts = np.random.default_rng(0).poisson(20, size=(20, 32, 32)).astype(np.uint16)
    for name in ("a", "deep/b"):
        zarr.create_array(store=f"{url}/{name}.zarr", data=counts, dimension_names=("time", "y", "x"))
    code, out, _ = survey(capsys, url, "--json")
    document = json.loads(out)
    assert code == 0
    assert [one["path"] for one in document["movies"]] == [f"{url}/a.zarr", f"{url}/deep/b.zarr"]
    assert all(one["shape"] == [20, 32, 32] for one in document["movies"])


def test_the_page_shows_what_is_printed(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "sources.md").read_text(encoding="utf-8")
    shown = re.search(r"```bash\ndj-photon survey lab.*?```text\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    monkeypatch.chdir(lab.parent)
    printed = survey(capsys, "lab")[1]
    assert _words(printed) == _words(shown[1])


def _words(text: str) -> list[str]:
    """Numbers depend on the machine, and on the releases of libraries."""
    return re.sub(r"\d[\d.e+-]*", "#", text).split()
