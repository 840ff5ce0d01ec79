"""open_source on videos: every frame is the one that decoding from the start gives, in whatever order they come."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dj_photon_codecs import SourceError, SourceWarning, open_source

COUNTS = np.random.default_rng(0).poisson(20, size=(80, 48, 72)).astype(np.uint8)

#: Codec, pixel format and container, as miniscopes and those who copy their files write them.
LOSSLESS = [
    ("ffv1", "gray", "avi"),
    ("ffv1", "gray", "mkv"),
    ("rawvideo", "gray", "avi"),
    ("png", "gray", "mov"),
    ("ffv1", "gray16le", "mkv"),
]
LOSSY = [
    ("mjpeg", "yuvj420p", "avi"),
    ("mpeg4", "yuv420p", "avi"),
    ("libx264", "yuv420p", "mp4"),
    ("libx264", "yuv420p", "avi"),
    ("libx264", "yuv420p", "mkv"),
]


def write_video(
    path: Path,
    frames: Any,
    codec: str = "ffv1",
    pixels: str = "gray",
    given: str = "gray",
    options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(20), options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format=given)
            if pixels.startswith("yuv"):  # the same numbers as luma, without a change of range
                grey = av.VideoFrame(image.width, image.height, pixels)
                rows = np.full((image.height, grey.planes[0].line_size), 128, np.uint8)
                rows[:, : image.width] = frame
                grey.planes[0].update(rows.tobytes())
                for plane in grey.planes[1:]:
                    plane.update(bytes([128]) * plane.buffer_size)
                image = grey
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> np.ndarray:
    """All frames from the start, the luma of each, as FFmpeg gives them."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(video=0):
            dtype = np.dtype(np.uint8 if frame.format.components[0].bits <= 8 else "<u2")
            rows: Any = np.frombuffer(memoryview(frame.planes[0]), dtype).reshape(frame.height, -1)
            frames.append(rows[:, : frame.width].copy())
    return np.stack(frames)


@contextmanager
def lossy(expected: bool) -> Iterator[None]:
    """The warning of a lossy codec, or none."""
    if expected:
        with pytest.warns(SourceWarning, match="alters counts"):
            yield
    else:
        yield


@pytest.mark.parametrize(("codec", "pixels", "container"), LOSSLESS + LOSSY, ids="-".join)
def test_any_frame_is_the_one_of_decoding_from_the_start(
    tmp_path: Path, codec: str, pixels: str, container: str
) -> None:
    deep = pixels == "gray16le"
    counts = COUNTS.astype(np.uint16) * 50 if deep else COUNTS
    path = write_video(tmp_path / f"m.{container}", counts, codec, pixels, "gray16le" if deep else "gray")
    frames = decoded(path)
    with lossy((codec, pixels, container) in LOSSY), open_source(path) as movie:
        assert (movie.shape, movie.dtype) == (counts.shape, counts.dtype)
        for number in [79, 0, 40, 41, 39, 5, 78, 1, *np.random.default_rng(0).integers(80, size=20).tolist()]:
            np.testing.assert_array_equal(movie[number], frames[number], err_msg=str(number))
        np.testing.assert_array_equal(movie[30:47], frames[30:47])
        np.testing.assert_array_equal(movie[:], frames)
    if (codec, pixels, container) in LOSSLESS:
        np.testing.assert_array_equal(frames, counts)


def test_files_of_a_miniscope_follow_each_other(tmp_path: Path) -> None:
    """0.avi, 1.avi, ... 10.avi, with the two other files that its software writes beside them."""
    ends = [10, 20, 25, 30, 40, 45, 50, 60, 65, 70, 80]
    for number, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        write_video(tmp_path / f"{number}.avi", COUNTS[start:stop])
    (tmp_path / "timeStamps.csv").write_text("Frame Number,Time Stamp (ms),Buffer Index\n")
    (tmp_path / "metaData.json").write_text('{"deviceName": "Miniscope", "compression": "FFV1"}')
    with open_source(tmp_path) as movie:
        np.testing.assert_array_equal(movie[18:53], COUNTS[18:53])
        np.testing.assert_array_equal(movie[3:5], COUNTS[3:5])
        np.testing.assert_array_equal(movie[:], COUNTS)


@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "bgr0"), ("rawvideo", "bgr24")])
def test_colour_video_is_three_channels(tmp_path: Path, codec: str, pixels: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, size=(9, 48, 72, 3), dtype=np.uint8)
    path = write_video(tmp_path / "m.avi", colours, codec, pixels, "rgb24")
    with pytest.raises(SourceError, match="m.avi holds 3 channels"):
        open_source(path)
    for channel in range(3):
        with open_source(path, channel=channel) as movie:
            np.testing.assert_array_equal(movie[2:5], colours[2:5, ..., channel])


def test_grey_that_is_mixed_with_colours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("rawvideo", rate=20)
        stream.width, stream.height, stream.pix_fmt = 72, 48, "yuyv422"
        for frame in COUNTS[:5]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuyv422")))
    with pytest.raises(SourceError, match="m.avi has pixels in the format yuyv422"):
        open_source(path)


@pytest.mark.parametrize("codec", ["mjpeg", "libx264", "mpeg4", "ffvhuff"])
def test_lossy_codecs_are_told(tmp_path: Path, codec: str) -> None:
    """Or grey that was made YUV: whoever did it has squeezed the range, most likely."""
    path = write_video(tmp_path / "m.avi", COUNTS[:5], codec, "yuvj420p" if codec == "mjpeg" else "yuv420p")
    what = "stored as yuv420p" if codec == "ffvhuff" else "compressed with"
    with pytest.warns(SourceWarning, match=rf"m.avi was {what}.*, which alters counts") as caught:
        open_source(path).close()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("codec", ["ffv1", "rawvideo"])
def test_a_truncated_video_is_named(tmp_path: Path, codec: str) -> None:
    """Wherever it ends, between frames or within one; an index behind the last frame may be missing."""
    path = write_video(tmp_path / "m.avi", COUNTS[:10], codec)
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.pos is not None]
    for kept in [*ends[:-1], *(end + 8 for end in ends[:-1]), *np.linspace(12, ends[-1] - 1, 30).astype(int).tolist()]:
        path.write_bytes(whole[:kept])
        with pytest.raises(SourceError, match="m.avi"):
            open_source(path)[:]


def test_damaged_frames_are_named(tmp_path: Path) -> None:
    """FFV1 has checksums. FFmpeg would rather show a frame that it made up."""
    path = write_video(tmp_path / "m.avi", COUNTS[:20], options={"level": "3", "slicecrc": "1"})
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.pts == 12)
        position, size = packet.pos, packet.size
    assert position is not None
    whole = path.read_bytes()
    for offset in range(20, size, size // 40):
        damaged = bytearray(whole)
        damaged[position + offset] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match="m.avi: frame 12 is damaged"):
            open_source(path)


def test_what_only_begins_as_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.avi").write_bytes(b"RIFF\xff\xff\xff\xffAVI LIST" + bytes(200))
    with pytest.raises(SourceError, match="m.avi cannot be opened"):
        open_source(tmp_path / "m.avi")


def test_a_video_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Invariant 7."""
    path = write_video(tmp_path / "m.avi", np.tile(COUNTS, (20, 2, 2)), "rawvideo")
    tracemalloc.start()
    try:
        with open_source(path) as movie:
            for start in range(0, len(movie), 50):
                movie[start : start + 50]
            nbytes = int(np.prod(movie.shape))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 50 * 96 * 144 < nbytes / 5


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "m.avi", COUNTS[:5])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'videos need av: pip install "dj-photon-codecs\[video\]"'):
        open_source(path)
