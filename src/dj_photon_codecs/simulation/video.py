"""Videos for viewing, written frame by frame with PyAV, which includes FFmpeg."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from tqdm import tqdm

from .._typing import AnyArray
from ..errors import ConfigurationError

_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov")


def white_level(frame: Callable[[int], AnyArray], frames: int) -> float:
    """The 99.9th percentile of up to 16 frames spread over the movie."""
    looks = sorted({round(index * (frames - 1) / 15) for index in range(16)})
    return float(np.percentile(np.stack([frame(index) for index in looks]), 99.9))


def write_blocks(
    path: str | os.PathLike[str],
    blocks: Iterable[AnyArray],
    frame: Callable[[int], AnyArray],
    shape: tuple[int, ...],
    fps: float,
    vmin: float,
    vmax: float | None,
    progress: bool,
) -> Path:
    """Encode blocks of frames (time, height, width), scaled from [vmin, vmax] to black and white.

    ``shape`` is that of the whole movie; ``frame`` returns any one frame, for the white level; the other parameters are
    those of :meth:`Recording.write_video`.
    """
    try:
        import av  # needed for videos only
        from av.video.stream import VideoStream
    except ImportError as error:
        raise ImportError('videos need PyAV: pip install "dj-photon-codecs[simulation]"') from error

    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(f"write_video: {path.name!r} must end in one of {', '.join(_SUFFIXES)}")
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigurationError(f"write_video: fps is {fps!r}, must be above 0")
    white = max(white_level(frame, shape[0]), vmin + 1) if vmax is None else vmax
    if not white > vmin:
        raise ConfigurationError(f"write_video: vmax is {white!r}, must be above vmin={vmin!r}")
    height, width = shape[1] + shape[1] % 2, shape[2] + shape[2] % 2  # 4:2:0 colour needs even sides
    with av.open(str(path), "w") as container, tqdm(total=shape[0], unit="frame", disable=not progress) as bar:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = cast(VideoStream, container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000)))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "18"}
        for block in blocks:
            for counts in block:
                grey = (counts.astype(np.float64) - vmin) * (255 / (white - vmin))
                image = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
                image = np.pad(image, ((0, height - shape[1]), (0, width - shape[2])), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
                bar.update()
        container.mux(stream.encode())
    return path
