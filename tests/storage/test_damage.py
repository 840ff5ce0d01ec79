"""Damage at rest: every kind on every kind of object is found at read and by verify(), and the rest can be read.

DESIGN invariant 5: no silent zeros, and no chunk that is not the one that was written.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import google_crc32c
import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    Calibration,
    DamagedChunkError,
    FormatError,
    MissingChunkError,
    PhotonArray,
    PhotonCodecError,
    StorageError,
    open_movie,
    write_movie,
)
from dj_photon_codecs.handle.cache import ChunkCache
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage import plan as plan_module
from dj_photon_codecs.storage.location import Location
from tables import fetched, json_row

NOISE = Calibration.given(20.0, 100.0)
SHAPE = (50, 16, 24)


def make_counts(seed: int = 1) -> np.ndarray[Any, Any]:
    return np.round(100 + 20 * np.random.default_rng(seed).poisson(8, SHAPE)).astype(np.uint16)


COUNTS = make_counts()

#: What is written: 8 frames a chunk, 2 chunks a shard.
LAYOUTS: dict[str, dict[str, Any]] = {
    "shards": {},
    "shards, not compressed": {"compressors": []},  # all indices are equal
    "dense": {"profile": "dense"},
    "lossless": {"profile": "lossless"},
    "V2 chunks": {"zarr_format": 2},
    "V2 chunks, not compressed": {"zarr_format": 2, "compressors": []},
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 8 * 16 * 24)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 2 * 8 * 16 * 24 * 2)
    monkeypatch.setattr(plan_module, "entropy_coder_pays", lambda *_: True)  # not in chunks as small as these


def write(folder: Path, layout: str, counts: np.ndarray[Any, Any] = COUNTS, **options: Any) -> PhotonArray:
    return write_movie(folder, counts, **{"calibration": NOISE, **LAYOUTS[layout], **options})


def an_object(folder: Path, number: int) -> Path:
    """One object of a movie; number 1 holds its frames 16 to 31 in shards, 8 to 15 in chunks."""
    chunk = folder / f"{number}.0.0"
    return chunk if chunk.exists() else folder / "c" / str(number) / "0" / "0"


@dataclass(frozen=True)
class Scene:
    """A movie to damage, and others to take foreign objects from."""

    folder: Path
    layout: str
    others: Path

    @property
    def sharded(self) -> bool:
        return not self.layout.startswith("V2")

    @property
    def path(self) -> Path:
        return an_object(self.folder, 1)

    def put_other(self, counts: np.ndarray[Any, Any]) -> None:
        """In place of the object, the same one of another movie."""
        write(self.others, self.layout, counts)
        self.path.write_bytes(an_object(self.others, 1).read_bytes())


def alter(change: Callable[[bytes], bytes]) -> Callable[[Scene], None]:
    """A kind of damage that makes other bytes of the object's own."""

    def damage(scene: Scene) -> None:
        scene.path.write_bytes(change(scene.path.read_bytes()))

    return damage


def flip(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 16
    return bytes(changed)


def swap(scene: Scene) -> None:
    first, second = an_object(scene.folder, 0), scene.path
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def swap_chunks_in_shard(scene: Scene) -> None:
    """The two chunks of the shard change places, and its index with them: every crc32c holds."""
    content = scene.path.read_bytes()
    index = np.frombuffer(content[-36:-4], "<u8").reshape(2, 2)[::-1]
    checksum = int(google_crc32c.value(index.tobytes()))
    scene.path.write_bytes(content[:-36] + index.tobytes() + checksum.to_bytes(4, "little"))


WHOLE, FIRST = "whole object", "first chunk"

#: Kind of damage: how it is done, and what is lost by it.
KINDS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "missing": (lambda scene: scene.path.unlink(), WHOLE),
    "empty": (alter(lambda content: b""), WHOLE),
    "truncated by half": (alter(lambda content: content[: len(content) // 2]), WHOLE),
    "truncated by a byte": (alter(lambda content: content[:-1]), WHOLE),
    "zeroed": (alter(lambda content: bytes(len(content))), WHOLE),
    "longer than any object": (alter(lambda content: content + bytes(1 << 20)), WHOLE),
    "one bit": (alter(lambda content: flip(content, 30)), FIRST),
    "another movie's": (lambda scene: scene.put_other(make_counts(2)), WHOLE),
    "an older version": (lambda scene: scene.put_other(COUNTS + np.uint16(20)), WHOLE),
}

INDEX_KINDS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "one bit of the index": (alter(lambda content: flip(content, -20)), WHOLE),
    "index zeroed": (alter(lambda content: content[:-36] + bytes(36)), WHOLE),
    "index cut off": (alter(lambda content: content[:-36]), WHOLE),
    "index of ones": (alter(lambda content: content[:-36] + b"\xff" * 36), WHOLE),
    "chunks swapped within the shard": (swap_chunks_in_shard, WHOLE),
}

CASES = [(layout, kind) for layout in LAYOUTS for kind in KINDS] + [
    (layout, kind) for layout in LAYOUTS if not layout.startswith("V2") for kind in INDEX_KINDS
]


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(tmp_path / "m", request.param, tmp_path / "others")


@pytest.mark.parametrize(("scene", "kind"), CASES, indirect=["scene"], ids=lambda value: str(value))
def test_every_kind_of_damage_is_found_and_the_rest_reads(scene: Scene, kind: str) -> None:
    """Invariant 5: at read, by verify() with the frames, and around it by read_intact()."""
    before = write(scene.folder, scene.layout)
    expected = before[:]
    damage, extent = {**KINDS, **INDEX_KINDS}[kind]
    damage(scene)
    frames = (16, 32) if scene.sharded else (8, 16)
    if extent == FIRST and scene.sharded:
        frames = (16, 24)
    for handle in (open_movie(scene.folder), pickle.loads(pickle.dumps(before))):
        key = "c/1/0/0" if scene.sharded else "1.0.0"
        selections: list[Any] = [frames[0], slice(None), (slice(None), 3), frames[1] - 1]
        for selection in selections:
            with pytest.raises((MissingChunkError, DamagedChunkError), match=rf"frames? \d+.*object '{key}' of "):
                handle[selection]
        report = handle.verify(progress=False)
        assert not report
        assert report.frames == (frames,)
        assert {problem.object_key for problem in (*report.missing, *report.damaged)} == {key}
        assert not report.metadata
        lost = np.zeros(SHAPE, bool)
        lost[slice(*frames)] = True
        selections = [slice(None), (slice(10, 40), 3), 2, (slice(None), [1, 4], slice(2, 9))]
        for selection in selections:
            intact = handle.read_intact(selection)
            np.testing.assert_array_equal(intact.mask, lost[selection])
            np.testing.assert_array_equal(intact.data[~intact.mask], expected[selection][~lost[selection]])
            assert intact.dtype == np.uint16
        assert (handle[: frames[0]] == expected[: frames[0]]).all()
        assert (handle[frames[1] :] == expected[frames[1] :]).all()


@pytest.mark.parametrize("scene", LAYOUTS, indirect=True)
def test_two_objects_of_one_movie_that_changed_places_are_both_found(scene: Scene) -> None:
    """Invariant 5: each is whole, and each is refused."""
    expected = write(scene.folder, scene.layout)[:]
    swap(scene)
    handle = open_movie(scene.folder)
    stop = 32 if scene.sharded else 16
    for index in (0, stop - 1):
        with pytest.raises(DamagedChunkError, match="is whole, but is not the one that was written: its checksum is"):
            handle[index]
    assert handle.verify(progress=False).frames == ((0, stop),)
    assert handle.read_intact().mask.sum() == stop * 16 * 24
    assert (handle[stop:] == expected[stop:]).all()


def test_the_edge_of_a_movie_is_checked_like_the_rest(tmp_path: Path) -> None:
    """The last chunk has 2 of 8 frames; the last shard 1 of 2 chunks."""
    handle = write(tmp_path / "m", "shards")
    write(tmp_path / "b", "shards", make_counts(2))
    an_object(tmp_path / "m", 3).write_bytes(an_object(tmp_path / "b", 3).read_bytes())
    with pytest.raises(DamagedChunkError, match=r"chunk \(6, 0, 0\) \(frames 48 to 49\)"):
        handle[49]
    assert handle.verify(progress=False).frames == ((48, 50),)
    assert np.argwhere(np.asarray(handle.read_intact().mask).any(axis=(1, 2))).ravel().tolist() == [48, 49]


def test_means_of_what_is_intact_leave_the_lost_out(tmp_path: Path) -> None:
    handle = write(tmp_path / "m", "shards")
    expected = handle[:]
    an_object(tmp_path / "m", 1).unlink()
    intact = handle.read_intact()
    kept = np.delete(expected, np.s_[16:32], axis=0)
    np.testing.assert_allclose(intact.mean(axis=0), kept.mean(axis=0))
    filled = np.ma.filled(intact.astype(float), np.nan)
    np.testing.assert_allclose(np.nanmean(filled, axis=0), kept.mean(axis=0))


def test_an_undamaged_movie_has_a_mask_without_a_true(tmp_path: Path) -> None:
    handle = write(tmp_path / "m", "shards")
    intact = handle.read_intact((slice(3, 9), slice(None), 4))
    assert intact.mask.shape == (6, 16)
    assert not intact.mask.any()
    np.testing.assert_array_equal(intact.data, handle[3:9, :, 4])


def test_frames_split_in_space_are_masked_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 8 * 24)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 8 * 24 * 2)
    handle = write(tmp_path / "m", "shards")
    (tmp_path / "m" / "c" / "7" / "1" / "0").unlink()
    mask = np.asarray(handle.read_intact().mask)
    assert mask[7, 8:].all()
    assert mask.sum() == 8 * 24
    assert handle.verify(progress=False).frames == ((7, 8),)


class UnreachableStore(MemoryStore):
    """A store that is there for writing only."""

    broken: ClassVar[bool] = False

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        if type(self).broken:
            raise OSError("connection refused")
        return await super().get(*args, **kwargs)


def test_a_store_that_cannot_be_reached_is_not_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = write_movie(UnreachableStore(), COUNTS, calibration=NOISE)
    monkeypatch.setattr(UnreachableStore, "broken", True)
    for read in (handle.read_intact, handle.verify, lambda: handle[0], lambda: open_movie(handle._location)):
        with pytest.raises(StorageError, match="cannot be read: .*connection refused"):
            read()


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated by half", "zeroed", "another movie's"])
@pytest.mark.parametrize("layout", ["shards", "V2 chunks"])
def test_damage_on_s3_is_found_like_that_in_a_folder(s3_server: Any, layout: str, kind: str) -> None:
    """Stores differ in what they raise for a range beyond an object's end."""
    bucket = s3_server.new_bucket()
    settings = s3_server.store(bucket)
    options = {"key": settings["access_key"], "secret": settings["secret_key"]}
    files = fsspec.filesystem("s3", **options, client_kwargs={"endpoint_url": s3_server.endpoint})
    handles = [
        write_movie(
            Location(f"s3://{bucket}/{name}", f"{bucket}/{name}", files),
            make_counts(seed),
            calibration=NOISE,
            **LAYOUTS[layout],
        )
        for seed, name in enumerate(("m", "b"))
    ]
    key = "c/1/0/0" if layout == "shards" else "1.0.0"
    path, content = f"{bucket}/m/{key}", files.cat_file(f"{bucket}/m/{key}")
    if kind == "missing":
        files.rm(path)
    else:
        changed = {
            "empty": b"",
            "truncated by half": content[: len(content) // 2],
            "zeroed": bytes(len(content)),
            "another movie's": files.cat_file(f"{bucket}/b/{key}"),
        }
        files.pipe_file(path, changed[kind])
    frames = (16, 32) if layout == "shards" else (8, 16)
    with pytest.raises((MissingChunkError, DamagedChunkError), match=f"object '{key}'"):
        handles[0][frames[0]]
    assert handles[0].verify(progress=False).frames == (frames,)
    assert handles[0].read_intact().mask.sum() == (frames[1] - frames[0]) * 16 * 24


# Metadata documents

DOCUMENT_KINDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "not text": lambda content: b"\xff\xfe" + content,
    "a list": lambda content: b"[1, 2]",
    "one number": lambda content: content.replace(b'"step": 0.5', b'"step": 0.6').replace(b"20.0", b"21.0"),
    "nested without end": lambda content: b'{"a":' * 100_000,
}


@pytest.mark.parametrize("kind", DOCUMENT_KINDS)
@pytest.mark.parametrize(
    ("layout", "name"), [("shards", "zarr.json"), ("V2 chunks", ".zarray"), ("V2 chunks", ".zattrs")]
)
def test_a_damaged_metadata_document_is_named_and_a_row_reads_without_it(
    tmp_path: Path, layout: str, name: str, kind: str
) -> None:
    before = write(tmp_path / "m", layout)
    path = tmp_path / "m" / name
    path.write_bytes(DOCUMENT_KINDS[kind](path.read_bytes()))
    with pytest.raises(FormatError, match=f"{name}.* is damaged: it holds|is not what was written"):
        open_movie(tmp_path / "m")
    held = pickle.loads(pickle.dumps(before))  # as one made from the row: it asks the store for no document
    assert held[:].shape == SHAPE
    report = held.verify(progress=False)
    assert not report.ok
    assert not report.damaged
    assert name in report.metadata[0]
    assert name in str(report)


@pytest.mark.parametrize(
    ("layout", "name"), [("shards", "zarr.json"), ("V2 chunks", ".zarray"), ("V2 chunks", ".zattrs")]
)
def test_a_missing_metadata_document_is_named_and_a_row_reads_without_it(
    tmp_path: Path, layout: str, name: str
) -> None:
    held = write(tmp_path / "m", layout)
    (tmp_path / "m" / name).unlink()
    if name != ".zattrs":  # an array without attributes is one that another program wrote
        with pytest.raises(FormatError, match=r"there is no Zarr array at.*\.documents"):
            open_movie(tmp_path / "m")
    assert held[:].shape == SHAPE
    problem = f"metadata document {name!r} of {tmp_path / 'm'} is missing"
    assert held.verify(progress=False).metadata == (problem,)


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.parametrize(("layout", "name"), [("shards", "zarr.json"), ("V2 chunks", ".zarray")])
def test_no_bit_of_a_metadata_document_that_flips_changes_a_count(tmp_path: Path, layout: str, name: str) -> None:
    """Every fifth bit: an error of this package, or the same counts."""
    expected = write(tmp_path / "m", layout)[:9]
    path = tmp_path / "m" / name
    intact = path.read_bytes()
    opened = 0
    for bit in range(0, 8 * len(intact), 5):
        content = bytearray(intact)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            counts = open_movie(tmp_path / "m")[:9]
        except PhotonCodecError:
            continue
        opened += 1
        np.testing.assert_array_equal(counts, expected)
    assert opened < 100  # in the names of the record's attribute and of the digest itself


def test_the_document_of_another_movie_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m", "shards")
    other = write(tmp_path / "b", "shards", make_counts(2), calibration=Calibration.given(10.0, 100.0))
    (tmp_path / "m" / "zarr.json").write_bytes((tmp_path / "b" / "zarr.json").read_bytes())
    handle = open_movie(tmp_path / "m")  # whole in itself: the chunks show it
    with pytest.raises(DamagedChunkError, match="is not the one that was written"):
        handle[0]
    assert handle.read_intact().mask.all()
    assert handle.calibration == other.calibration


# The row and the store


def put(row: dict[str, Any], place: list[Any], value: Any) -> None:
    for name in place[:-1]:
        row = row[name]
    row[place[-1]] = value


DOCUMENT = ["zarr", "zarr.json"]
SHARDING = [*DOCUMENT, "codecs", 0, "configuration"]
EDITS: dict[str, tuple[list[Any], Any, str]] = {
    "frames": ([*DOCUMENT, "shape", 0], 49, r"shape\[0\] is 49 in this handle, and 50 in the store"),
    "data type": (
        [*DOCUMENT, "data_type"],
        "float32",
        'data_type is "float32" in this handle, and "uint16" in the store',
    ),
    "gain of the codec": (
        [*SHARDING, "codecs", 0, "configuration", "conversion_gain"],
        21.0,
        "conversion_gain is 21.0 in this handle, and 20.0 in the store",
    ),
    "chunks": ([*SHARDING, "chunk_shape", 0], 4, r"chunk_shape\[0\] is 4 in this handle, and 8 in the store"),
    "gain of the record": (
        ["calibration", "conversion_gain"],
        2.0,
        "conversion_gain is 2.0 in this handle, and 20.0 in",
    ),
    "step": (["step"], 0.25, "step is 0.25 in this handle, and 0.5 in the store"),
    "checksums": (["checksums"], "AAAA", 'checksums is "AAAA" in this handle'),
    "digest": (["digest"], "0" * 16, 'digest is "0000000000000000" in this handle'),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_row_that_was_edited_is_refused_with_both_sides(tmp_path: Path, edit: str) -> None:
    row = json_row(write(tmp_path / "m", "shards"))
    assert fetched(row, tmp_path)[3].shape == SHAPE[1:]
    place, value, shown = EDITS[edit]
    put(row, place, value)
    if edit in ("frames", "data type"):
        row["original_bytes"] = int(np.prod(row["zarr"]["zarr.json"]["shape"])) * (4 if edit == "data type" else 2)
    handle = fetched(json.dumps(row), tmp_path)
    assert "PhotonArray" in repr(handle)  # looking at it asks for nothing
    for read in (lambda: handle[0], handle.read_intact):
        with pytest.raises(FormatError, match=f"is not what was written.*{shown}"):
            read()
    report = handle.verify(progress=False)
    assert not report.ok
    assert any(shown.replace("\\", "") in problem for problem in report.metadata)


def test_a_row_whose_size_is_not_that_of_its_array_is_refused(tmp_path: Path) -> None:
    row = json_row(write(tmp_path / "m", "shards"))
    put(row, [*DOCUMENT, "shape", 0], 49)
    with pytest.raises(FormatError, match=r"a movie of 38400 bytes.*shape \(49, 16, 24\) uint16, 37632 bytes"):
        _ = fetched(row, tmp_path).shape


def test_an_edited_row_is_refused_also_when_the_store_is_away(tmp_path: Path) -> None:
    row = json_row(write(tmp_path / "m", "shards"))
    row["step"] = 0.25
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FormatError, match="is not what was written.*'zarr.json' of .* is missing"):
        fetched(row, tmp_path / "elsewhere")[0]


def test_a_store_that_holds_another_movie_is_refused_with_both_sides(tmp_path: Path) -> None:
    row = json_row(write(tmp_path / "m", "shards"))
    (tmp_path / "m").rename(tmp_path / "gone")
    write(tmp_path / "m", "shards", make_counts(2), calibration=Calibration.given(10.0, 100.0))
    handle = fetched(row, tmp_path)
    with pytest.raises(DamagedChunkError, match=r"its checksum is [0-9a-f]{8}, the record has [0-9a-f]{8}"):
        handle[0]
    report = handle.verify(progress=False)
    assert report.frames == ((0, 50),)
    assert any(
        "conversion_gain is 20.0 in this handle, and 10.0 in the store" in problem for problem in report.metadata
    )


def test_numbers_that_a_database_writes_in_its_own_way_are_the_same(tmp_path: Path) -> None:
    """PostgreSQL has 1e16 in full, MySQL 100.0 as 100, and neither keeps the order of keys."""
    handle = write_movie(tmp_path / "m", COUNTS.astype(np.float64), profile="lossless")
    row = json_row(handle)
    [document] = row["zarr"].values()
    assert document["fill_value"] == np.finfo(float).max
    document["fill_value"] = int("17976931348623157" + "0" * 292)
    row["step"] = 0
    row["versions"] = dict(reversed(row["versions"].items()))
    assert (fetched(row, tmp_path)[3] == COUNTS[3]).all()


def test_attributes_of_the_users_own_are_no_disagreement(tmp_path: Path) -> None:
    handle = write(tmp_path / "m", "shards")
    opened = zarr.open_array(tmp_path / "m", mode="r+")
    opened.attrs["stimulus"] = {"grating": 45}
    assert handle.verify(progress=False)
    again = open_movie(tmp_path / "m")
    assert again.verify(progress=False)
    assert again.attrs["stimulus"] == {"grating": 45}
    copy = write_movie(tmp_path / "copy", again)
    assert copy.verify(progress=False)
    assert (copy[:] == handle[:]).all()


def test_a_record_without_checksums_reads_and_is_not_verified(tmp_path: Path) -> None:
    """Who takes the checksums away, to put other chunks there, does not pass."""
    handle = write(tmp_path / "m", "shards")
    path = tmp_path / "m" / "zarr.json"
    document = json.loads(path.read_text())
    for key in ("checksums", "digest"):
        del document["attributes"]["dj_photon"][key]
    path.write_text(json.dumps(document))
    old = open_movie(tmp_path / "m")
    assert (old[:] == handle[:]).all()
    report = old.verify(progress=False)
    assert "no checksums and digest in the record" in str(report)
    assert not report
    assert old.record is not None
    assert old.record.checksums is None
    copied = write_movie(tmp_path / "copy", old)
    assert copied == open_movie(tmp_path / "copy")


@pytest.mark.parametrize("profile", ["standard", "portable", "lossless", "anscombe-v1"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_movie_that_lost_its_record_is_not_called_unaltered(tmp_path: Path, layout: str, profile: str) -> None:
    """Two objects change places: nothing is left that knows of it."""
    scene = Scene(tmp_path / "m", layout, tmp_path / "others")
    write(scene.folder, layout, profile=profile)
    swap(scene)
    if layout.startswith("V2"):
        (scene.folder / ".zattrs").unlink()
    else:
        path = scene.folder / "zarr.json"
        path.write_bytes(path.read_bytes().replace(b'"dj_photon"', b'"dj_photoo"'))
    report = open_movie(scene.folder).verify(progress=False)
    assert not report
    assert "no record: identity not checked" in str(report)


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_a_movie_of_another_program_is_said_to_have_no_record(name: str) -> None:
    report = open_movie(Path(__file__).parents[1] / "data" / "anscombe_v1" / f"{name}.zarr").verify(progress=False)
    assert report, str(report)
    assert str(report).endswith("can be decoded; no record: identity not checked")


FAULTS = {
    "no memory": MemoryError(),
    "no threads": RuntimeError("can't start new thread"),
    "at exit": RuntimeError("cannot schedule new futures after interpreter shutdown"),
    "no library": ImportError("libllvmlite.so: cannot open shared object file"),
    "no cache": RuntimeError("cannot cache function 'decode': no locator available for file 'kernels.py'"),
    "cache full": OSError(28, "No space left on device"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_readers_machine_is_not_told_as_damage(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = write(tmp_path / "m", "shards")

    def fail(*args: Any, **options: Any) -> Any:
        raise FAULTS[fault]

    for chain in (type(handle._reader.format.coder), type(handle._reader.format.index.chain)):
        monkeypatch.setattr(chain, "decode", fail)
    for read in (lambda: handle[3], lambda: handle[:], handle.verify, handle.read_intact):
        with pytest.raises(StorageError, match="on this machine"):
            read()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("error during blosc decompression: -1"), OSError("Invalid data stream"), EOFError()],
    ids=repr,
)
def test_altered_bytes_are_still_told_as_damage(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = write(tmp_path / "m", "shards")

    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(type(handle._reader.format.coder), "decode", fail)
    with pytest.raises(DamagedChunkError):
        handle[3]


def test_a_finalizer_does_not_wait_for_the_lock_that_its_own_thread_holds() -> None:
    """The garbage collector may run in the middle of any call of the cache."""
    cache = ChunkCache(1000)
    cache.put((1, (0,)), np.zeros(100, np.uint8))
    with cache._lock:
        finalizer = threading.Thread(target=cache.drop, args=(1,), daemon=True)
        finalizer.start()
        finalizer.join(10)
        assert not finalizer.is_alive()
        assert cache.nbytes == 100
    cache.put((2, (0,)), np.zeros(10, np.uint8))
    assert cache.nbytes == 10


COLLECTING = """
import gc, sys, warnings
import h5py, tifffile
import numpy as np
from dj_photon_codecs import Calibration, PhotonWriter, open_movie, open_source, write_movie
from dj_photon_codecs.handle.cache import CACHE

CACHE.max_bytes = 20_000  # a few chunks: every read evicts
counts = np.random.default_rng(0).poisson(9, (20, 16, 24)).astype(np.uint16)
write_movie(sys.argv[1], counts, calibration=Calibration.given(1, 0))
tifffile.imwrite(f"{sys.argv[1]}.tif", counts)
with h5py.File(f"{sys.argv[1]}.h5", "w") as file:
    file["movie"] = counts
gc.set_threshold(1, 1, 1)
for i in range(6):
    movie = open_movie(sys.argv[1])
    movie.cycle = movie._chunks.cycle = movie  # only the collector finds these
    assert movie[i].shape == (16, 24)
    assert len(list(movie.frames(0, 5))) == 5
    write_movie(f"{sys.argv[1]}{i}", movie[:4], calibration=Calibration.given(1, 0))
    with PhotonWriter(f"{sys.argv[1]}w{i}", calibration=Calibration.given(1, 0)) as writer:
        writer.extend(counts[:4])
    for kind in ("tif", "h5"):
        source = open_source(f"{sys.argv[1]}.{kind}")
        source.cycle = source
        assert source[i].shape == (16, 24)
        write_movie({}, source, calibration=Calibration.given(1, 0))
print("done")
"""


@pytest.mark.slow
def test_nothing_hangs_while_garbage_is_collected_all_the_time(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTING, str(tmp_path / "m")], capture_output=True, text=True, timeout=240
    )
    assert done.stdout.split() == ["done"], done.stderr
