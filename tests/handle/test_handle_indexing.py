"""An index on a handle means what it means in numpy, and costs each chunk once."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from zarr.storage import MemoryStore

from dj_photon_codecs import Calibration, PhotonArray, open_movie, write_movie
from dj_photon_codecs.handle import reading
from dj_photon_codecs.handle.cache import CACHE
from dj_photon_codecs.handle.indexing import block_selection, numpy_selection, orthogonal_selection, point_selection
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.decoded import Chunk
from dj_photon_codecs.storage.layout import ChunkGrid

COUNTS = np.random.default_rng(0).integers(0, 4000, (50, 32, 48), dtype=np.uint16)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotonArray:
    """Chunks of 8 frames in shards of 16."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 8 * 32 * 48)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 2 * 8 * 32 * 48 * 2)
    return write_movie(tmp_path / "m", COUNTS, profile="lossless")


@st.composite
def cut_arrays(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], ChunkGrid]:
    """An array of 3 to 5 axes, and chunks of any shape."""
    shape = draw(npst.array_shapes(min_dims=3, max_dims=5, min_side=1, max_side=7))
    chunk = tuple(draw(st.integers(1, size)) for size in shape)
    return np.arange(np.prod(shape)).reshape(shape), ChunkGrid(shape, chunk, chunk)


@st.composite
def parts_of_an_index(draw: st.DrawFn, size: int) -> Any:
    """What stands for one axis; integers may be out of bounds."""
    integers = st.integers(-size, size - 1)
    return draw(
        st.one_of(
            integers,
            st.slices(size),
            st.lists(integers, max_size=5),
            st.lists(st.lists(integers, min_size=2, max_size=2), min_size=1, max_size=2).map(np.array),
            npst.arrays(np.bool_, size),
            st.integers(-size - 1, size),
        )
    )


@st.composite
def indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """An index as numpy takes it: for some axes, with None and one ellipsis."""
    taken = draw(st.integers(0, len(shape)))
    from_end = draw(st.booleans())
    items = [draw(parts_of_an_index(size)) for size in (shape[len(shape) - taken :] if from_end else shape[:taken])]
    if from_end:
        items.insert(0, ...)
    elif draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), None)
    return tuple(items)


def read(selection: Any, array: np.ndarray[Any, Any], grid: ChunkGrid) -> Any:
    """What a selection gives of an array that is cut into chunks; each of them is asked for once."""
    target = np.full(selection.shape, -1)
    seen = []
    for part in selection.parts(grid):
        chunk = np.full(grid.chunk, -2)
        inside = array[tuple(slice(i * n, (i + 1) * n) for i, n in zip(part.chunk, grid.chunk, strict=True))]
        chunk[tuple(map(slice, inside.shape))] = inside
        selection.copy(Chunk(chunk), part, target)
        seen.append(part.chunk)
    assert len(seen) == len(set(seen))
    return target


@pytest.mark.slow
@given(st.data(), cut_arrays())
@settings(max_examples=600, deadline=None)
def test_an_index_means_what_it_means_in_numpy(data: Any, cut: tuple[np.ndarray[Any, Any], ChunkGrid]) -> None:
    array, grid = cut
    index = data.draw(indices(array.shape))
    try:
        expected = array[index]
    except IndexError:
        with pytest.raises(IndexError):
            numpy_selection(index, array.shape)
        return
    try:
        found = read(numpy_selection(index, array.shape), array, grid)
    except IndexError:
        assert expected.size == 0  # there numpy does not look at the other indices
        return
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@given(st.data(), cut_arrays())
@settings(max_examples=200, deadline=None)
def test_a_mask_of_several_axes_means_what_it_means_in_numpy(data: Any, cut: Any) -> None:
    array, grid = cut
    n_axes = data.draw(st.integers(2, array.ndim))
    mask = data.draw(npst.arrays(np.bool_, array.shape[:n_axes]))
    np.testing.assert_array_equal(read(numpy_selection(mask, array.shape), array, grid), array[mask])
    first = data.draw(st.integers(0, array.ndim - 2))
    mask = data.draw(npst.arrays(np.bool_, array.shape[first : first + 2]))
    index = (*(slice(None),) * first, mask)
    np.testing.assert_array_equal(read(numpy_selection(index, array.shape), array, grid), array[index])


@given(st.data(), cut_arrays())
@settings(max_examples=200, deadline=None)
def test_oindex_takes_each_list_along_its_axis(data: Any, cut: Any) -> None:
    array, grid = cut
    lists = [data.draw(st.lists(st.integers(-size, size - 1), max_size=5)) for size in array.shape]
    expected = array[np.ix_(*(np.array(one, int) for one in lists))]
    np.testing.assert_array_equal(read(orthogonal_selection(tuple(lists), array.shape), array, grid), expected)


KEYS: dict[str, Any] = {
    "a list": [41, 3, 3, -1],
    "every second, as a list": list(range(0, 50, 2)),
    "a mask of frames": np.arange(50) % 3 == 0,
    "a mask of counts": COUNTS > 3900,
    "a mask of pixels": (slice(None), COUNTS[0] > 3900),
    "backwards": slice(None, None, -3),
    "nothing": [[]],
    "mixed": (0, slice(None), [1, 2]),
    "a new axis": (slice(3, 5), None, 4),
    "points": ([1, 40], [3, 4], [5, 6]),
    "a region": (slice(3, 44, 7), slice(10, 20), slice(None)),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_handle_gives_what_numpy_gives(stored: PhotonArray, decoded: list[Any], key: str) -> None:
    expected = COUNTS[KEYS[key]]
    found = stored[KEYS[key]]
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(decoded) == len(set(decoded))  # each chunk once
    # those of the memory that the selection does not touch are not read
    touched = np.zeros(COUNTS.shape, bool)
    touched[KEYS[key]] = True
    assert {coords[0] for coords in decoded} == set(np.flatnonzero(touched.any(axis=(1, 2))) // 8)


def test_one_count_is_a_number_of_numpys(stored: PhotonArray) -> None:
    assert isinstance(stored[0, 0, 0], np.uint16)
    assert stored[0, 0, 0] == COUNTS[0, 0, 0]
    assert stored[[0], 0, 0].shape == (1,)


@pytest.mark.filterwarnings("ignore:the given conversion gain")  # the counts are no photons
def test_the_stabilised_view_is_indexed_in_the_same_way(tmp_path: Path) -> None:
    view = write_movie(tmp_path / "s", COUNTS, calibration=Calibration.given(20, 0)).stabilized
    whole = view[:]
    for key in KEYS.values():
        np.testing.assert_array_equal(view[key], whole[key])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (50, "index 50 is out of bounds for axis 0 with size 50"),
        ((0, -33), "index -33 is out of bounds for axis 1 with size 32"),
        ((0, 0, [1, 48]), "index 48 is out of bounds for axis 2 with size 48"),
        ((0, 0, 0, 0), "too many indices: the array has 3 axes, and 4"),
        (np.ones(49, bool), "the mask has length 49 along axis 0, the array has length 50"),
        (np.ones((50, 31), bool), "the mask has length 31 along axis 1, the array has length 32"),
        (1.5, "an index is an integer, a slice.*got 1.5"),
        ("movie", "an index is an integer, a slice.*got 'movie'"),
        (True, "got True"),
        (slice(0.5, None), r"a slice takes integers, got slice\(0.5"),
        (([1, 2], [1, 2, 3]), r"indices of the shapes \(2,\) \(3,\) cannot be broadcast"),
        ((..., 0, ...), "one ellipsis"),
    ],
)
def test_what_cannot_be_selected_says_where(stored: PhotonArray, decoded: list[Any], key: Any, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        stored[key]
    assert decoded == []


def test_zarrs_own_ways_of_indexing_go_by_the_same_road(stored: Any) -> None:
    assert (stored.oindex[[1, 40, 20], ::-1, [3, 4]] == COUNTS[[1, 40, 20], ::-1][:, :, [3, 4]]).all()
    assert (stored.oindex[COUNTS[:, 0, 0] > 2000] == COUNTS[COUNTS[:, 0, 0] > 2000]).all()
    assert (stored.vindex[[1, 40], [3, 4], [5, 6]] == COUNTS[[1, 40], [3, 4], [5, 6]]).all()
    assert (stored.vindex[COUNTS > 3900] == COUNTS[COUNTS > 3900]).all()
    assert (stored.get_mask_selection(COUNTS > 3900) == COUNTS[COUNTS > 3900]).all()
    assert (stored.get_coordinate_selection(([1, 2], 3, [4, 5])) == COUNTS[[1, 2], 3, [4, 5]]).all()
    assert (stored.get_basic_selection((slice(3), ...)) == COUNTS[:3]).all()
    assert (stored.blocks[1] == COUNTS[16:32]).all()
    assert (stored.blocks[1:, 0] == COUNTS[16:]).all()
    out = np.empty((2, 32, 48), np.uint16)
    assert stored.get_basic_selection(slice(2), out=out) is out
    assert (out == COUNTS[:2]).all()
    with pytest.raises(ValueError, match=r"out has shape \(2, 32, 48\), the selection has \(3, 32, 48\)"):
        stored.get_basic_selection(slice(3), out=out)
    with pytest.raises(IndexError, match="no fields"):
        stored.get_basic_selection(slice(3), fields="a")
    for wrong in (slice(3), ([1], [2])):
        with pytest.raises(IndexError, match="vindex takes indices for each of the 3 axes|contiguous|unsupported"):
            stored.vindex[wrong]
    grid = ChunkGrid((50, 32, 48), (8, 32, 48), (16, 32, 48))
    with pytest.raises(IndexError, match="blocks takes"):
        block_selection([1, 2], grid)
    with pytest.raises(IndexError, match="for axis 0 with size 4"):
        block_selection(4, grid)
    with pytest.raises(IndexError, match="oindex takes"):
        orthogonal_selection(None, grid.shape)
    with pytest.raises(IndexError, match="vindex takes"):
        point_selection(None, grid.shape)


def test_the_async_array_reads_by_the_same_road_and_no_other(stored: PhotonArray, tmp_path: Path) -> None:
    """Its own reading takes missing chunks for zeros (invariant 5)."""
    lower: Any = stored.async_array
    assert (asyncio.run(lower.getitem((slice(3), 4))) == COUNTS[:3, 4]).all()
    assert (asyncio.run(lower.get_orthogonal_selection(([1, 40], 3, [1, 2]))) == COUNTS[[1, 40], 3][:, [1, 2]]).all()
    assert (
        asyncio.run(lower.get_coordinate_selection(([1, 40], [3, 4], [1, 2]))) == COUNTS[[1, 40], [3, 4], [1, 2]]
    ).all()
    with pytest.raises(NotImplementedError, match="index the handle itself"):
        zarr.Array(lower)[0]


def test_a_list_needs_the_memory_of_its_result_and_a_few_chunks(stored: PhotonArray, monkeypatch: Any) -> None:
    long = write_movie(MemoryStore(), np.tile(COUNTS, (40, 1, 1)), profile="lossless")
    chunk = 8 * 32 * 48 * 2
    monkeypatch.setattr(CACHE, "max_bytes", 0)
    monkeypatch.setattr(reading, "_BOX_BYTES", 4 * chunk)
    order = np.random.default_rng(0).permutation(2000)[:1000]
    long[[0, 1999]]  # what the first read imports and makes
    keys: list[Any] = [list(range(0, 2000, 2)), order, np.arange(2000) % 2 == 0, np.tile(COUNTS > 2000, (40, 1, 1))]
    for key in keys:
        tracemalloc.start()
        result = long[key]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # a chunk is there encoded, decompressed and decoded, and of its bytes a checksum is taken; 8 at a time
        assert peak < 1.3 * result.nbytes + 40 * chunk


def test_a_second_read_of_the_same_chunks_decodes_none(stored: PhotonArray, decoded: list[Any]) -> None:
    first = stored[:, 3, 4]
    decoded.clear()
    np.testing.assert_array_equal(stored[:, 3, 4], first)
    np.testing.assert_array_equal(stored[[3, 1], 5:8], COUNTS[[3, 1], 5:8])
    assert decoded == []


def test_two_handles_of_a_movie_share_what_they_read(tmp_path: Path, decoded: list[Any]) -> None:
    write_movie(tmp_path / "shared", COUNTS, profile="lossless")
    decoded.clear()  # the first object is read back
    one, other = open_movie(tmp_path / "shared"), open_movie(tmp_path / "shared")
    one[3]
    assert len(decoded) == 1
    np.testing.assert_array_equal(other[:, 2, 2], COUNTS[:, 2, 2])
    assert len(decoded) == 1
    before = CACHE.nbytes
    del one
    other[4]
    assert len(decoded) == 1
    assert CACHE.nbytes == before
    del other
    assert CACHE.nbytes < before


def test_a_handle_whose_metadata_was_altered_is_given_nothing_out_of_the_cache(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "altered", COUNTS, profile="lossless")
    movie[3]
    documents = {"zarr.json": {**movie.documents["zarr.json"], "fill_value": 7}}
    altered = PhotonArray(movie._location, documents, movie.record)
    with pytest.raises(ValueError, match="is not what was written"):
        altered[3]
