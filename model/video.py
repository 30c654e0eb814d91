"""Videos as clips: how long, how large, and the chosen frames one after another.

A clip is a file or a list of frames. Files are read through PyAV. The packets of a file give the number of frames and
the time of each without decoding; then only the stretches from a key frame to the last chosen frame before the next one
are decoded, and one frame is held at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from PIL import Image
from torch import Tensor

from .pictures import MAX_PIXELS, to_rgb

# Without a list FFmpeg takes pictures and plain text for films too, and follows playlists to other files and addresses.
_FORMATS = "mov mp4 matroska webm avi mpegts mpeg mpegvideo m4v flv asf ogg gif h264 hevc obu ivf nut mxf rm dv swf"
_DAMAGE = (FFmpegError, UnicodeDecodeError)
"""What reading a damaged file raises; the latter where it has names in it."""
_OPTIONS = {"format_whitelist": _FORMATS.replace(" ", ","), "protocol_whitelist": "file"}


@runtime_checkable
class Clip(Protocol):
    """What sampling and encoding need to know of a video."""

    @property
    def num_frames(self) -> int:
        """Frames in all."""

    @property
    def source_fps(self) -> float | None:
        """Frames per second; None for frames that somebody chose already."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every frame in pixels."""

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """RGB frames of these numbers, which never fall; a number may repeat."""


def open_clip(video: Any, source_fps: float | None = None) -> Clip:
    """A clip of a file, of the bytes of one, of a list of frames (anything `to_rgb` takes), or of an array
    [T, H, W, C] or [T, C, H, W]. A clip stays as it is.

    Args:
        source_fps: frame rate of a list; None means that its frames were chosen already. A file knows its own.

    Raises:
        ValueError: not a video, one without frames, or frames of different sizes.
    """
    if isinstance(video, str | Path):
        return VideoFile.open(str(video))
    if isinstance(video, bytes):
        return VideoFile.open("A video in memory", video)
    if isinstance(video, Clip):
        return video
    if isinstance(video, np.ndarray | Tensor):
        if video.ndim != 4:
            raise ValueError(f"A video array must be [T, H, W, C] or [T, C, H, W], got shape {tuple(video.shape)}.")
        video = list(video)
    if not isinstance(video, list | tuple):
        raise ValueError(f"A video must be a file name, a list of frames or an array, got {type(video).__name__}.")
    return FrameList.of(video, source_fps)


@dataclass(frozen=True, slots=True)
class FrameList:
    """Frames in memory."""

    pictures: tuple[Any, ...]
    size: tuple[int, int]
    source_fps: float | None

    @classmethod
    def of(cls, pictures: Sequence[Any], source_fps: float | None) -> FrameList:
        """A clip of these frames.

        Raises:
            ValueError: no frames.
        """
        if not pictures:
            raise ValueError("A video without frames has nothing to encode.")
        return cls(tuple(pictures), to_rgb(pictures[0]).size, source_fps)

    @property
    def num_frames(self) -> int:
        """Frames in all."""
        return len(self.pictures)

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """RGB frames of these numbers.

        Raises:
            ValueError: a frame of another size than the first one, or one that is no picture.
        """
        for index in indices:
            frame = to_rgb(self.pictures[index])
            if frame.size != self.size:
                raise ValueError(
                    f"Frame {index} of a video has {frame.width} x {frame.height} pixels, "
                    f"the first one {self.size[0]} x {self.size[1]}."
                )
            yield frame


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """A video in a local file."""

    path: str
    """Where it is; its name where `data` are given."""
    data: bytes | None = field(default=None, repr=False)
    """Content of the file, instead of what is at the path."""
    size: tuple[int, int]
    source_fps: float
    num_frames: int
    times: tuple[int, ...] | None
    """Presentation time of every frame in the stream's time base, rising; None where the file does not tell."""
    key_times: tuple[int, ...]
    """Times of the key frames among them."""

    @classmethod
    def open(cls, path: str, data: bytes | None = None) -> VideoFile:
        """Read the packets of the first video stream, and decode its first frame for the size.

        Raises:
            ValueError: no such file, not a video, or one without frames.
        """
        try:
            with _container(path, data) as container:
                stream = _stream(container)
                packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
                rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        except _DAMAGE as error:
            raise _unreadable(path, error) from error
        if not packets:
            raise ValueError(f"{path} is a video without frames.")
        times = sorted(p.pts for p in packets if p.pts is not None)
        timed = len(times) == len(packets) and len(set(times)) == len(times)
        if not rate:
            raise ValueError(f"{path} does not tell its frame rate; give its frames as a list with source_fps.")
        first = _first_frame(path, data)
        return cls(
            path=path,
            data=data,
            size=first.size,
            source_fps=float(rate),
            num_frames=len(packets),
            times=tuple(times) if timed else None,
            key_times=tuple(sorted(p.pts for p in packets if p.is_keyframe)) or tuple(times[:1]) if timed else (),
        )

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """RGB frames of these numbers, which must not fall.

        A number beyond what can be decoded gives the last frame: the packets at the end of a cut file may be useless.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            with _container(self.path, self.data) as container:
                yield from _decoded(container, self, indices)
        except _DAMAGE as error:
            raise _unreadable(self.path, error) from error

    def key_time(self, time: int) -> int:
        """Time of the last key frame at or before `time`, from which decoding has to start."""
        return self.key_times[max(bisect_right(self.key_times, time) - 1, 0)]


def _container(path: str, data: bytes | None) -> Any:
    """An open container that holds a video stream."""
    if data is None and "://" in path:
        raise ValueError(f"{path} is no local file; videos are not fetched from elsewhere.")
    container = av.open(path if data is None else BytesIO(data), options=_OPTIONS)
    if _stream(container) is None:
        container.close()
        raise ValueError(f"{path} is not a video: it has no pictures.")
    return container


def _stream(container: Any) -> Any:
    """The first video stream that is not a cover picture; None without one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _first_frame(path: str, data: bytes | None) -> Image.Image:
    try:
        with _container(path, data) as container:
            for frame in container.decode(_stream(container)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise ValueError(
                        f"{path} has frames of {frame.width} x {frame.height} pixels, more than {MAX_PIXELS}."
                    )
                return _upright(frame)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    raise ValueError(f"{path} is a video without frames.")


def _decoded(container: Any, file: VideoFile, indices: Sequence[int]) -> Iterator[Image.Image]:
    """Chosen frames of an open file in one pass, skipping ahead by key frames."""
    decoder = container.decode(_stream(container))
    num_decoded, shown, frame, picture = 0, -1, None, None
    for index in indices:
        if index != shown or picture is None:
            if file.times is None:
                while num_decoded <= index and (following := next(decoder, None)) is not None:
                    num_decoded, frame = num_decoded + 1, following
            else:
                decoder, frame = _advance(container, file, decoder, frame, file.times[index])
            if frame is None:
                raise ValueError(f"{file.path} is damaged: no frame can be decoded.")
            shown, picture = index, _upright(frame)
            if picture.size != file.size:
                raise ValueError(
                    f"{file.path} changes its size to {picture.width} x {picture.height} at frame {index}."
                )
        yield picture


def _advance(container: Any, file: VideoFile, decoder: Any, frame: Any, time: int) -> tuple[Any, Any]:
    """(decoder, frame) at the first frame that is shown at `time` or later, or at the last one.

    Args:
        frame: where the decoder is; None at the start of the file.
    """
    reached = _time(frame, file.key_times[0])
    if frame is not None and reached >= time:
        return decoder, frame
    key = file.key_time(time)
    if key > reached:
        decoder, frame = _restart(container, key)
        if _time(frame, time + 1) > time:
            # The file's own index led too far: read all of it, then.
            decoder, frame = _restart(container, file.key_times[0])
        if _time(frame, time) >= time:
            return decoder, frame
    for following in decoder:
        frame = following
        if _time(frame, time) >= time:
            break
    return decoder, frame


def _restart(container: Any, time: int) -> tuple[Any, Any]:
    """(decoder, its first frame or None) from the key frame at `time`."""
    stream = _stream(container)
    container.seek(time, stream=stream, backward=True)
    decoder = container.decode(stream)
    return decoder, next(decoder, None)


def _time(frame: Any, default: int) -> int:
    return default if frame is None or frame.pts is None else int(frame.pts)


def _upright(frame: Any) -> Image.Image:
    """The frame as RGB, turned as the file says (phones film sideways)."""
    picture: Image.Image = frame.to_image()
    turn = getattr(frame, "rotation", 0) or 0
    return picture.rotate(turn, expand=True) if turn else picture


def _unreadable(path: str, error: FFmpegError | UnicodeDecodeError) -> ValueError:
    # "Invalid argument" is what FFmpeg says of a format that is not allowed.
    if isinstance(error, av.error.ArgumentError):
        reason: Any = "its format is none of a video"
    elif isinstance(error, av.error.InvalidDataError | av.error.EOFError | UnicodeDecodeError):
        reason = "it is damaged or cut short (an mp4 may have its index, the moov atom, at its end)"
    else:
        reason = error.strerror or error
    return ValueError(f"{path} cannot be read as a video: {reason}.")
