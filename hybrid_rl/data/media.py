"""The columns `images` and `videos` of a row, with every defect named by its place in the file."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hybrid_rl.errors import DataError
from hybrid_rl.images import FileImage, ImageRef, InlineImage
from hybrid_rl.videos import FileVideo, FrameVideo, InlineVideo, VideoRef

Ref = TypeVar("Ref")

_VIDEO = "a path of a file or of a folder of frames, a list of frames, {frames, frames_per_second} or stored bytes"
_KEYS = frozenset({"frames", "frames_per_second"})
_STORED = frozenset({"bytes", "path"})
_MOST = sys.float_info.max
_SHOWN = 500
"""Most characters of a path in a message: a path may be a video in base64."""


def read_images(value: object, place: str, folder: Path) -> tuple[ImageRef, ...]:
    """The images of a row: paths, or `{bytes, path}` as `datasets` stores images in Parquet.

    Raises:
        DataError: the column is no list, an entry is something else, or its file does not exist.
    """
    return _entries(value, "image", place, lambda item, where: _image(item, where, folder))


def read_videos(value: object, place: str, folder: Path) -> tuple[VideoRef, ...]:
    """The videos of a row: files, folders or lists of frames, `{frames, frames_per_second}`, or `{bytes, path}`.

    Raises:
        DataError: as `read_images`; also a video without frames, or an impossible rate.
    """
    return _entries(value, "video", place, lambda item, where: _video(item, where, folder))


def _entries(value: object, kind: str, place: str, read: Callable[[object, str], Ref]) -> tuple[Ref, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{place}: `{kind}s` must be a list, not {value!r:.60}; put it in brackets")
    return tuple(read(item, f"{place}, {kind} {number}") for number, item in enumerate(value, start=1))


def _image(item: object, place: str, folder: Path) -> ImageRef:
    data, path = _stored(item)
    if data is not None:
        return InlineImage(data, name=place)
    if not isinstance(path, str) or not path:
        raise DataError(f"{place} must be a path or stored bytes, not {item!r:.60}")
    file = folder / path  # an absolute path replaces the folder
    if not _is(Path.is_file, file):
        raise _missing(place, file)
    return FileImage(str(file))


def _video(item: object, place: str, folder: Path) -> VideoRef:
    if isinstance(item, Mapping) and not _STORED.isdisjoint(item):
        _refuse_others(item, _STORED, place, "a stored video")
    data, path = _stored(item)
    if data is not None:
        return InlineVideo(data, place=place)
    if isinstance(path, list):
        return FrameVideo(_frames(path, place, folder), place=place)
    if isinstance(path, Mapping) and path.get("frames") is not None:
        return _timed(path, place, folder)
    if not isinstance(path, str) or not path:
        raise DataError(f"{place} must be {_VIDEO}, not {item!r:.60}")
    file = folder / path
    if _is(Path.is_dir, file):
        return FrameVideo(_frames(path, place, folder), place=place)
    if not _is(Path.is_file, file):
        raise _missing(place, file)
    return FileVideo(str(file), place=place)


def _timed(item: Mapping[str, object], place: str, folder: Path) -> FrameVideo:
    """Frames with their rate."""
    _refuse_others(item, _KEYS, place, "a video of frames")
    rate = item.get("frames_per_second")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= _MOST):
        raise DataError(f"{place}: `frames_per_second` must be a number above 0, not {rate!r:.60}")
    return FrameVideo(_frames(item["frames"], place, folder), None if rate is None else float(rate), place=place)


def _frames(value: object, place: str, folder: Path) -> tuple[ImageRef, ...]:
    """The frames of a list, or of a folder in the order of the numbers in their names."""
    if isinstance(value, str):
        files = folder / value
        if not _is(Path.is_dir, files):
            raise DataError(
                f"{place}: there is no folder {str(files)[:_SHOWN]}; paths are relative to the data file's folder"
            )
        names = [file.name for file in files.iterdir() if file.is_file() and not file.name.startswith(".")]
        value = [str(Path(value, name)) for name in sorted(names, key=_by_number)]
    if not isinstance(value, list):
        raise DataError(f"{place}: `frames` must be a list or a folder, not {value!r:.60}")
    if not value:
        raise DataError(f"{place} has no frames; fill it or remove the row")
    return tuple(_image(item, f"{place}, frame {number}", folder) for number, item in enumerate(value, start=1))


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    """Sorts frame_10 behind frame_9."""
    parts = re.split(r"([0-9]+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _stored(item: object) -> tuple[bytes | None, object]:
    """Bytes of `{bytes, path}` as `datasets` stores files, or what else there is."""
    if isinstance(item, Mapping) and ("bytes" in item or "path" in item):
        data, path = item.get("bytes"), item.get("path")
        return (data, None) if isinstance(data, bytes) else (None, path)
    return None, item


def _refuse_others(item: Mapping[Any, object], read: frozenset[str], place: str, what: str) -> None:
    """A rate that is written where none is read would be lost without a word."""
    unknown = [key for key, value in item.items() if key not in read and value is not None]
    if unknown:
        raise DataError(f"{place} has {unknown[0]!r}, which is not read; {what} has {', '.join(sorted(read))}")


def _is(kind: Callable[[Path], bool], file: Path) -> bool:
    """Whether a path leads to a file, or a folder; it does not where it is longer than any can be."""
    try:
        return kind(file)
    except OSError:
        return False


def _missing(place: str, file: Path) -> DataError:
    return DataError(f"{place}: there is no file {str(file)[:_SHOWN]}; paths are relative to the data file's folder")
