"""A progress bar that stays away from short jobs, worker processes and log files."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

#: Time before a bar appears if the caller did not decide [s].
_PATIENCE = 2.0


@contextmanager
def progress_bar(what: str, total: int, unit: str, show: bool | None) -> Iterator[Callable[[int], object]]:
    """Show a bar with the label ``what`` over ``total`` units; yields the function that advances it.

    If ``show`` is None, it appears when the work takes long, on a terminal, and outside worker processes.
    """
    worker = multiprocessing.parent_process() is not None
    disable = (worker or None) if show is None else not show  # tqdm's None: only on a terminal
    delay = _PATIENCE if show is None else 0.0
    with tqdm(
        desc=what, total=total, unit=unit, unit_scale=total > 1 << 20, disable=disable, delay=delay, leave=False
    ) as bar:
        yield bar.update
