"""Videos, as miniscopes write them: any frame, decoded from the key frame before it, checked by its time stamp."""

from __future__ import annotations

import itertools
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .stack import Index, Options, Stack, closed_on_error, concatenated, errors_named, gathered, library, warn

#: Longer jumps ahead are made by seeking [frames].
_SKIP = 32

#: Each byte with its bits in reverse.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def open_files(names: Sequence[str], options: Options) -> Stack:
    """The frames of videos, one file after the other.

    Raises
    ------
    SourceError
        As :func:`open_source` says.
    """
    av = library("av", "video", "videos")
    scans = {}  # a file is opened again when it is its turn, and read through but once

    def opened(name: str) -> Stack:
        if name not in scans:
            with errors_named(f"{name} cannot be opened as a video"):
                scans[name] = _scan(av, name)
        return _open(av, name, *scans[name])

    return concatenated(names, opened)


def _open(av: Any, name: str, stamps: list[int], keys: list[int]) -> Stack:
    video = _Video(av, name, stamps, keys)
    with closed_on_error(video.close):
        frame = video.frame(0)
    axes = "TYX" if frame.ndim == 2 else "TYXC"

    def read(index: Index) -> AnyArray:
        frames, *inside = index
        assert isinstance(frames, slice)
        images = (video.frame(number)[tuple(inside)] for number in range(frames.start, frames.stop))
        return gathered(images, (frames.stop - frames.start,))

    return Stack(name, axes, (video.length, *frame.shape), frame.dtype, read, video.close)


def _scan(av: Any, name: str) -> tuple[list[int], list[int]]:
    """The time stamps of all frames, and of the key frames, in the order of presentation."""
    stamps, keys, cut_off, checked = [], [], [], []
    with av.open(name) as container:
        stream = container.streams.video[0]
        codec, promised = stream.codec_context.codec, stream.frames  # gone with the container
        pixels = stream.codec_context.pix_fmt or ""
        for packet in container.demux(stream):
            if packet.size:
                stamps.append(packet.pts)
                keys += [packet.pts] if packet.is_keyframe else []
                cut_off.append(packet.is_corrupt)
                checked.append(codec.name != "ffv1" or _checksums_hold(bytes(packet)))
    if None in stamps or len(set(stamps)) < len(stamps) or not stamps:
        raise SourceError(
            f"{name} has {len(stamps)} frames, and not each has a time stamp of its own: copy it into "
            "another container without decoding it, ffmpeg -i in.avi -c copy out.mkv"
        )
    if len(stamps) < promised:
        raise SourceError(
            f"{name} holds {len(stamps)} of the {promised} frames that its header promises: the acquisition was "
            "aborted, frames were dropped, or the copy is not complete. Copy it again, or write the frames that are "
            "there into a file of their own, ffmpeg -i in.avi -c copy out.avi"
        )
    has_checksums = any(checked)  # every frame of FFV1 has them, or none
    damaged = [cut or (has_checksums and not check) for cut, check in zip(cut_off, checked, strict=True)]
    if any(damaged):
        raise SourceError(
            f"{name}: frame {damaged.index(True)} is damaged or cut off, and FFmpeg would make up what is "
            "missing. Copy the file again"
        )
    if codec.lossy or pixels.startswith(("yuv", "nv")):
        what = f"compressed with {codec.name}" if codec.lossy else f"stored as {pixels}"
        warn(
            f"{name} was {what}, which alters counts: what is left of their noise is not that of photons. Record grey "
            "video with FFV1, or uncompressed"
        )
    return sorted(stamps), sorted(keys)


def _checksums_hold(packet: bytes) -> bool:
    """Whether a frame of FFV1 consists of slices with the checksum that they should have (RFC 9043, 4.9)."""
    end = len(packet)
    while end > 0:
        begin = end - 8 - int.from_bytes(packet[end - 8 : end - 5], "big")
        # zlib's is the same polynomial from the other end of each byte, begun at ones and turned over
        if begin < 0 or zlib.crc32(packet[begin:end].translate(_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = begin
    return True


class _Video:
    """The frames of one file in the order of their presentation; the last one that was decoded is kept."""

    def __init__(self, av: Any, name: str, stamps: list[int], keys: list[int]) -> None:
        self._name, self._stamps, self._keys = name, stamps, keys
        self._container = av.open(name)
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[Any] = self._container.decode(self._stream)
        self._next = 0  # number of the frame that the decoder gives next
        self._last: tuple[int, AnyArray] | None = None

    @property
    def length(self) -> int:
        """How many frames there are."""
        return len(self._stamps)

    def close(self) -> None:
        self._container.close()

    def frame(self, number: int) -> AnyArray:
        """The counts of a frame."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if not self._next <= number < self._next + _SKIP:
            self._seek(number)
        for decoded in itertools.islice(self._frames, number - self._next + 1):
            if decoded.pts != self._stamps[self._next]:
                raise SourceError(
                    f"{self._name}: frame {self._next} is not where its index has it (time stamp {decoded.pts}, "
                    f"expected {self._stamps[self._next]}): the file is damaged"
                )
            if decoded.is_corrupt:
                raise SourceError(f"{self._name}: frame {self._next} is damaged, and FFmpeg made up what is missing")
            self._next += 1
        if self._next != number + 1:
            raise SourceError(
                f"{self._name}: {self.length} frames are in the file, and only {self._next} can be decoded: it is "
                "damaged"
            )
        self._last = number, _counts(decoded, self._name)
        return self._last[1]

    def _seek(self, number: int) -> None:
        """Set the decoder on the key frame before a frame, or on the file's first."""
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
    """The grey image of a frame: its only plane, or the luma of YUV; of red, green and blue all three."""
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
