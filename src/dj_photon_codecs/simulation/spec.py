"""The spec of a recording: typed, validated, hashable, and convertible to JSON and back.

A :class:`Spec` alone determines a recording, to the last byte. Everything in it is frozen. Unknown keys are refused, so
a misspelt option is an error instead of a silent default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, PositiveFloat, ValidationError, model_validator

from .._typing import Json
from ..errors import ConfigurationError
from .steps import ORDER, AnyStep, Part, Sensor, Step

#: Steps that a step requires.
_NEEDS = {
    "place_neurons": ("cell_activity",),
    "cell_activity": ("place_neurons",),
    "bleaching": ("place_neurons",),
    "cell_optics": ("place_neurons",),
}
#: Steps after which the movie of expected photons can be kept.
STAGES = ORDER[ORDER.index("composite") : ORDER.index("sensor")]


class Acquisition(Part):
    """Frame size, scale and rate, and length of the movie."""

    height_px: int = Field(default=128, ge=4, le=8192)
    """Height of the field of view [pixels]."""
    width_px: int = Field(default=128, ge=4, le=8192)
    """Width of the field of view [pixels]."""
    pixel_size_um: PositiveFloat = 1.0
    """Side of a pixel in the tissue [um]."""
    fps: PositiveFloat = 20.0
    """Frames per second."""
    n_frames: int = Field(default=100, ge=1)
    """Length of the movie."""


class Output(Part):
    """What to keep besides the counts."""

    snapshots: tuple[str, ...] = ()
    """Steps after which a float32 movie of expected photons is kept; each needs twice the memory of the counts."""


class Spec(Part):
    """The recipe for a recording: acquisition, steps in the order in which light meets them, and seed.

    Invalid values raise pydantic's ValidationError, a ValueError that lists every value out of range, unknown key and
    misplaced step.
    """

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of all random numbers, from 0 to 2**63 - 1."""
    acquisition: Acquisition = Acquisition()
    """Frame size, scale and rate, and length of the movie."""
    steps: tuple[Annotated[AnyStep, Field(discriminator="kind")], ...]
    """Steps from :mod:`.steps`, in their order, each at most once; ``composite`` and ``sensor`` are required."""
    output: Output = Output()
    """What to keep besides the counts."""
    model_version: Literal[1] = 1
    """Version of the forward model; it changes whenever the same spec would give other counts."""

    @model_validator(mode="after")
    def _steps_make_sense(self) -> Self:
        kinds = [step.kind for step in self.steps]
        if sorted(set(kinds), key=ORDER.index) != kinds:
            raise ValueError(f"steps are {kinds}; each comes at most once, in this order: {', '.join(ORDER)}")
        for required in ("composite", "sensor"):
            if required not in kinds:
                raise ValueError(f"steps are {kinds}; a step {required!r} is needed")
        for kind in kinds:
            for needed in _NEEDS.get(kind, ()):
                if needed not in kinds:
                    raise ValueError(f"the step {kind!r} needs a step {needed!r}, the steps are {kinds}")
        for name in self.output.snapshots:
            if name not in kinds or name not in STAGES:
                possible = [kind for kind in kinds if kind in STAGES]
                raise ValueError(f"output.snapshots has {name!r}; this spec has the stages {', '.join(possible)}")
        return self

    @property
    def sensor(self) -> Sensor:
        """The sensor, which is the last step."""
        return cast(Sensor, self.steps[-1])

    def with_noise_seed(self, noise_seed: int) -> Self:
        """The spec of the same tissue with another draw of the sensor's noise."""
        sensor = Sensor(**{**dict(self.sensor), "noise_seed": noise_seed})
        return self.model_copy(update={"steps": (*self.steps[:-1], sensor)})

    def step(self, kind: str) -> Step | None:
        """The step of this kind, or None."""
        return next((step for step in self.steps if step.kind == kind), None)

    def to_dict(self) -> Json:
        """The spec as JSON values, defaults included."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """The spec as indented JSON text; :meth:`from_json` is the inverse."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Inverse of :meth:`to_json`.

        Raises
        ------
        ConfigurationError
            If the text is not JSON or not a spec; the message lists every invalid key and value.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigurationError(f"Spec.from_json: {error}") from error

    def cache_key(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal: equal for equal specs, on every machine."""
        return spec_key(self.to_dict())


def spec_key(values: Mapping[str, Any]) -> str:
    """SHA-256 of a spec's canonical JSON."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
