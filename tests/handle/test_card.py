"""The card that a notebook shows of a movie, and the pictures on it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from dj_photon_codecs import Calibration, PhotonArray, open_movie, write_movie
from dj_photon_codecs.handle import card as card_module
from dj_photon_codecs.handle.array import open_array
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.location import Location
from dj_photon_codecs.viz import frame_png, transfer_curve_svg, transfer_curve_text

NOISE = Calibration.given(20.0, 100.0)
COUNTS = np.round(100 + 20 * np.random.default_rng(1).poisson(8, (50, 3, 24, 36))).astype(np.uint16)
MEASURED = Calibration(20.0, 95.0, "measured", gain_error=0.01, curve=((120.0, 500.0, 900), (300.0, 4000.0, 900)))


class Watched(MemoryStore):
    """A store that counts what is asked of it, in all the views that a read-only one is of it, or does not give it."""

    requests: ClassVar[list[str]] = []
    instead: ClassVar[Callable[[], Any] | None] = None

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        self.requests.append(args[0])
        if Watched.instead is not None:
            await Watched.instead()
        return await super().get(*args, **kwargs)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """An empty store; chunks are of 8 frames, in shards of 16, so that small movies have several of both."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 8 * COUNTS[0].size)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 2 * 8 * COUNTS[0].nbytes)
    monkeypatch.setattr(Watched, "instead", None)
    Watched.requests.clear()
    return Watched()


def opened(store: Watched) -> PhotonArray:
    """The movie in a store, of which nothing has been asked but its metadata."""
    movie = open_movie(store)
    Watched.requests.clear()
    return movie


def picture(card: str) -> Any:
    """The picture of a card, as grey values from 0 to 255."""
    from matplotlib.image import imread

    found = re.search(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', card)
    assert found is not None, card
    return np.rint(255 * imread(io.BytesIO(base64.b64decode(found[1])), format="png"))


def tags(card: str) -> list[str]:
    """The names of the elements of a card; all of them are closed."""
    seen, open_ones = [], []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.append(tag)
            if tag not in ("img", "path", "line", "circle"):
                open_ones.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in ("path", "line", "circle"):
                assert open_ones.pop() == tag

    Parser().feed(card)
    assert open_ones == []
    return seen


def grey(frame: Any) -> Any:
    """A frame between its percentiles."""
    black, white = np.percentile(frame, (1, 99.7))
    return np.rint(255 * np.clip((frame - black) / (white - black), 0, 1))


def test_the_card_says_what_the_movie_is(store: Watched) -> None:
    write_movie(store, COUNTS, calibration=MEASURED)
    movie = opened(store)
    card = movie._repr_html_()
    for fact in (
        "50 x 3 x 24 x 36 (time, plane, height, width)",
        "uint16",
        "standard, step 0.5 noise standard deviations",
        f"{movie.compression_ratio:.3g} times smaller",
        "20 ADU/photon +- 1.0 %",
        "95 ADU",
        "measured from the movie",
    ):
        assert fact in card


def test_notebooks_neither_remove_nor_restyle_a_part_of_the_card(store: Watched) -> None:
    """Untrusted notebooks remove scripts, style sheets and <svg>; JupyterLab and nbconvert style tables and lists."""
    write_movie(store, COUNTS, calibration=MEASURED)
    assert set(tags(opened(store)._repr_html_())) == {"div", "img"}


def test_the_curve_on_the_card_is_a_picture_of_its_own_colour(store: Watched) -> None:
    """A picture in an <img> inherits no text colour: currentColor would be black, also on a dark page."""
    write_movie(store, COUNTS, calibration=MEASURED)
    [drawn] = re.findall(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"', opened(store)._repr_html_())
    svg = base64.b64decode(drawn).decode()
    assert "mean [ADU]" in "".join(ET.fromstring(svg).itertext())
    assert "currentColor" not in svg


def test_the_picture_is_the_middle_frame_of_the_middle_plane(store: Watched) -> None:
    write_movie(store, COUNTS, profile="lossless")
    card = opened(store)._repr_html_()
    assert "frame 25, plane 1" in card
    assert (picture(card) == grey(COUNTS[25, 1])).all()


@pytest.mark.parametrize(("zarr_format", "requests"), [(3, ["c/1/0/0/0", "c/1/0/0/0"]), (2, ["1.1.0.0"])])
def test_the_card_reads_one_chunk_and_its_index_once(store: Watched, zarr_format: Any, requests: list[str]) -> None:
    write_movie(store, COUNTS, calibration=NOISE, zarr_format=zarr_format)
    movie = opened(store)
    card = movie._repr_html_()
    assert Watched.requests == requests
    assert movie._repr_html_() == card
    assert Watched.requests == requests


def test_of_frames_in_several_chunks_the_middle_one_is_shown(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 10 * 36)
    write_movie(store, COUNTS[:, 0], profile="lossless")
    movie = opened(store)
    card = movie._repr_html_()
    assert "frame 25, rows 8 to 15" in card
    assert (picture(card) == grey(COUNTS[25, 0, 8:16])).all()
    assert len(Watched.requests) == 2


def test_a_store_that_fails_is_named_in_place_of_the_picture(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movie(store, COUNTS, calibration=NOISE)
    movie = opened(store)

    async def fails() -> None:
        raise PermissionError("not <b>yours</b>")

    monkeypatch.setattr(Watched, "instead", fails)
    card = movie._repr_html_()
    assert "no picture: " in card
    assert "not &lt;b&gt;yours&lt;/b&gt;" in card
    assert "20 ADU/photon" in card
    assert "img" not in tags(card)


def test_a_store_that_does_not_answer_does_not_hold_the_notebook(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movie(store, COUNTS, calibration=NOISE)
    movie = opened(store)

    answers = threading.Event()

    async def waits() -> None:
        await asyncio.to_thread(answers.wait, 60)

    monkeypatch.setattr(Watched, "instead", waits)
    monkeypatch.setattr(card_module, "_PATIENCE", 0.05)
    assert "the store did not answer within 0.05 s" in movie._repr_html_()
    answers.set()
    assert movie[...].shape == COUNTS.shape  # the store answers again


def test_a_damaged_chunk_is_named_in_place_of_the_picture(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "movie", COUNTS, calibration=NOISE)
    (tmp_path / "movie/c/1/0/0/0").unlink()
    card = movie._repr_html_()
    assert "no picture: chunk (1, 1, 0, 0)" in card
    assert "is missing" in card


def test_paths_and_reasons_are_text(tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<" / "movie & co"
    document = write_movie(path, COUNTS, profile="lossless").documents
    record = document["zarr.json"]["attributes"]["dj_photon"]
    record["calibration"] |= {"verdict": "unknown", "reason": "<img src=x onerror=alert(1)>", "curve": []}
    del record["digest"]
    (path / "zarr.json").write_text(json.dumps(document["zarr.json"]))
    card = open_movie(path)._repr_html_()
    assert "script" not in tags(card)
    assert tags(card).count("img") == 1
    assert "unknown: &lt;img src=x" in card
    assert "movie &amp; co" in card


def test_the_card_of_an_array_that_others_wrote(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "other", data=COUNTS[:, 0])
    card = open_movie(tmp_path / "other")._repr_html_()
    assert "not recorded" in card
    assert "img" in tags(card)
    zarr.create_array(tmp_path / "line", data=np.arange(5))
    assert "has no frames" in open_movie(tmp_path / "line")._repr_html_()


def test_metadata_that_describes_no_array_is_told_on_the_card(tmp_path: Path) -> None:
    movie = open_array(Location.of(tmp_path), {"zarr.json": {"zarr_format": 3, "node_type": "<b>array</b>"}})
    assert "cannot be read" in movie._repr_html_()
    assert tags(movie._repr_html_()) == ["div", "b"]


def test_numbers_that_no_movie_has_are_told_on_the_card(store: Watched) -> None:
    movie = write_movie(store, COUNTS, calibration=NOISE)
    assert movie.record is not None
    made_up = open_array(Location.of(store), movie.documents, replace(movie.record, original_bytes=10**400))
    assert tags(made_up._repr_html_()) == ["div", "b"]


def test_handles_import_no_card_until_a_notebook_asks() -> None:
    script = "import sys, dj_photon_codecs.handle; print({'card', 'viz'} & {n.split('.')[-1] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (700, 300), (257, 256)])
def test_a_picture_has_256_pixels_a_side_at_most(shape: tuple[int, int]) -> None:
    from matplotlib.image import imread

    shown = imread(io.BytesIO(frame_png(np.random.default_rng(0).poisson(3, shape))), format="png")
    assert max(shown.shape) <= 256
    assert min(shown.shape) >= 1


def test_pixels_of_a_large_frame_are_averaged() -> None:
    from matplotlib.image import imread

    frame = np.zeros((512, 512), np.uint16)
    frame[:, 256:] = [0, 200] * 128  # stripes as wide as a pixel, which taking every other one would miss
    shown = imread(io.BytesIO(frame_png(frame)), format="png")
    assert (shown[:, :128] == 0).all()
    assert (shown[:, 128:] == 1).all()


@pytest.mark.parametrize("value", [7.0, np.nan, np.inf])
def test_a_frame_without_contrast_is_a_picture(value: float) -> None:
    frame = np.full((4, 4), value)
    assert frame_png(frame).startswith(b"\x89PNG")


def test_a_single_bright_pixel_does_not_darken_the_rest() -> None:
    from matplotlib.image import imread

    frame = np.linspace(100, 200, 10_000).reshape(100, 100)
    frame[50, 50] = 1e9
    shown = imread(io.BytesIO(frame_png(frame)), format="png")
    assert shown.mean() > 0.4


def test_a_picture_is_of_one_plane() -> None:
    with pytest.raises(ValueError, match="height, width"):
        frame_png(COUNTS)


def test_the_curve_as_svg_has_every_point_and_the_line() -> None:
    root = ET.fromstring(transfer_curve_svg(MEASURED))
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert (names.count("circle"), names.count("line")) == (2, 1)
    assert "currentColor" in transfer_curve_svg(MEASURED)


def test_the_curve_of_no_reliable_noise_model_has_no_line() -> None:
    doubtful = Calibration.unknown("it bends", MEASURED.curve)
    assert "<line" not in transfer_curve_svg(doubtful)
    assert transfer_curve_text(doubtful).count("o") == 2
    assert "." not in "".join(line.partition("|")[2] for line in transfer_curve_text(doubtful).splitlines())


@pytest.mark.parametrize("curve", [(), ((np.nan, 1.0, 1),), ((1e300, 1.0, 1),)], ids=["none", "nan", "huge"])
def test_a_curve_that_cannot_be_drawn_says_so(curve: Any) -> None:
    noise = Calibration.unknown("nothing", curve)
    assert "no photon transfer curve" in transfer_curve_text(noise)
    assert "no photon transfer curve" in "".join(ET.fromstring(transfer_curve_svg(noise)).itertext())


@pytest.mark.parametrize("curve", [((5.0, 0.0, 1),), ((5.0, 3.0, 1), (5.0, 3.0, 1)), ((-3.0, -1e-9, 1),)])
def test_a_curve_without_extent_is_drawn(curve: Any) -> None:
    noise = Calibration.unknown("a point", curve)
    assert "o" in transfer_curve_text(noise)
    assert "circle" in transfer_curve_svg(noise)


def test_the_curve_in_letters_is_ascii_with_the_line_through_the_points() -> None:
    text = transfer_curve_text(MEASURED)
    assert text.isascii()
    lines = text.splitlines()
    assert len(lines) == 18
    assert all(len(line) < 80 for line in lines)
    assert "95 ADU" not in text
    assert "mean [ADU]" in lines[-1]
