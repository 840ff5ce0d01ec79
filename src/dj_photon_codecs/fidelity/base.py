"""Base class of the reports: JSON conversion, one-line repr, and a figure of four panels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, get_args, get_origin, get_type_hints

import numpy as np

from .._typing import Json
from ..errors import FormatError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Report:
    """A report that prints as text, plots, and converts to JSON and back."""

    #: Name of the report in error messages.
    _kind: ClassVar[str]

    def _panels(self) -> tuple[Callable[[Any, Axes], None], ...]:
        """Functions that draw the four panels."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {str(self).partition(chr(10))[0]}>"

    def to_dict(self) -> Json:
        """Return the report as JSON values; :meth:`from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Json) -> Self:
        """Rebuild a report from JSON values.

        Raises
        ------
        FormatError
            If they are not those of a report.
        """
        try:
            return cast(Self, _rebuilt(cls, document))
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"this is not a {cls._kind}: {type(error).__name__}: {error}") from error

    def plot(self, where: str | os.PathLike[str] | Sequence[Axes]) -> Figure:
        """Draw the report in four panels, and return the figure.

        Parameters
        ----------
        where
            File to write (PNG, PDF or SVG by its name), or four matplotlib axes to draw in.

        Raises
        ------
        ValueError
            If there are not four axes.
        ImportError
            If matplotlib, which is in the ``viz`` extra, is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError('pictures need matplotlib: pip install "dj-photon-codecs[viz]"') from error
        to_file = isinstance(where, str | os.PathLike)
        figure = Figure(figsize=(9.2, 6.8), layout="constrained") if to_file else None
        axes = list(np.asarray(figure.subplots(2, 2) if figure else where, dtype=object).ravel())
        panels = self._panels()
        if len(axes) != len(panels):
            raise ValueError(f"plot draws {len(panels)} panels, got {len(axes)} axes: pass as many, or a file name")
        for panel, axis in zip(panels, axes, strict=True):
            panel(self, axis)
        if figure is None:
            return cast(Figure, axes[0].figure)
        figure.savefig(cast(str, where), dpi=110)
        return figure


def _rebuilt(kind: Any, value: Any) -> Any:
    """Rebuild a value of type ``kind`` after :func:`dataclasses.asdict` and JSON."""
    if get_origin(kind) is tuple:
        return tuple(_rebuilt(get_args(kind)[0], each) for each in value)
    if get_origin(kind) is UnionType:
        return None if value is None else _rebuilt(get_args(kind)[0], value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast(Any, kind)(**{name: _rebuilt(hints[name], each) for name, each in value.items()})
    return value
