"""Read videos, for example from miniscopes: decode from the preceding key frame and check every time stamp."""

from __future__ import annotations

import itertools
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .joining import joined
from .messages import warn_source
from .paths import Found
from .stack import DamagedFile, Options, Stack, closed_on_error, image_reader, library

_SKIP = 32  # longer jumps ahead seek instead of decoding [frames]
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # every byte with its bits reversed


def open_files(found: Found, options: Options) -> Stack:
    """Open video files, concatenated in time."""
    av = library("av", "video", "videos")
    scan = cache(partial(_scan, av))  # files are reopened for reading, but scanned once

    def opened(name: str) -> Stack:
        stamps, keys = scan(name)
        video = _Video(av, name, stamps, keys)
        with closed_on_error(video.close):
            frame = video.frame(0)
        axes, shape = "TYXC"[: 1 + frame.ndim], (len(stamps), *frame.shape)
        return Stack(name, axes, shape, frame.dtype, image_reader(video.frame, np.arange(len(stamps))), video.close)

    return joined(found.group(), options, opened)


def _scan(av: Any, name: str) -> tuple[list[int], list[int]]:
    """Return the sorted time stamps of all frames and of the key frames; raise if the file is damaged."""
    stamps, keys, cut_off, checked = [], [], [], []
    with av.open(name) as container:
        stream = container.streams.video[0]
        codec, promised = stream.codec_context.codec, stream.frames  # read before the container is closed
        pixels = stream.codec_context.pix_fmt or ""
        for packet in container.demux(stream):
            if packet.size:
                stamps.append(packet.pts)
                keys += [packet.pts] if packet.is_keyframe else []
                cut_off.append(packet.is_corrupt)
                checked.append(codec.name != "ffv1" or _checksums_hold(bytes(packet)))
    if None in stamps or len(set(stamps)) < len(stamps) or not stamps:
        raise SourceError(
            f"{name} has {len(stamps)} frames without different time stamps: copy it into another container without "
            "decoding it, ffmpeg -i in.avi -c copy out.mkv"
        )
    if len(stamps) < promised:
        raise DamagedFile(
            f"{name} holds {len(stamps)} of the {promised} frames that its header promises: the acquisition was "
            "aborted, frames were dropped, or the copy is not complete. Copy it again, or write the frames that are "
            "there into a new file, ffmpeg -i in.avi -c copy out.avi"
        )
    has_checksums = any(checked)  # either every FFV1 frame has them or none
    damaged = [cut or (has_checksums and not check) for cut, check in zip(cut_off, checked, strict=True)]
    if any(damaged):
        raise DamagedFile(
            f"{name}: frame {damaged.index(True)} is damaged or cut off, and FFmpeg would invent what is "
            "missing. Copy the file again"
        )
    if codec.lossy or pixels.startswith(("yuv", "nv")):
        what = f"compressed with {codec.name}" if codec.lossy else f"stored as {pixels}"
        warn_source(
            f"{name} was {what}, which alters counts: the noise left is not that of photons. Record grey video with "
            "FFV1, or uncompressed"
        )
    return sorted(stamps), sorted(keys)


def _checksums_hold(packet: bytes) -> bool:
    """Whether the checksums of all slices of an FFV1 frame are right (RFC 9043, 4.9)."""
    end = len(packet)
    while end > 0:
        begin = end - 8 - int.from_bytes(packet[end - 8 : end - 5], "big")
        # zlib uses the same polynomial with reversed bits, initial ones and inverted output.
        if begin < 0 or zlib.crc32(packet[begin:end].translate(_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = begin
    return True


class _Video:
    """Frames of one file in presentation order; keeps the last decoded one."""

    def __init__(self, av: Any, name: str, stamps: list[int], keys: list[int]) -> None:
        self._name, self._stamps, self._keys = name, stamps, keys
        self._container = av.open(name)
        self.close = self._container.close
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[Any] = self._container.decode(self._stream)
        self._next = 0  # number of the next decoded frame
        self._last: tuple[int, AnyArray] | None = None

    def frame(self, number: int) -> AnyArray:
        """Return the counts of a frame."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if not self._next <= number < self._next + _SKIP:
            self._seek(number)
        for decoded in itertools.islice(self._frames, number - self._next + 1):
            if decoded.pts != self._stamps[self._next]:
                raise SourceError(
                    f"{self._name}: frame {self._next} is not where its index says (time stamp {decoded.pts}, "
                    f"expected {self._stamps[self._next]}): the file is damaged"
                )
            if decoded.is_corrupt:
                raise SourceError(f"{self._name}: frame {self._next} is damaged, and FFmpeg invented what is missing")
            self._next += 1
        if self._next != number + 1:
            raise SourceError(
                f"{self._name}: only {self._next} of its {len(self._stamps)} frames can be decoded: the file is damaged"
            )
        self._last = number, _counts(decoded, self._name)
        return self._last[1]

    def _seek(self, number: int) -> None:
        """Seek to the key frame before a frame, or to the first frame."""
        before = bisect_right(self._keys, self._stamps[number])
        stamp = self._keys[before - 1] if before else self._stamps[0]
        self._container.seek(stamp, stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)
        first = next(self._frames, None)
        if first is None or first.pts not in self._stamps:
            raise SourceError(f"{self._name}: nothing can be decoded from frame {number} on: the file is damaged")
        self._next = self._stamps.index(first.pts)
        self._frames = itertools.chain([first], self._frames)
        if self._next > number:
            raise SourceError(f"{self._name}: frame {number} cannot be reached: the file is damaged")


def _counts(frame: Any, name: str) -> AnyArray:
    """Return the grey image of a frame: its only plane or the luma of YUV; for RGB, all three channels."""
    pixels = frame.format
    if pixels.is_rgb or pixels.has_palette:
        return np.asarray(frame.to_ndarray(format="rgb24"))
    grey, *others = pixels.components
    if any(other.plane == 0 for other in others):
        raise SourceError(
            f"{name} has pixels in the format {pixels.name}, whose grey is mixed with colours: convert it, ffmpeg -i "
            "in.avi -c:v ffv1 -pix_fmt yuv422p out.avi"
        )
    dtype = np.dtype("u1" if grey.bits <= 8 else ">u2" if pixels.name.endswith("be") else "<u2")
    plane = frame.planes[0]
    rows = np.frombuffer(plane, dtype).reshape(frame.height, plane.line_size // dtype.itemsize)
    return rows[:, : frame.width].copy()
