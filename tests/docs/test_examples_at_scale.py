"""The example at scale: what it counts and projects. It takes minutes: docs/examples/.update.py runs it."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import boto3
import pytest

from test_examples import EXAMPLES, load

PAGE = EXAMPLES.parent / "docs" / "examples"
PRICES = {"terabytes": 100.0, "put_price": 0.005, "get_price": 0.0004, "storage_price": 0.023}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    return load("at_scale")


@pytest.mark.slow
def test_requests_are_counted_by_movie_and_by_what_they_cost(example: ModuleType) -> None:
    store = example.CountingS3()
    with store.running() as address:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=address, **keys)
        client.create_bucket(Bucket="movies")
        store.phase = "insert"
        client.put_object(Bucket="movies", Key="a/recording=7/c/0", Body=b"x" * 1000)
        client.list_objects_v2(Bucket="movies", Prefix="a/recording=7/")
        client.head_object(Bucket="movies", Key="a/recording=7/c/0")
        store.phase = "read"
        client.get_object(Bucket="movies", Key="a/recording=7/c/0")["Body"].read()
        client.delete_object(Bucket="movies", Key="a/recording=7/c/0")
        client.close()
    assert dict(store.requests) == {
        ("", 0, "put"): 1,
        ("insert", 7, "put"): 2,
        ("insert", 7, "get"): 1,
        ("read", 7, "get"): 1,
    }
    assert store.bytes["read", 7] == 1000
    assert store.of("insert", [7, 8], "put") == 1


@pytest.mark.slow
def test_the_projection_is_arithmetic_on_what_was_measured(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {f"{phase} {kind}": (0.0, 0.0) for phase in ("insert", "read") for kind in ("put", "get")}
    measured |= {"insert put": (1.0, 10.0), "read get": (2.0, 0.0), "stored bytes": (16e6, 0.0)}
    measured |= {"insert seconds": (0.2, 3.6), "read seconds": (0.1, 0.0)}
    example.project(argparse.Namespace(**PRICES), measured)
    printed = capsys.readouterr().out
    objects = 100e12 / 2**26
    movies = objects / (3600 * 30 / 128)
    assert f"{movies:,.0f} movies, {objects:,.0f} objects, {objects * 16e6 / 1e12:.1f} TB stored" in printed
    assert f"{objects + 10 * movies:,.0f} PUT" in printed
    assert f"{(objects + 10 * movies) / 1000 * 0.005:.2f} dollars" in printed
    assert f"{(0.2 * objects + 3.6 * movies) / 16 / 3600:.2f} h to insert" in printed


def test_the_page_has_the_output() -> None:
    assert '--8<-- "docs/examples/output/at_scale.txt"' in (PAGE / "at-scale.md").read_text(encoding="utf-8")
    shown = (PAGE / "output" / "at_scale.txt").read_text(encoding="utf-8")
    assert "the same mean as in this process: True" in shown
    assert "projected to 100 TB" in shown
