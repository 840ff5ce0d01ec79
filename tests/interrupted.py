"""A process that gets Ctrl-C while it writes: it stands still at the first object, so the signal is never too late."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_STAND_STILL = """
import asyncio, signal, sys, threading
from zarr.storage import LocalStore
interrupted = threading.Event()
def interrupt(*of_what):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first is enough
    interrupted.set()
    signal.default_int_handler(*of_what)
signal.signal(signal.SIGINT, interrupt)  # ignored in what a shell runs in the background
write = LocalStore.set
async def write_and_wait(self, key, *args, **options):
    await write(self, key, *args, **options)
    if key.startswith("c/"):
        print("stored", flush=True)
        for _ in range(1200):
            if interrupted.is_set() or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # once it came
                break
            await asyncio.sleep(0.05)
LocalStore.set = write_and_wait
"""


def interrupt_while_writing(script: str, *arguments: str, cwd: Path, number: int = signal.SIGINT) -> tuple[int, str]:
    """Run Python code that writes a movie to a folder, send it a signal; gives its exit code and its stderr."""
    command = [sys.executable, "-c", _STAND_STILL + script, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        errors = ""
        for _ in range(12):
            if line == "stored\n":
                # Again until it ends: a signal that comes just before the main thread waits is seen after the wait.
                # Not too soon: while Python ends, a second one would kill it.
                process.send_signal(number)
            try:
                _, errors = process.communicate(timeout=5)
                break
            except subprocess.TimeoutExpired:
                continue
        process.kill()
    assert line == "stored\n", errors
    return process.returncode, errors
