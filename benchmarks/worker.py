"""A process that measures one method of storing, controlled by lines of JSON. Linux only.

The child imports only numpy and what its method needs, so it can run in another environment.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from methods import METHODS, Noise

#: Longest time for reading frame by frame [s].
_LOOP_SECONDS = 1.0


class Crashed(Exception):
    """The process of a method was killed by a signal."""


class Repeated:
    """A movie of any length that repeats a short one as it is read."""

    def __init__(self, block: npt.NDArray[np.uint16], frames: int) -> None:
        self._block = block
        self.shape, self.dtype = (frames, *block.shape[1:]), block.dtype

    def __getitem__(self, key: slice) -> npt.NDArray[np.uint16]:
        return self._block[np.arange(*key.indices(self.shape[0])) % len(self._block)]


def memory(name: str) -> int:
    """Return the memory of this process under one of the kernel's names [bytes]."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return 1024 * int(found[1]) if found else 0


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Record the time of the context [s], and the largest increase of resident memory in it [bytes]."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not there to be taken again
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    found: dict[str, Any] = {}
    before, start = memory("VmRSS"), time.perf_counter()
    yield found
    found["seconds"] = time.perf_counter() - start
    found["peak"] = memory("VmHWM") - before


class Worker:
    """The child: one method for each request."""

    def __init__(self, name: str) -> None:
        self._method = METHODS[name]

    def load(self, movie: str, noise: list[float], warm: str, frames: int = 0) -> dict[str, Any]:
        """Load the movie, repeated to ``frames`` if given, and import everything."""
        # all processes share one copy in memory, passed on as a plain array
        self._counts: Any = np.asarray(np.load(movie, mmap_mode="r"))
        self._noise = Noise(*noise)
        few = np.ascontiguousarray(self._counts[:64, :128, :128])
        self._method.write(warm, few, self._noise)
        array = self._method.open(warm)
        assert array[...].shape == few.shape
        assert array[0].shape == few.shape[1:]
        if frames:
            self._counts = Repeated(self._counts, frames)
        return {}

    def write(self, place: str) -> dict[str, Any]:
        """Store the movie."""
        with measured() as found:
            self._method.write(place, self._counts, self._noise)
        return found

    def open(self, place: str) -> dict[str, Any]:
        """Open the movie again."""
        self._array = self._method.open(place)
        return {}

    def read(self, save: str = "") -> dict[str, Any]:
        """Read everything into memory and compare; save the result if it differs."""
        with measured() as found:
            counts = self._array[...]
        found["same"] = bool(counts.dtype == self._counts.dtype and np.array_equal(counts, self._counts))
        if save and not found["same"]:
            np.save(save, counts)
        return found

    def scan(self, frames: int) -> dict[str, Any]:
        """Read everything, ``step`` frames at a time."""
        with measured() as found:
            for start in range(0, self._array.shape[0], frames):
                self._array[start : start + frames]
        return found

    def loop(self) -> dict[str, Any]:
        """Read frame by frame, like a user's loop."""
        done, start = 0, time.perf_counter()
        while done < self._array.shape[0] and time.perf_counter() < start + _LOOP_SECONDS:
            self._array[done]
            done += 1
        return {"seconds": time.perf_counter() - start, "frames": done}

    def frame(self, number: int) -> dict[str, Any]:
        """Read one frame."""
        start = time.perf_counter()
        self._array[number]
        return {"seconds": time.perf_counter() - start}

    def code(self, chunk: str) -> dict[str, Any]:
        """Run PYMECompress's Huffman coder on codes, without its quantisation."""
        from pymecompress.bcl import huffman_compress_buffer, huffman_decompress_buffer

        codes = np.load(chunk)
        start = time.perf_counter()
        flat = codes.ravel()
        parts = [huffman_compress_buffer(flat[i : i + 65536]) for i in range(0, flat.size, 65536)]
        between = time.perf_counter()
        decoded = np.concatenate([huffman_decompress_buffer(part, None) for part in parts])
        end = time.perf_counter()
        same = bool(np.array_equal(decoded, flat))
        return {"size": sum(map(len, parts)), "encode": between - start, "decode": end - between, "same": same}


class Process:
    """The parent's end of a worker.

    Parameters
    ----------
    name
        Name of the method.
    python
        Interpreter of its environment.
    cores
        Number of cores that it may use; 0 means all.
    environment
        Additional environment variables.
    """

    def __init__(self, name: str, python: str, cores: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        allowed = sorted(os.sched_getaffinity(0))[: cores or None]  # type: ignore[attr-defined, unused-ignore]  # Linux
        self._child = subprocess.Popen(
            [python, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),  # type: ignore[attr-defined, unused-ignore]
        )

    def send(self, do: str, **arguments: Any) -> None:
        """Send a request."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            self._ended()

    def receive(self) -> dict[str, Any]:
        """Return the answer to the oldest request."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._ended()
        return dict(json.loads(line))

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        self.send(do, **arguments)
        return self.receive()

    def _ended(self) -> None:
        status = self._child.wait()
        if status < 0:
            raise Crashed(f"{self.name}: ended by signal {-status}")
        raise RuntimeError(f"{self.name}: its process ended with status {status}; its error stands above")

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.communicate()


def main() -> None:
    """Run the child. Output of libraries must not mix with the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
