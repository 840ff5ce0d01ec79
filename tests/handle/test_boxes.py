"""Boxes of a dense chunk: only the frames and bands that a selection needs are decoded, and the counts are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dj_photon_codecs import Calibration, DamagedChunkError, PhotonArray, open_movie, set_cache_size, write_movie
from dj_photon_codecs._typing import Box
from dj_photon_codecs.entropy import decoder
from dj_photon_codecs.entropy.coder import decode, encode
from dj_photon_codecs.entropy.payload import Payload
from dj_photon_codecs.handle.cache import CACHE
from dj_photon_codecs.storage import layout

NOISE = Calibration.given(20.0, 100.0)

#: Frames in a chunk of the movies below.
DEPTH = 8


def codes_of(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    codes = rng.poisson(20, shape).astype(dtype)
    codes[rng.random(shape) < 0.001] = 120  # escapes
    codes[:: max(1, shape[0] // 3)] = 9  # blank frames
    return codes


@settings(max_examples=40)
@given(data=st.data())
def test_a_box_decodes_to_the_same_codes(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.sampled_from([5, 255, 256, 300, 512]), st.integers(1, 40)))
    codes = codes_of(shape, data.draw(st.sampled_from(["uint8", "int8", "uint16", "int16"])), data.draw(st.integers(0)))
    first = data.draw(st.integers(0, shape[1] - 1))
    box = Box(data.draw(st.integers(1, shape[0])), first, data.draw(st.integers(first + 1, shape[1])))
    found = decode(encode(codes), codes.shape, codes.dtype, threads=2, box=box)
    assert found.shape == codes.shape
    inside = slice(box.frames), slice(box.first_row, box.last_row)
    np.testing.assert_array_equal(found[inside], codes[inside])


def test_only_the_frames_and_bands_of_a_box_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = codes_of((9, 512, 20), "uint8", 0)
    calls: list[tuple[Any, Any]] = []

    def decode_chunk(*arguments: Any) -> Any:
        calls.append((arguments[3].tolist(), arguments[5]))
        return whole(*arguments)

    whole = decoder.decode_chunk
    monkeypatch.setattr(decoder, "decode_chunk", decode_chunk)
    decode(encode(codes), codes.shape, codes.dtype, box=Box(5, 130, 260))
    # frames 0 and 3 are blank
    assert calls == [([1, 2], 3)]


@pytest.mark.parametrize("box", [None, Box(5, 0, 256)])
def test_a_box_from_a_payload_that_ends_too_early_is_refused(box: Box | None) -> None:
    codes = codes_of((9, 256, 20), "uint8", 0)
    payload = np.frombuffer(encode(codes), np.uint8).copy()
    header = Payload.parse(payload, codes.shape, codes.dtype)
    payload[2 * int(header.places[0]) + 40 :] = 0
    with pytest.raises(DamagedChunkError):
        decode(payload, codes.shape, codes.dtype, box=box)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A dense movie of three chunks in two shards, with bands, and its counts."""
    light = np.linspace(1, 20, 300)[:, None] * np.ones(24)
    counts = (100 + 20 * np.random.default_rng(0).poisson(light, (3 * DEPTH, 300, 24))).astype(np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_PIXELS", DEPTH * 300 * 24)
        patch.setattr(layout, "SHARD_BYTES", 2 * DEPTH * 300 * 24 * 2)
        place = tmp_path_factory.mktemp("movie") / "movie"
        write_movie(place, counts, calibration=NOISE, profile="dense")
    stored = open_movie(place)
    assert stored.profile == "dense"
    assert stored.chunks[0] == DEPTH
    return place, stored[:]


def axis(n: int) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.integers(-n, n - 1),
        st.slices(n),
        st.lists(st.integers(0, n - 1), min_size=1, max_size=3).map(np.array),
        st.just(slice(None)),
    )


@settings(max_examples=60)
@given(data=st.data())
def test_selections_one_after_another_give_the_counts(movie: tuple[Path, Any], data: st.DataObject) -> None:
    """Each finds what the ones before left in the cache: boxes of chunks, whole chunks, or nothing."""
    place, counts = movie
    handle = open_movie(place)
    for _ in range(data.draw(st.integers(1, 5), "selections")):
        key = data.draw(st.tuples(*map(axis, counts.shape)), "key")
        if data.draw(st.booleans(), "orthogonal"):
            expected = counts[np.ix_(*(np.atleast_1d(np.arange(n)[k]) for n, k in zip(counts.shape, key, strict=True)))]
            keep = tuple(0 if isinstance(k, int) else slice(None) for k in key)
            np.testing.assert_array_equal(handle.oindex[key], expected[keep])
        else:
            lists = [k for k in key if isinstance(k, np.ndarray)]
            if len({len(k) for k in lists}) <= 1:
                np.testing.assert_array_equal(handle[key], counts[key])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], int]]:
    """The bands and the number of frames of each chunk that is decoded, in one thread."""
    calls: list[tuple[list[int], int]] = []

    def decode_chunk(*arguments: Any) -> Any:
        calls.append((arguments[3].tolist(), arguments[5]))
        return whole(*arguments)

    whole = decoder.decode_chunk
    monkeypatch.setattr(decoder, "decode_chunk", decode_chunk)
    for name in ("handle.reading", "storage.chunks"):
        monkeypatch.setattr(f"dj_photon_codecs.{name}.n_cores", lambda: 1)
    return calls


BOTH = [0, 1, 2]

#: Selections one after another, and what each decodes.
STEPS: dict[str, tuple[Callable[[PhotonArray], Any], list[tuple[list[int], int]]]] = {
    "a frame": (lambda movie: movie[DEPTH + 2], [(BOTH, 3)]),
    "the same frame": (lambda movie: movie[DEPTH + 2], []),
    "an earlier one": (lambda movie: movie[DEPTH], []),
    "a later one decodes the whole chunk": (lambda movie: movie[DEPTH + 4], [(BOTH, DEPTH)]),
    "any other of the chunk is there": (lambda movie: movie[2 * DEPTH - 1], []),
    "frame by frame, all at once": (lambda movie: [movie[i] for i in range(DEPTH)], [(BOTH, DEPTH)]),
    "a crop": (lambda movie: movie[2 * DEPTH :, 10:20, 3:5], [([0], DEPTH)]),
    "a pixel of another band decodes the whole chunk": (lambda movie: movie[2 * DEPTH :, 140, 3], [(BOTH, DEPTH)]),
}


def test_what_is_decoded(movie: tuple[Path, Any], decoded: list[Any]) -> None:
    handle = open_movie(movie[0])
    found = {}
    for name, (read, _) in STEPS.items():
        read(handle)
        found[name] = decoded.copy()
        decoded.clear()
    assert found == {name: expected for name, (_, expected) in STEPS.items()}


def test_a_box_of_a_chunk_that_is_read_ahead_waits_for_it(movie: tuple[Path, Any], decoded: list[Any]) -> None:
    handle = open_movie(movie[0])
    np.testing.assert_array_equal(np.stack(list(handle.frames())), movie[1])
    assert decoded == [(BOTH, DEPTH)] * 3


def test_no_chunk_of_a_remote_movie_is_fetched_twice(movie: tuple[Path, Any], decoded: list[Any]) -> None:
    handle = write_movie("memory://boxes/movie", movie[1][:DEPTH], calibration=NOISE, profile="dense")
    decoded.clear()
    frame = handle[2]
    assert decoded == [(BOTH, DEPTH)]
    np.testing.assert_array_equal(frame, handle[:][2])


def test_the_cache_counts_what_it_holds(movie: tuple[Path, Any]) -> None:
    before, handle = CACHE.nbytes, open_movie(movie[0])
    handle[0]
    handle[5]
    assert CACHE.nbytes - before == DEPTH * 300 * 24
    size = CACHE.max_bytes
    set_cache_size(0)
    handle[DEPTH]
    set_cache_size(size)
    assert CACHE.nbytes == DEPTH * 300 * 24


def test_damage_outside_the_box_is_noticed(movie: tuple[Path, Any], tmp_path: Path) -> None:
    """The checksum of a chunk covers all of it."""
    folder = tmp_path / "movie"
    write_movie(folder, movie[1][:4], calibration=NOISE, profile="dense")
    [shard] = [path for path in (folder / "c").rglob("*") if path.is_file()]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 + 3000] ^= 1  # within the streams of the last band
    shard.write_bytes(content)
    with pytest.raises(DamagedChunkError):
        open_movie(folder)[0]
