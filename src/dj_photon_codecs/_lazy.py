"""Public names and methods imported on first use, and properties computed on first use."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class cached_property(Generic[T]):
    """``functools.cached_property`` without the lock that Python 3.11 holds while computing.

    A child forked at that moment would wait forever. Here threads may compute a value twice, but all get the same one.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]  # accessed on the class, like any descriptor
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value


class imported_method:
    """A method whose function is in another module under the same name, imported when the method is first used.

    The class needs neither that module nor the libraries that it needs, and ``help`` shows the function's own text.
    """

    def __init__(self, module: str) -> None:
        self.module = module

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(self.module), self._name)
        return function if instance is None else MethodType(function, instance)


def attach_stub(package: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` for a package, from its stub's imports (PEP 562).

    ``lazy_loader.attach_stub`` needs ``packaging``; the Zarr V2 codecs must import with numpy and numcodecs alone.
    """
    with open(os.path.splitext(file)[0] + ".pyi", encoding="utf-8") as stub:
        statements = ast.parse(stub.read()).body
    imports = [statement for statement in statements if isinstance(statement, ast.ImportFrom)]
    homes = {name.name: f".{statement.module}" for statement in imports for name in statement.names}

    def get(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version(package.replace("_", "-"))
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(homes), get, lambda: sorted({*vars(sys.modules[package]), *homes})
