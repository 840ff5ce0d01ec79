"""A recording and its truth, in memory; :mod:`.folder` keeps it on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .._arguments import brief_repr
from .._typing import AnyArray
from ..calibration import Calibration
from ..errors import FormatError, InvalidMovieError, PhotonCodecError
from ..movies import PhotonMovie
from .folder import load, save
from .footprints import freeze, frozen
from .spec import Spec
from .truth import GroundTruth, Parts
from .video import write_blocks


class MissingStageError(PhotonCodecError, KeyError):
    """The recording has no such stage; the text lists those it has."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError's own shows a repr


@dataclass(frozen=True, eq=False)
class Recording:
    """A movie of counts, its spec and its truth; shapes or a dtype that do not fit raise InvalidMovieError."""

    spec: Spec | Mapping[str, Any]
    """The :class:`Spec`, or for a recording of minisim its spec as a mapping."""
    observed: AnyArray
    """Counts [ADU]: unsigned integers (time, height, width)."""
    ground_truth: GroundTruth
    """The truth about cells, motion and light."""
    calibration: Calibration
    """The sensor's exact noise model: see :func:`.true_calibration`."""
    snapshots: Mapping[str, AnyArray] = field(default_factory=dict)
    """Expected photons after the steps that ``spec.output.snapshots`` names: float32 (time, height, width), of the
    canvas for steps before the motion."""

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        truth = self.ground_truth
        expected = (truth.n_frames, *truth.planted.fov_shape)
        if self.observed.shape != expected or self.observed.dtype.kind != "u":
            raise InvalidMovieError(
                f"Recording: observed has shape {self.observed.shape} and dtype {self.observed.dtype}, must be "
                f"unsigned integers of shape {expected}, as the ground truth has it"
            )
        freeze(self, "observed")
        snapshots = {name: frozen(array) for name, array in self.snapshots.items()}
        object.__setattr__(self, "snapshots", MappingProxyType(snapshots))
        if not isinstance(self.spec, Spec):
            object.__setattr__(self, "spec", MappingProxyType(dict(self.spec)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Recording, tuple(self._parts())

    def _parts(self) -> Parts:
        """The fields, for pickling: mapping proxies do not pickle."""
        spec = self.spec if isinstance(self.spec, Spec) else dict(self.spec)
        return Parts(spec, self.observed, self.ground_truth, self.calibration, dict(self.snapshots))

    @property
    def fps(self) -> float:
        """Frames per second."""
        spec = self.spec
        return spec.acquisition.fps if isinstance(spec, Spec) else float(spec["acquisition"]["fps"])

    def stage(self, name: str) -> AnyArray:
        """The movie after a step: counts for "observed", expected photons for a snapshot.

        Raises
        ------
        MissingStageError
            A KeyError that lists the stages of this recording.
        """
        stages = {**self.snapshots, "observed": self.observed}
        if name not in stages:
            raise MissingStageError(
                f"no stage {name!r} in this recording; it has {', '.join(stages)}. Others are kept when the spec's "
                "output.snapshots names them"
            )
        return stages[name]

    def photon_movie(self, *, step: float | None = None, profile: str | None = None) -> PhotonMovie:
        """The counts with the sensor's exact noise model, ready to insert or to write.

        The model's conversion gain is the slope of variance against mean: counts per photo-electron times the excess
        noise factor. Its zero level is the pedestal less what the read noise adds. Step and profile are those of
        :class:`dj_photon_codecs.PhotonMovie`.
        """
        return PhotonMovie(self.observed, calibration=self.calibration, step=step, profile=profile)

    def save(self, path: str | os.PathLike[str], *, step: float = 0.5, profile: str = "standard") -> Path:
        """Keep the recording in one folder, which appears when it is complete.

        Parameters
        ----------
        path
            A folder that does not exist yet.
        step, profile
            How the movie is stored, as in :func:`dj_photon_codecs.write_movie`. By default its counts come back within
            the codec's bound, half a step of their noise; ``profile="lossless"`` brings the same counts back.

        Raises
        ------
        ConfigurationError
            When there is something at ``path``, or for a step or profile out of range.
        """
        return save(self._parts(), path, step=step, profile=profile)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Recording:
        """Open a recording from the folder that :meth:`save` or minisim wrote.

        Raises
        ------
        FormatError
            When there is no complete recording, one of a newer version, or one whose spec was edited.
        """
        parts = load(path)
        try:
            return Recording(*parts)
        except (TypeError, ValueError) as error:  # InvalidMovieError, or a spec that is no mapping
            raise FormatError(f"the parts of the recording at {path} do not fit together: {error}") from error

    def write_video(
        self,
        path: str | os.PathLike[str],
        fps: float | None = None,
        vmin: float = 0,
        vmax: float | None = None,
        progress: bool = True,
    ) -> Path:
        """The counts as a grey video (H.264 or MPEG-4), to look at.

        Parameters
        ----------
        path
            The file; its suffix (.mp4, .mkv, .avi, .mov) says the container.
        fps
            Frames per second; the recording's own when None.
        vmin, vmax
            Counts shown as black and as white [ADU]; for None, the 99.9th percentile of 16 frames.
        progress
            Whether to show a progress bar.

        Raises
        ------
        ConfigurationError
            For an unknown suffix, or limits or rates out of range.
        """
        rate = self.fps if fps is None else fps
        blocks = (self.observed[start : start + 16] for start in range(0, len(self.observed), 16))
        return write_blocks(path, blocks, self.observed.__getitem__, self.observed.shape, rate, vmin, vmax, progress)
