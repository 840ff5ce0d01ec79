"""What a command prints, and how it ends: exit codes, failures, and standard streams that may be closed or full."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from typing import Any
from uuid import UUID

import click

#: Exit codes: the check failed; usage error; the destination is taken; the storage cannot be reached; Ctrl-C.
CHECK_FAILED, USAGE, ALREADY_THERE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130


class Failure(click.ClickException):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def report(as_json: bool, document: Any, text: str) -> None:
    """Print one JSON document, with null for what is not a number, or a text."""
    click.echo(json.dumps(_strict(document), allow_nan=False) if as_json else text)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_strict(inner) for inner in value]
    if isinstance(value, datetime | date | UUID):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def columns(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts)


class Output:
    """Standard output that stops printing at the first failure.

    ``error`` says why printing stopped; it is None after a reader went away (``| head -1``), which is no error.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._broken = stream, False
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Print a text, unless printing has failed before."""
        self._tried(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._tried(self._stream.flush)

    def _tried(self, operation: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            operation()
        except OSError as error:
            self._broken = True
            self.error = None if isinstance(error, BrokenPipeError) else error
            with suppress(OSError, ValueError):  # not a file, as in tests
                # the interpreter flushes what is left when it ends, and would report the failure again
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def standard_streams() -> Iterator[Output]:
    """Streams that a command can print to, even if the shell closed them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell (>&-)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open for as long as the process
    real = sys.stdout
    sys.stdout = output = Output(real)
    try:
        yield output
    finally:
        sys.stdout = real
