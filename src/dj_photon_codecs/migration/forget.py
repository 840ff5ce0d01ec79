"""Set originals to NULL: only those whose movie is done and, compared once more, within the bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import datajoint as dj

from .._arguments import brief_repr
from .._typing import Json
from ..errors import ConfigurationError, MigrationError
from ..storage.progress import progress_bar
from .columns import Column
from .copying import check_copy
from .ledger import DONE, FORGOTTEN, Ledger
from .originals import Originals


@dataclass(frozen=True)
class Forgotten:
    """What :meth:`Migration.forget_originals` did; true if no original is left.

    Attributes
    ----------
    forgotten
        Number of rows whose old column was set to NULL by this call.
    kept
        Primary key and reason of the rows that are done, but whose original was kept: it differs, or cannot be read.
    not_done
        Number of originals that are kept because their movie is not done.
    """

    forgotten: int
    kept: tuple[tuple[Json, str], ...]
    not_done: int

    __repr__ = brief_repr

    def __bool__(self) -> bool:
        return not (self.kept or self.not_done)

    def __str__(self) -> str:
        lines = [f"{self.forgotten} originals forgotten, {len(self.kept) + self.not_done} kept"]
        if self.not_done:
            lines[0] += f", of which {self.not_done} are not migrated"
        return "\n".join([*lines, *(f"kept: {key}: {reason}" for key, reason in self.kept)])


def forget(
    originals: Originals, target: Column, ledger: Ledger, prompt: bool | None, progress: bool | None
) -> Forgotten:
    """Do the work of :meth:`Migration.forget_originals`."""
    source = originals.column
    if not source.attribute.nullable:
        raise ConfigurationError(
            f"{source} is not nullable, so its values cannot be set to NULL. Declare it with `= null` and alter() the "
            "table; or, if nothing remains to be migrated, remove it from the definition and alter() the table"
        )
    left = source.filled
    done: list[Json] = []
    if ledger.table.is_declared:
        done = left.restrict(ledger.in_state(DONE, FORGOTTEN).proj(), semantic_check=False).keys(order_by="KEY")
    asks = source.config.safemode if prompt is None else prompt
    if done and asks:
        question = f"Set {source} to NULL in {len(done)} rows whose movies are in {target}?"
        if dj.utils.user_choice(question, default="no") != "yes":
            return Forgotten(0, (), len(left))
    kept = []
    with progress_bar("verifying", len(done), "movie", progress) as advance:
        for key in done:
            try:
                _forget_one(originals, target, ledger, key)
            except dj.errors.LostConnectionError:
                raise
            except Exception as error:  # of any reader: the original is kept
                kept.append((key, f"{type(error).__name__}: {error}"))
            advance(1)
    return Forgotten(len(done) - len(kept), tuple(kept), len(source.filled) - len(kept))


def _forget_one(originals: Originals, target: Column, ledger: Ledger, key: Json) -> None:
    """Compare a movie with its original again, and set the original to NULL if neither was changed meanwhile."""
    source = originals.column
    cell, stored = source.cell(key), target.cell(key)
    if stored is None:
        raise MigrationError(f"{target} is NULL: the movie was removed after it was migrated")
    movie = target.movie(stored)
    with originals.opened(cell) as original:
        intact = movie.verify(progress=False)  # reads the store: counts may come from the cache below
        if not intact:
            raise MigrationError(f"the movie is damaged: {intact}")
        check_copy(original, movie)
    with source.locked(key) as present:
        if present != cell or target.cell(key) != stored:
            raise MigrationError("the row was changed while its movie was verified")
        token: Any = (ledger.table & key).fetch1("token")
        ledger.close(token, FORGOTTEN)
        source.put(key, None)
