"""Options are defined once: what takes them has the same names and defaults, and refuses the same values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any

import click
import pytest

from dj_photon_codecs import ConfigurationError, PhotonCodec, PhotonMovie, PhotonWriter, write_movie
from dj_photon_codecs.cli.transfer import write
from dj_photon_codecs.options import PROFILES, WriteOptions, check_option, profile_named

DEFAULTS = {option.name: option.default for option in fields(WriteOptions)}

#: Values that are not legal, and what the error says of them.
WRONG: tuple[tuple[str, Any, str], ...] = (
    ("step", -0.1, r"step must be a number from 0 \(lossless\) to 8 noise standard deviations, got -0.1"),
    ("step", 9, "got 9"),
    ("step", True, "got True"),
    ("step", "1", "got '1'"),
    ("step", float("nan"), "got nan"),
    ("profile", "smallest", "profile must be one of standard, dense, portable, lossless, anscombe-v1, got 'smallest'"),
    ("profile", ["dense"], r"got \['dense'\]"),
    ("zarr_format", 4, "zarr_format must be 2 or 3, got 4"),
    ("zarr_format", "3", "got '3'"),
)


def test_every_option_has_a_default() -> None:
    assert DEFAULTS
    assert MISSING not in DEFAULTS.values()


@pytest.mark.parametrize("taker", [write_movie, PhotonWriter], ids=["write_movie", "PhotonWriter"])
def test_functions_take_every_option_by_keyword_with_its_default(taker: Callable[..., Any]) -> None:
    """PhotonWriter has no progress bar: nobody knows how long an acquisition takes."""
    parameters = inspect.signature(taker).parameters
    taken = {name: parameters[name].default for name in DEFAULTS if name in parameters}
    assert taken == {name: value for name, value in DEFAULTS.items() if taker is write_movie or name != "progress"}
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in taken)
    assert all(name in (inspect.getdoc(taker) or "") for name in taken)


def test_a_column_has_every_option_with_its_default() -> None:
    assert {name: getattr(PhotonCodec, name) for name in DEFAULTS} == DEFAULTS


def test_the_command_line_has_every_option_that_has_a_help_text() -> None:
    offered = {one.name: one for one in write.params if isinstance(one, click.Option)}
    described = {option.name: option.metadata["help"] for option in fields(WriteOptions) if option.metadata}
    assert set(described) == set(DEFAULTS) - {"compressors", "progress"}
    assert {name: offered[name].help for name in described} == described
    assert list(offered["profile"].type.choices) == list(PROFILES)  # type: ignore[attr-defined]
    parsed = write.make_context("write", ["source", "dest"]).params
    assert {name: parsed[name] for name in described} == {name: DEFAULTS[name] for name in described}
    parsed = write.make_context("write", ["source", "dest", "--zarr-format", "2", "--step", "1"]).params
    assert (parsed["zarr_format"], parsed["step"]) == (2, 1.0)


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=str)
def test_a_value_that_is_not_legal_is_refused_wherever_it_is_given(name: str, value: Any, message: str) -> None:
    given: dict[str, Any] = {name: value}
    takers: list[Callable[[], object]] = [
        lambda: check_option(name, value),
        *([lambda: profile_named(value)] if name == "profile" else []),
        lambda: WriteOptions(**given),
        lambda: replace(WriteOptions(), **given),
        lambda: write_movie({}, [], **given),
        lambda: PhotonWriter({}, **given),
        lambda: type("Column", (PhotonCodec,), {"name": "refused", **given}),
    ]
    if name in ("step", "profile"):
        takers.append(lambda: PhotonMovie([], **given))
    for taker in takers:
        with pytest.raises(ConfigurationError, match=message):
            taker()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"zarr_format": 2}, "the dense profile needs zarr_format=3, got 2"),
        ({"compressors": ()}, r"its own entropy coder, got compressors=\(\): omit them"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(other: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WriteOptions(profile="dense", **other)
    WriteOptions(profile="portable", **other)


def test_options_come_back_from_a_journal_without_those_it_does_not_keep() -> None:
    options = WriteOptions(step=1.0, profile="portable", zarr_format=2, progress=False)
    assert options.for_journal() == {"step": 1.0, "profile": "portable", "zarr_format": 2}
    recorded = options.for_journal() | {"compressors": None, "of_a_newer_release": 1}
    assert WriteOptions.of_journal(recorded) == options
