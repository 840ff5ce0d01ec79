"""Makes the golden files in ``tests/data/golden``: movies as a release wrote them, which every later one has to read.

    python tests/data/make_golden.py

Golden files are added to, and never changed: this refuses to write where one is. A new format version or a new
feature gets a new name, ``v{format version}_{feature}``. Their counts come from a formula, without a random number,
so that the expected ones can be computed from the specification alone (``tests/test_golden.py`` does).

Each folder holds ``movie.zarr``, ``counts.npy`` (as inserted), ``expected.npy`` (as every release
gives them back) and ``row.json`` (what a ``<photon@imaging>`` column holds, with ``path`` in place).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dj_photon_codecs import Calibration, PhotonWriter, recover_movie, write_movie
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.record import without_record

GOLDEN = Path(__file__).parent / "golden"

#: What a process leaves that is killed while it acquires: two blocks of ten frames and a journal.
UNFINISHED = Path(__file__).parent / "unfinished" / "v1_unfinished"

#: Checksums of all files, as ``sha256sum`` writes them: what shows that one was changed.
SUMS = GOLDEN / "SHA256SUMS"


@dataclass(frozen=True)
class Golden:
    """One golden file.

    Attributes
    ----------
    dtype, shape, low, high
        Of the counts.
    calibration
        Gain and zero level; None where no noise model is known.
    options
        For ``write_movie``.
    chunk_pixels, shard_bytes
        In place of the writer's own, so that little data has many chunks.
    noise
        Of a movie that can be predicted: a slope from ``low`` to ``high``, and up to so much on either side of it.
    """

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    calibration: tuple[float, float] | None
    options: dict[str, Any] = field(default_factory=dict)
    chunk_pixels: int = 256
    shard_bytes: int = 1 << 12
    noise: int = 0

    def counts(self) -> np.ndarray[Any, Any]:
        """The movie: every intensity from ``low`` to ``high``, in an order in which neighbours differ."""
        size = int(np.prod(self.shape))
        if self.noise:
            slope = np.linspace(self.low, self.high, size // self.shape[0]).reshape(1, *self.shape[1:])
            places = np.arange(size, dtype=np.int64)  # a hash without a period that a compressor would find
            wave = (places * places * 40503 + places * 2654435761 >> 15) % (2 * self.noise + 1) - self.noise
            return np.asarray(np.rint(slope) + wave.reshape(self.shape)).astype(self.dtype)
        places = (np.arange(size, dtype=np.int64) * 104729) % size  # a prime that divides no size below
        values = self.low + (self.high - self.low) * (places / (size - 1)) ** 2
        values = values if self.dtype == "float32" and self.high % 1 else np.rint(values)
        return values.astype(self.dtype).reshape(self.shape)


BLOSC = {
    "name": "blosc",
    "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "typesize": 1, "blocksize": 0},
}

V1 = {
    "v1_uint16": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3)),
    "v1_int16_negative": Golden("int16", (8, 16, 16), -90, 3000, (3.0, -40.5)),
    "v1_float32_whole": Golden("float32", (8, 16, 16), 0, 4000, (20.0, 100.0)),
    "v1_float32_real": Golden("float32", (8, 16, 16), 0, 99.5, (0.8, 2.5)),
    "v1_lossless": Golden("uint16", (8, 16, 16), 0, 65535, None, {"profile": "lossless"}),
    "v1_portable": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"profile": "portable"}),
    "v1_zarr2": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"zarr_format": 2}),
    "v1_zarr2_float32_whole": Golden("float32", (8, 16, 16), 0, 4000, (20.0, 100.0), {"zarr_format": 2}),
    "v1_shard_edges": Golden("uint16", (11, 13, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=3 * 13 * 17),
    "v1_split_frames": Golden("uint16", (3, 31, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=200),
    "v1_4d": Golden("uint16", (5, 3, 8, 9), 0, 2000, (10.0, 0.0)),
    "v1_codes_16bit": Golden("uint16", (8, 16, 16), 0, 65535, (1.0, 0.0)),
    "v1_step_2": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"step": 2.0}),
    "v1_gain_below_1": Golden("int32", (8, 16, 16), 0, 500, (0.3, 5.0)),
    "v1_dense": Golden(
        "uint16", (10, 32, 32), 200, 3000, (100.0, 157.3), {"profile": "dense"}, chunk_pixels=1 << 12, noise=90
    ),
    "v1_dense_16bit": Golden(
        "int16", (8, 32, 32), -900, 20000, (1.0, -1000.0), {"profile": "dense"}, chunk_pixels=1 << 13, noise=30
    ),
    "v1_dense_lossless": Golden("uint16", (6, 48, 48), 900, 30000, None, {"profile": "dense"}, 1 << 14, noise=400),
    "v1_checksums": Golden("uint16", (11, 13, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=3 * 13 * 17),
    "v1_checksums_zarr2": Golden(
        "uint16", (11, 13, 17), 0, 2000, (10.0, 0.0), {"zarr_format": 2}, chunk_pixels=3 * 13 * 17
    ),
    "v1_dithered_dense": Golden(
        "uint16", (10, 32, 32), 200, 3000, (100.0, 157.3), {"profile": "dense"}, chunk_pixels=1 << 12, noise=90
    ),
    "v1_dithered_dense_16bit": Golden(
        "int16", (8, 32, 32), -900, 20000, (1.0, -1000.0), {"profile": "dense"}, chunk_pixels=1 << 13, noise=30
    ),
    "v1_blosc": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"compressors": BLOSC}),
    # from here on with the dithered transform; those above with the plain one
    "v1_dithered_uint16": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3)),
    "v1_dithered_int16_negative": Golden("int16", (8, 16, 16), -90, 3000, (3.0, -40.5)),
    "v1_dithered_float32_whole": Golden("float32", (8, 16, 16), 0, 4000, (20.0, 100.0)),
    "v1_dithered_float32_real": Golden("float32", (8, 16, 16), 0, 99.5, (0.8, 2.5)),
    "v1_dithered_zarr2": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"zarr_format": 2}),
    "v1_dithered_steep": Golden("int32", (8, 16, 16), -20, 900, (0.5, 3.0)),
    "v1_dithered_shard_edges": Golden("uint16", (11, 13, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=3 * 13 * 17),
    "v1_dithered_split_frames": Golden("uint16", (3, 31, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=200),
    "v1_dithered_codes_16bit": Golden("uint16", (8, 16, 16), 0, 65535, (1.0, 0.0)),
}


def make(name: str, golden: Golden, folder: Path) -> None:
    """Write one golden file."""
    # The writer's own would put each of these into one chunk.
    layout.CHUNK_PIXELS, layout.SHARD_BYTES = golden.chunk_pixels, golden.shard_bytes
    counts = golden.counts()
    calibration = (
        Calibration.unknown("not measured: made by hand")
        if golden.calibration is None
        else Calibration.given(*golden.calibration)
    )
    stored = write_movie(folder / "movie.zarr", counts, calibration=calibration, progress=False, **golden.options)
    assert stored.record is not None
    np.save(folder / "counts.npy", counts)
    np.save(folder / "expected.npy", stored[...])
    row = {
        "path": f"{name}/movie.zarr",
        "store": "imaging",
        **stored.record.to_dict(),
        "zarr": without_record(stored.documents),
    }
    (folder / "row.json").write_text(json.dumps(row, indent=1) + "\n")


def make_unfinished() -> None:
    """Write what a killed :class:`~dj_photon_codecs.PhotonWriter` leaves."""
    layout.CHUNK_PIXELS, layout.SHARD_BYTES = 5 * 16 * 16, 10 * 16 * 16 * 2
    counts = Golden("uint16", (23, 16, 16), 0, 8000, None).counts()
    folder = UNFINISHED / "movie.zarr"
    writer = PhotonWriter(folder, calibration=Calibration.given(100.0, 157.3))
    writer.extend(counts)
    while writer.backlog > 3:
        time.sleep(0.01)
    with TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        np.save(UNFINISHED / "expected.npy", recover_movie(copy)[:])
    files = sorted(path for path in UNFINISHED.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(UNFINISHED).as_posix()}" for file in files
    ]
    (UNFINISHED / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Make the golden files that are not there."""
    if not UNFINISHED.exists():
        make_unfinished()
    made: list[str] = []
    for name, golden in V1.items():
        if (GOLDEN / name).exists():
            continue
        make(name, golden, GOLDEN / name)
        with SUMS.open("a") as sums:
            for file in sorted(path for path in (GOLDEN / name).rglob("*") if path.is_file()):
                sums.write(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(GOLDEN).as_posix()}\n")
        made.append(name)
    print("made:", ", ".join(made) or "nothing: all are there, and none is ever written again", file=sys.stderr)


if __name__ == "__main__":
    main()
