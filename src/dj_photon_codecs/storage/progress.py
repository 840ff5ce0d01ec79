"""A progress bar that shows when it helps: not for short work, not in workers, not in log files."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

#: Seconds of work before a bar appears by itself.
_PATIENCE = 2.0


@contextmanager
def progress_bar(what: str, total: int, unit: str, show: bool | None) -> Iterator[Callable[[int], object]]:
    """A bar over ``total`` units; gives the function that advances it.

    Parameters
    ----------
    what
        Its label.
    total, unit
        How many of what.
    show
        True or False, or None: when it takes long, on a terminal, and not in a worker process.
    """
    worker = multiprocessing.parent_process() is not None
    disable = (worker or None) if show is None else not show  # tqdm's None: only on a terminal
    delay = _PATIENCE if show is None else 0.0
    with tqdm(
        desc=what, total=total, unit=unit, unit_scale=total > 1 << 20, disable=disable, delay=delay, leave=False
    ) as bar:
        yield bar.update
