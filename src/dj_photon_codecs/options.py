"""Options and profiles of stored movies: name, default, legal values and help of each, once.

``write_movie``, ``PhotonWriter``, the columns and the command line take their options from :class:`WriteOptions`, and
the plan of a movie holds it. To add an option, add a field here and in :class:`ColumnOptions`, and a keyword to
``write_movie`` and ``PhotonWriter``; then use it in ``storage/plan.py``. Nothing here imports numpy, so that the
command line starts fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import ConfigurationError

if TYPE_CHECKING:
    from ._typing import Json, ZarrFormat

#: Largest ``step`` [noise standard deviations]; a larger value is almost certainly a mistake.
_LARGEST_STEP = 8.0


@dataclass(frozen=True)
class Profile:
    """How the counts of a movie are stored.

    Attributes
    ----------
    name
        What users call it.
    rounds
        Whether counts are rounded within their noise, which takes a noise model.
    stores_codes
        Whether the array holds codes that a filter decodes, not counts that any Zarr reader understands.
    entropy_coder
        Whether the entropy coder replaces the compressor if that makes the movie smaller.
    legacy
        Whether another package defines the format: the movie is stored exactly so, or not at all.
    """

    name: str
    rounds: bool = True
    stores_codes: bool = True
    entropy_coder: bool = False
    legacy: bool = False

    @property
    def bounded(self) -> bool:
        """Whether it rounds within the bound of invariant 1; if that is impossible, the movie is stored losslessly."""
        return self.rounds and not self.legacy


#: Dithered Anscombe codes, then the best compressor by trial.
STANDARD = Profile("standard")
#: The same codes, then the entropy coder.
DENSE = Profile("dense", entropy_coder=True)
#: Counts, rounded with one dither offset for each run of 65,536; standard codecs only.
PORTABLE = Profile("portable", stores_codes=False)
#: Counts as inserted.
LOSSLESS = Profile("lossless", rounds=False, stores_codes=False)
#: What the anscombe-transform package reads.
ANSCOMBE_V1 = Profile("anscombe-v1", legacy=True)

#: All profiles by name.
PROFILES = {profile.name: profile for profile in (STANDARD, DENSE, PORTABLE, LOSSLESS, ANSCOMBE_V1)}

#: Names of the profiles whose size can be estimated: this package chooses their codecs.
ESTIMATED = tuple(name for name, profile in PROFILES.items() if not profile.legacy)


def _is_step(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST_STEP


def _rule(
    text: str, kind: type, legal: str, *, allows: Callable[[object], bool] | None = None, choices: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Describe an option that the command line has too: help, type, and the legal values in words and as a check."""
    return {"help": text, "kind": kind, "legal": legal, "allows": allows or choices.__contains__, "choices": choices}


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Options of ``write_movie``, which documents them; a ``PhotonMovie`` overrides ``step`` and ``profile``.

    Raises
    ------
    ConfigurationError
        If an option is out of range or two options conflict.
    """

    step: float = field(
        default=0.5,
        metadata=_rule(
            "Rounding, in standard deviations of each count's noise; 0 is lossless.",
            float,
            f"a number from 0 (lossless) to {_LARGEST_STEP:g} noise standard deviations",
            allows=_is_step,
        ),
    )
    profile: str = field(
        default=STANDARD.name,
        metadata=_rule(
            "dense is smallest; portable opens in any Zarr reader.",
            str,
            f"one of {', '.join(PROFILES)}",
            choices=tuple(PROFILES),
        ),
    )
    compressors: Any = None  # checked against the Zarr format when the movie is planned
    zarr_format: ZarrFormat = field(default=3, metadata=_rule("2 is for older readers.", int, "2 or 3", choices=(2, 3)))
    progress: bool | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            check_option(option.name, getattr(self, option.name))
        if not PROFILES[self.profile].entropy_coder:
            return
        if self.zarr_format == 2:
            raise ConfigurationError(
                f"the {self.profile} profile needs zarr_format=3, got 2: its entropy coder has no V2 codec"
            )
        if self.compressors is not None:
            raise ConfigurationError(
                f"the {self.profile} profile compresses with its own entropy coder, got "
                f"compressors={self.compressors!r}: omit them, or use the standard profile"
            )

    def for_journal(self) -> Json:
        """Return the options that the journal of an acquisition keeps; ``compressors``, which are objects, are not."""
        return {name: value for name, value in vars(self).items() if name not in ("compressors", "progress")}

    @classmethod
    def of_journal(cls, document: Json) -> WriteOptions:
        """Return the options that a journal keeps, in which the compressors are JSON values."""
        known = {option.name: document[option.name] for option in fields(cls) if option.name in document}
        return cls(**known | {"progress": False})

    @property
    def rounds(self) -> bool:
        """Whether counts are rounded, which takes a noise model."""
        return PROFILES[self.profile].rounds and self.step != 0


def profile_named(name: str) -> Profile:
    """Return a profile; raises ConfigurationError if there is none of this name."""
    check_option("profile", name)
    return PROFILES[name]


def check_option(name: str, value: object) -> None:
    """Raise ConfigurationError if an option of this name cannot have this value."""
    rule = WriteOptions.__dataclass_fields__[name].metadata
    if rule and not rule["allows"](value):
        raise ConfigurationError(f"{name} must be {rule['legal']}, got {value!r}")


class ColumnOptions:
    """The options as class attributes, as a column has them; checked when a subclass is defined."""

    step: ClassVar[float] = WriteOptions.step
    profile: ClassVar[str] = WriteOptions.profile
    compressors: ClassVar[Any] = WriteOptions.compressors
    zarr_format: ClassVar[ZarrFormat] = WriteOptions.zarr_format
    progress: ClassVar[bool | None] = WriteOptions.progress

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the options before any other base class sees the subclass: DataJoint's registers it."""
        cls._options()
        super().__init_subclass__(**kwargs)

    @classmethod
    def _options(cls) -> WriteOptions:
        return WriteOptions(**{option.name: getattr(cls, option.name) for option in fields(WriteOptions)})
