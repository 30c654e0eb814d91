"""References to videos. As with images, a prompt carries references; whoever needs frames opens them, in its process.

How a file becomes frames is the business of the policy's processor, so that everyone sees the frames that it shows: it
opens a reference as a clip. Decoded frames are kept by the content of the video (`hybrid_rl.kept_media`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageStat

from hybrid_rl.errors import DataError
from hybrid_rl.images import ImageRef, digest, image_digest, open_image
from hybrid_rl.kept_media import MEDIA

_GREY_OF = 8
"""Frames whose mean grey a blanked video takes."""


class Clip(Protocol):
    """A video of which frames can be asked for. Its length, rate and size decide how many tokens it becomes."""

    @property
    def num_frames(self) -> int: ...

    @property
    def source_fps(self) -> float | None:
        """Frames per second; None for frames that somebody chose already."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of every frame in pixels."""

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """RGB frames of these numbers, which never fall."""


@dataclass(frozen=True, slots=True)
class FileVideo:
    """A video in a file; read when it is needed.

    Attributes:
        place: where it was named, for messages.
    """

    path: str
    place: str = field(default="", compare=False)

    def digest(self) -> bytes:
        try:
            with Path(self.path).open("rb") as file:
                return hashlib.file_digest(file, _blake).digest()
        except OSError as error:
            raise DataError(f"{named(self)} cannot be read: {error.strerror or error}; check the path") from error


@dataclass(frozen=True, slots=True)
class InlineVideo:
    """The content of a video file, held in memory."""

    data: bytes = field(repr=False)
    place: str = field(default="", compare=False)

    def digest(self) -> bytes:
        return digest(self.data)


@dataclass(frozen=True, slots=True)
class FrameVideo:
    """Frames as single images.

    Attributes:
        frames_per_second: None for frames that were chosen already: all of them are shown.
    """

    frames: tuple[ImageRef, ...]
    frames_per_second: float | None = None
    place: str = field(default="", compare=False)

    def digest(self) -> bytes:
        return digest(b"".join([repr(self.frames_per_second).encode(), *map(image_digest, self.frames)]))


@dataclass(frozen=True, slots=True)
class BlankVideo:
    """A video without what it shows: as many frames of the same size, all of them in one mean grey."""

    of: FileVideo | InlineVideo | FrameVideo

    @property
    def place(self) -> str:
        return self.of.place

    def digest(self) -> bytes:
        return digest(b"blank" + self.of.digest())


VideoRef = FileVideo | InlineVideo | FrameVideo | BlankVideo


def blanked_video(ref: VideoRef) -> BlankVideo:
    """The video without what it shows; it becomes as many tokens."""
    return ref if isinstance(ref, BlankVideo) else BlankVideo(ref)


def named(ref: VideoRef) -> str:
    """A video in a message: where the data name it, and its path."""
    if not isinstance(ref, FileVideo):
        return ref.place or "a video"
    return f"{ref.place}: {ref.path}" if ref.place else f"video {ref.path}"


def takes_videos(processor: Any) -> bool:
    """Whether a processor opens videos (`open_clip`) and takes them in messages."""
    return callable(getattr(processor, "open_clip", None))


def open_video(ref: VideoRef, processor: Any) -> Clip:
    """The clip of a video, as a processor reads it.

    Raises:
        DataError: the processor takes no videos, or the video cannot be read.
    """
    if not takes_videos(processor):
        raise DataError(
            f"{named(ref)} is a video, and the policy's processor ({type(processor).__name__}) takes none; give its "
            f"frames in `images`, or train a policy that sees videos (docs/models.md)"
        )
    if isinstance(ref, BlankVideo):
        return _BlankClip(open_video(ref.of, processor))
    try:
        key = (type(processor).__qualname__, ref.digest())
        if isinstance(ref, FrameVideo):
            return _Frames(ref, open_image(ref.frames[0]).size)
        source = ref.data if isinstance(ref, InlineVideo) else ref.path

        def read() -> Clip:
            opened: Clip = processor.open_clip(source)
            return opened

        found = MEDIA.get(("clip", *key), lambda: _described(read()))
    except ValueError as error:
        raise _defect(ref, error) from error
    return _KeptClip(*found, ref, key, read)


def evenly_spread(clip: Clip, most: int) -> list[Image.Image]:
    """At most so many frames of a clip, each from the middle of an equal share of it."""
    count = min(most, clip.num_frames)
    return list(clip.frames([(2 * i + 1) * clip.num_frames // (2 * count) for i in range(count)]))


def _described(clip: Clip) -> tuple[int, float | None, tuple[int, int]]:
    return clip.num_frames, clip.source_fps, clip.size


@dataclass(frozen=True, slots=True)
class _KeptClip:
    """A file whose chosen frames are decoded once for its content, where the memory can hold them."""

    num_frames: int
    source_fps: float | None
    size: tuple[int, int]
    ref: VideoRef
    key: tuple[str, bytes]
    read: Callable[[], Clip]

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        width, height = self.size
        if not MEDIA.can_keep(3 * width * height * len(set(indices))):
            yield from self._decode(indices)  # one at a time
            return
        wanted = tuple(sorted(set(indices)))
        kept = MEDIA.get(("frames", *self.key, wanted), lambda: list(self._decode(wanted)))
        place = {index: number for number, index in enumerate(wanted)}
        for index in indices:
            yield kept[place[index]]

    def _decode(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        try:
            yield from self.read().frames(indices)
        except ValueError as error:
            raise _defect(self.ref, error) from error


@dataclass(frozen=True, slots=True)
class _Frames:
    """Single images one after another; each is kept as images are."""

    ref: FrameVideo
    size: tuple[int, int]

    @property
    def num_frames(self) -> int:
        return len(self.ref.frames)

    @property
    def source_fps(self) -> float | None:
        return self.ref.frames_per_second

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        for index in indices:
            frame = open_image(self.ref.frames[index])
            if frame.size != self.size:
                raise DataError(
                    f"{named(self.ref)}: frame {self.ref.frames[index].name} has {frame.width} x {frame.height} "
                    f"pixels, and the first one {self.size[0]} x {self.size[1]}; give all of them one size"
                )
            yield frame


@dataclass(frozen=True, slots=True)
class _BlankClip:
    """Grey frames in the place of a clip's."""

    of: Clip

    @property
    def num_frames(self) -> int:
        return self.of.num_frames

    @property
    def source_fps(self) -> float | None:
        return self.of.source_fps

    @property
    def size(self) -> tuple[int, int]:
        return self.of.size

    def frames(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        means = [ImageStat.Stat(frame.convert("L")).mean[0] for frame in evenly_spread(self.of, _GREY_OF)]
        grey = Image.new("RGB", self.size, (round(sum(means) / len(means)),) * 3)
        return iter([grey] * len(indices))


def _defect(ref: VideoRef, error: ValueError) -> DataError:
    if isinstance(error, DataError):
        return error
    path = ref.path if isinstance(ref, FileVideo) else ""
    reason = str(error).rstrip(".").removeprefix("A video in memory ").removeprefix(path).strip()
    return DataError(f"{named(ref)} {reason}; replace or remove it")


def _blake() -> Any:
    return hashlib.blake2b(digest_size=16)
