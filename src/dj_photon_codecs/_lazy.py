"""Properties that are computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class cached_property(Generic[T]):
    """As ``functools.cached_property``, but without a lock.

    Before Python 3.12 that holds one lock for all instances of a class while it computes: a child that is forked at
    that moment waits for it for ever. Here threads may compute a value twice, and all get the same one.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]  # as every descriptor, seen from the class
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
