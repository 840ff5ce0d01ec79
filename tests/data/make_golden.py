"""Makes the golden files in ``tests/data/golden``: movies as a release wrote them, which every later one has to read.

    python tests/data/make_golden.py

Golden files are added to, and never changed: this refuses to write where one is. A new format version or a new
feature gets a new name, ``v{format version}_{feature}``. Their counts come from a formula, without a random number,
so that the expected ones can be computed from the specification alone (``tests/spec/test_golden.py`` does).

Each folder holds ``movie.zarr``, ``counts.npy`` (as inserted), ``expected.npy`` (as every release
gives them back) and ``row.json`` (what a ``<photon@imaging>`` column holds, with ``path`` in place).

``tests/data/golden_rans`` holds payloads of the entropy coder, each with the codes that a formula gives.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from zarr.storage import MemoryStore

from dj_photon_codecs import Calibration, PhotonWriter, recover_movie, write_movie
from dj_photon_codecs.entropy.coder import encode
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.record import without_record

GOLDEN = Path(__file__).parent / "golden"

#: Payloads of the entropy coder, and their checksums.
RANS = Path(__file__).parent / "golden_rans"

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
        Gain, zero level, and if need be under_root and saturation; None where no noise model is known.
    options
        For ``write_movie``.
    chunk_pixels, shard_bytes
        In place of the writer's own, so that little data has many chunks.
    noise
        Of a movie that can be predicted: a slope from ``low`` to ``high``, and up to so much on either side of it.
    moved
        Whether it is stored as ``standard`` first.
    piece
        From which frame on the moved movie is stored.
    """

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    calibration: tuple[float, ...] | None
    options: dict[str, Any] = field(default_factory=dict)
    chunk_pixels: int = 256
    shard_bytes: int = 1 << 12
    noise: int = 0
    moved: bool = False
    piece: int = 0

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
        values = values if self.dtype.startswith("float") and self.high % 1 else np.rint(values)
        return values.astype(self.dtype).reshape(self.shape)


BLOSC = {
    "name": "blosc",
    "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "typesize": 1, "blocksize": 0},
}

PORTABLE, LEGACY = {"profile": "portable"}, {"profile": "anscombe-v1"}

V1 = {
    "v1_uint16": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3)),
    "v1_int16_negative": Golden("int16", (8, 16, 16), -90, 3000, (3.0, -40.5)),
    "v1_float32_whole": Golden("float32", (8, 16, 16), 0, 4000, (20.0, 100.0)),
    "v1_float32_real": Golden("float32", (8, 16, 16), 0, 99.5, (0.8, 2.5)),
    "v1_photons_8bit": Golden("uint8", (8, 16, 16), 0, 255, (1.0, 0.0)),
    "v1_photons_16bit": Golden("uint16", (8, 16, 16), 0, 65535, (1.0, 0.0)),
    "v1_steep": Golden("int32", (8, 16, 16), -20, 900, (0.5, 3.0)),
    "v1_dark": Golden("uint16", (8, 16, 16), 0, 900, (213.0, 13.0, 0.02)),
    "v1_saturated": Golden("uint16", (8, 16, 16), 0, 4095, (213.0, 13.0, 0.375, 4095.0)),
    "v1_float32_saturated": Golden("float32", (8, 16, 16), 0, 99.5, (0.8, 2.5, 0.1, 99.5)),
    "v1_step_2": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"step": 2.0}),
    "v1_lossless": Golden("uint16", (8, 16, 16), 0, 65535, None, {"profile": "lossless"}),
    "v1_nothing_to_gain": Golden("uint16", (8, 48, 48), 0, 3, (1.0, 0.0), chunk_pixels=1 << 14),
    "v1_portable": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), PORTABLE),
    "v1_blosc": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"compressors": BLOSC}),
    "v1_shard_edges": Golden("uint16", (11, 13, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=3 * 13 * 17),
    "v1_split_frames": Golden("uint16", (3, 31, 17), 0, 2000, (10.0, 0.0), {}, chunk_pixels=200),
    "v1_4d": Golden("uint16", (5, 3, 8, 9), 0, 2000, (10.0, 0.0)),
    "v1_zarr2": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {"zarr_format": 2}),
    "v1_zarr2_float32_whole": Golden("float32", (8, 16, 16), 0, 4000, (20.0, 100.0), {"zarr_format": 2}),
    "v1_zarr2_shard_edges": Golden(
        "uint16", (11, 13, 17), 0, 2000, (10.0, 0.0), {"zarr_format": 2}, chunk_pixels=3 * 13 * 17
    ),
    "v1_dense": Golden(
        "uint16", (10, 32, 32), 200, 3000, (100.0, 157.3), {"profile": "dense"}, chunk_pixels=1 << 12, noise=90
    ),
    "v1_dense_16bit": Golden(
        "int16", (8, 32, 32), -900, 20000, (1.0, -1000.0), {"profile": "dense"}, chunk_pixels=1 << 13, noise=30
    ),
    "v1_dense_lossless": Golden("uint16", (6, 48, 48), 900, 30000, None, {"profile": "dense"}, 1 << 14, noise=400),
    "v1_uint8": Golden("uint8", (8, 16, 16), 0, 255, (3.0, 10.0)),
    "v1_int8": Golden("int8", (8, 16, 16), -128, 127, (2.0, -100.0)),
    "v1_uint32": Golden("uint32", (8, 16, 16), 0, 900000, (500.0, 100.0)),
    "v1_uint64": Golden("uint64", (8, 16, 16), 0, 70000, (100.0, 157.3)),
    "v1_int64": Golden("int64", (8, 16, 16), -3000, 70000, (100.0, -1000.0)),
    "v1_float16_whole": Golden("float16", (8, 16, 16), 0, 1000, (20.0, 100.0)),
    "v1_float64_real": Golden("float64", (8, 16, 16), -3, 99.5, (0.8, 2.5)),
    "v1_int16_saturated": Golden("int16", (8, 16, 16), -100, 2047, (30.0, -50.0, 0.1, 2047.0)),
    "v1_wide_frames": Golden("uint16", (3, 20, 500), 0, 8000, (100.0, 157.3), chunk_pixels=1 << 15),
    "v1_dense_int8": Golden("int8", (10, 32, 48), -90, 100, (2.0, -100.0), {"profile": "dense"}, 1 << 13, noise=20),
    "v1_dense_bands": Golden(
        "uint16", (4, 300, 48), 200, 3000, (100.0, 157.3), {"profile": "dense"}, 1 << 17, 1 << 18, noise=90
    ),
    "v1_dense_widths": Golden(
        "uint16", (5, 70, 170), 200, 3000, (100.0, 157.3), {"profile": "dense"}, 1 << 16, 1 << 17, noise=90
    ),
    "v1_dense_500": Golden(
        "float32", (5, 20, 500), 200, 3000, (100.0, 157.3), {"profile": "dense"}, 1 << 16, 1 << 17, noise=90
    ),
    "v1_dense_4d": Golden(
        "uint16", (5, 2, 40, 48), 200, 3000, (100.0, 157.3), {"profile": "dense"}, 1 << 14, 1 << 16, noise=90
    ),
    "v1_portable_float32_real": Golden("float32", (8, 16, 16), 0, 99.5, (0.8, 2.5), PORTABLE),
    "v1_portable_int16_negative": Golden("int16", (8, 16, 16), -90, 3000, (3.0, -40.5), PORTABLE),
    "v1_portable_blocks": Golden(
        "uint16", (3, 1, 200, 170), 0, 8000, (100.0, 157.3), PORTABLE, 3 * 200 * 170, 1 << 18, noise=90
    ),
    "v1_portable_dithered": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), PORTABLE, moved=True),
    "v1_piece": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), moved=True, piece=3),
    "v1_zarr2_portable": Golden("uint16", (8, 16, 16), 0, 8000, (100.0, 157.3), {**PORTABLE, "zarr_format": 2}),
    "v1_zarr2_lossless": Golden("uint16", (8, 16, 16), 0, 65535, None, {"profile": "lossless", "zarr_format": 2}),
    "v1_zarr2_int16_negative": Golden("int16", (8, 16, 16), -90, 3000, (3.0, -40.5), {"zarr_format": 2}),
    "v1_legacy": Golden("uint16", (8, 16, 16), 160, 8000, (100.0, 157.3), LEGACY),
    "v1_zarr2_legacy": Golden("uint16", (8, 16, 16), 160, 8000, (100.0, 157.3), {**LEGACY, "zarr_format": 2}),
}


@dataclass(frozen=True)
class RansGolden:
    """The codes of a payload: a slope from ``low`` to ``high``, up to ``noise`` on either side, and what is put in.

    Attributes
    ----------
    dtype, shape, low, high, noise
        Of the codes.
    blank
        Numbers of frames of one code throughout, and that code.
    outliers
        Places in C order, and the codes there.
    dithered
        Whether the offsets of the dither are added before rounding.
    """

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    noise: float
    blank: dict[int, int] = field(default_factory=dict)
    outliers: dict[int, int] = field(default_factory=dict)
    dithered: bool = False

    def codes(self) -> np.ndarray[Any, Any]:
        """The codes; whole numbers of half a million decide each, so that rounding is the same everywhere."""
        size = int(np.prod(self.shape))
        places = np.arange(size, dtype=np.int64)
        per_frame = size // self.shape[0]
        slope = self.low + (self.high - self.low) * (places % per_frame / max(per_frame - 1, 1))
        wave = (places * places * 40503 + places * 2654435761 >> 15) % 1021 / 510 - 1
        offset = (2 * (64 * (places**5 % 4093) // 4093) + 1) / 128 - 0.5 if self.dithered else 0
        codes = np.rint(slope + self.noise * wave**3 + offset).astype(self.dtype).reshape(self.shape)
        for frame, code in self.blank.items():
            codes[frame] = code
        for place, code in self.outliers.items():
            codes.flat[place] = code
        return np.asarray(codes)


RANS_V1 = {
    "v1_uint8": RansGolden("uint8", (6, 20, 32), 10, 40, 5),
    "v1_int8": RansGolden("int8", (6, 20, 32), -40, 10, 5),
    "v1_uint16": RansGolden("uint16", (6, 20, 32), 200, 330, 9),
    "v1_int16": RansGolden("int16", (6, 20, 32), -200, 30, 9),
    "v1_lane_rests": RansGolden("uint8", (5, 37, 43), 10, 40, 5),
    "v1_narrow": RansGolden("uint8", (9, 70, 3), 10, 40, 5),
    "v1_one_band": RansGolden("uint8", (4, 255, 5), 10, 40, 5),
    "v1_two_bands": RansGolden("uint8", (4, 256, 5), 10, 40, 5),
    "v1_three_bands": RansGolden("int16", (3, 259, 7), -30, 300, 5, {1: 4}, {30: 3000, 4600: -3000}),
    "v1_planes": RansGolden("uint8", (4, 3, 12, 20), 10, 40, 5),
    "v1_one_row": RansGolden("uint8", (40, 90), 10, 40, 5),
    "v1_one_pixel": RansGolden("uint8", (2000,), 10, 10, 5),
    "v1_escapes": RansGolden("uint16", (5, 20, 32), 200, 230, 5, {}, {0: 65535, 31: 0, 900: 9000, 3199: 65535}),
    "v1_blank_frames": RansGolden("int8", (7, 20, 32), -40, 10, 5, {0: -128, 3: 127, 6: 0}),
    "v1_all_blank": RansGolden("uint16", (4, 9, 11), 0, 0, 0, {0: 0, 1: 65535, 2: 7, 3: 7}),
    "v1_dithered": RansGolden("uint8", (6, 30, 47), 10, 40, 2, {2: 9}, {5000: 200}, dithered=True),
    "v1_dithered_bands": RansGolden("int16", (4, 300, 6), -10, 40, 2, {1: 9}, {4000: 9000}, dithered=True),
    "v1_low_bits": RansGolden("uint16", (5, 31, 33), 9000, 20000, 700, {3: 0}, {100: 0}),
    "v1_low_bits_bands": RansGolden("int16", (3, 257, 5), -3000, 3000, 400),
    "v1_plain": RansGolden("uint8", (3, 4, 5), 10, 90, 60),
    "v1_plain_int16": RansGolden("int16", (3, 4, 5), -9000, 9000, 6000),
}


def make_rans(folder: Path) -> list[str]:
    """Write the payloads that are not there."""
    folder.mkdir(exist_ok=True)
    made = []
    for name, golden in RANS_V1.items():
        path = folder / f"{name}.bin"
        if path.exists():
            continue
        path.write_bytes(encode(golden.codes()))
        with (folder / "SHA256SUMS").open("a") as sums:
            sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
        made.append(name)
    return made


def make(name: str, golden: Golden, folder: Path) -> None:
    """Write one golden file."""
    # The writer's own would put each of these into one chunk.
    layout.CHUNK_PIXELS, layout.SHARD_BYTES = golden.chunk_pixels, golden.shard_bytes
    counts = golden.counts()
    calibration = (
        Calibration.unknown("not measured: made by hand")
        if golden.calibration is None
        else Calibration.given(*golden.calibration[:2])
    )
    if golden.calibration and len(golden.calibration) > 2:
        under_root, *saturation = golden.calibration[2:]
        calibration = replace(calibration, under_root=under_root, saturation=saturation[0] if saturation else None)
    movie: Any = counts
    if golden.moved:
        movie = write_movie(MemoryStore(), counts, calibration=calibration, progress=False)
        movie = movie.to_dask()[golden.piece :] if golden.piece else movie
    stored = write_movie(folder / "movie.zarr", movie, calibration=calibration, progress=False, **golden.options)
    assert stored.record is not None
    np.save(folder / "counts.npy", counts[golden.piece :])
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
    with TemporaryDirectory() as place:
        writer = PhotonWriter(Path(place, "movie.zarr"), calibration=Calibration.given(100.0, 157.3))
        writer.extend(counts, numbers=range(23))
        writer.flush()  # two blocks, and the last three frames as they are
        shutil.copytree(writer.location, folder, ignore=shutil.ignore_patterns("writing.json"))
        writer.close()
        shutil.copytree(folder, Path(place, "copy"))
        np.save(UNFINISHED / "expected.npy", recover_movie(Path(place, "copy"))[:])
    files = sorted(path for path in UNFINISHED.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(UNFINISHED).as_posix()}" for file in files
    ]
    (UNFINISHED / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Make the golden files that are not there."""
    if not UNFINISHED.exists():
        make_unfinished()
    made = make_rans(RANS)
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
