"""Altered payloads through the entropy decoder, by hand: a value or DamagedChunkError, within a limit of memory.

    export PYTHONPATH=tests
    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python tests/entropy/fuzz_payloads.py 100000 SEED
    python tests/entropy/fuzz_payloads.py 100000 SEED

With NUMBA_BOUNDSCHECK every index is checked, and the package leaves out its vectorised loop. Prints how many payloads
were decoded and refused.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.make_golden import RANS, RANS_V1
from dj_photon_codecs.entropy.coder import decode
from dj_photon_codecs.errors import DamagedChunkError

#: What the process may take beyond what it has when the first payloads are decoded [bytes].
ROOM = 1 << 28

#: Of a header its fields, as place and size in bytes.
FIELDS = [*((at, 1) for at in range(6)), *((at, 2) for at in (6, 8, 10)), *((at, 4) for at in (12, 16, 20, 24))]

Draw = np.random.Generator
Payloads = list[bytes]


def flipped(payload: bytes, _: Payloads, rng: Draw) -> bytes:
    """A few bits are others."""
    found = bytearray(payload)
    for place in rng.integers(0, 8 * len(found), rng.integers(1, 9)).tolist():
        found[place // 8] ^= 1 << place % 8
    return bytes(found)


def truncated(payload: bytes, _: Payloads, rng: Draw) -> bytes:
    return payload[: rng.integers(0, len(payload))]


def longer(payload: bytes, _: Payloads, rng: Draw) -> bytes:
    return payload + rng.bytes(int(rng.integers(1, 40)))


def spliced(payload: bytes, others: Payloads, rng: Draw) -> bytes:
    """The beginning of one and the end of another."""
    other = others[rng.integers(len(others))]
    return payload[: rng.integers(0, len(payload))] + other[rng.integers(0, len(other)) :]


def moved(payload: bytes, _: Payloads, rng: Draw) -> bytes:
    """Some bytes are overwritten with others of the same payload."""
    source, target = rng.integers(0, len(payload), 2).tolist()
    length = int(rng.integers(1, 64))
    found = bytearray(payload)
    piece = payload[source : source + length]
    found[target : target + len(piece)] = piece
    return bytes(found[: len(payload)])


def crafted(payload: bytes, others: Payloads, rng: Draw) -> bytes:
    """Fields of the header, or numbers behind it, are small, large or next to what they were."""
    found = bytearray(payload)
    for _ in range(int(rng.integers(1, 4))):
        at, size = FIELDS[rng.integers(len(FIELDS))]
        if rng.random() < 0.3:
            at, size = int(rng.integers(7, max(len(found) // 4, 8))) * 4, 4
        before = int.from_bytes(found[at : at + size], "little")
        top = (1 << 8 * size) - 1
        choices = [0, 1, top, top >> 1, before + 1, before - 1, before * 2, int(rng.integers(0, top, endpoint=True))]
        found[at : at + size] = (choices[rng.integers(len(choices))] & top).to_bytes(size, "little")
    return bytes(found[: len(payload)])


WAYS: list[Callable[[bytes, Payloads, Draw], bytes]] = [flipped, truncated, longer, spliced, moved, crafted]


def main() -> None:
    """Alter golden payloads, one way or two, and decode them."""
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(seed)
    cases = [((RANS / f"{name}.bin").read_bytes(), golden) for name, golden in RANS_V1.items()]
    payloads = [payload for payload, _ in cases]
    for payload, golden in cases:
        np.testing.assert_array_equal(decode(payload, golden.shape, np.dtype(golden.dtype)), golden.codes())
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))
    told: Counter[str] = Counter()
    checked = "indices checked" if "NUMBA_BOUNDSCHECK" in os.environ else "as users run it"
    for number in range(1, count + 1):
        payload, golden = cases[rng.integers(len(cases))]
        for way in rng.choice(len(WAYS), rng.integers(1, 3)).tolist():
            payload = WAYS[way](payload, payloads, rng) if payload else payload
        try:
            codes = decode(payload, golden.shape, np.dtype(golden.dtype))
        except DamagedChunkError:
            told["refused"] += 1
        else:
            told["decoded"] += 1
            assert codes.shape == golden.shape, payload.hex()
            assert codes.dtype == golden.dtype, payload.hex()
        if number % 10_000 == 0 or number == count:
            print(f"seed {seed}, {checked}: {number} payloads, {dict(told)}", flush=True)


if __name__ == "__main__":
    main()
