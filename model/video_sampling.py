"""Which frames of a video are shown, and how they form packages: arithmetic alone, no pixel is touched.

Frames are chosen evenly. While one package per frame stays within the budget of packages, every frame is its own;
longer videos put several neighbouring frames into one package, which the resampler turns into the tokens of one
picture. The numbers are those of the model card's sampling helper, its roundings included: checkpoints were trained on
exactly these time ids.

A tick is a tenth of a second from the start of the video.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from .resampler import STILL

TICK_S = 0.1
"""Seconds per tick."""
_LONGEST_S = 1_000_000
"""Beyond it a frame rate is an error: every tick of a video takes memory while frames are chosen."""
MOST_FRAMES_PER_PACKAGE = 6
"""The resampler was trained on packages of one to six frames (MiniCPM-V 4.5, arXiv 2509.18154, section 2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """How videos are shown. The defaults are the model card's; `PAPER_VIDEO` has the paper's range.

    Raises:
        ValueError: a setting outside its range.
    """

    fps: float = 3.0
    """Frames to choose per second of video, as long as they fit into the budget."""
    max_packages: int = 180
    """Budget: packages of one video."""
    max_packing: int = 3
    """Most frames of one package, 1 to 6."""
    packing: int | None = None
    """Frames of every package, at most `max_packing`; None chooses by the length of the video."""
    max_slice_nums: int = 1
    """Most cells of the grid a frame is cut into; 1 shows every frame as one view."""
    timed: bool = True
    """Frames carry their time. Releases before 4.5 know none: there every frame is a picture of its own."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps of a video must be a positive number, got {self.fps}.")
        for name in ("max_packages", "max_packing", "packing", "max_slice_nums"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} of a video must be a whole number of at least 1, got {value!r}.")
        if self.max_packing > MOST_FRAMES_PER_PACKAGE:
            raise ValueError(
                f"max_packing of a video must be 1 to {MOST_FRAMES_PER_PACKAGE} frames, got {self.max_packing}."
            )

    def with_changes(self, changes: Mapping[str, Any] | None) -> VideoOptions:
        """A copy with some settings replaced.

        Raises:
            ValueError: a setting that does not exist, or outside its range.
        """
        if not changes:
            return self
        names = [field.name for field in fields(self)]
        if unknown := changes.keys() - set(names):
            raise ValueError(f"Videos have no option {', '.join(sorted(unknown))}; there are {', '.join(names)}.")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, for a file."""
        defaults = asdict(VideoOptions())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


UNTIMED_VIDEO = VideoOptions(fps=1.0, max_packages=64, max_packing=1, timed=False)
"""For releases before 4.5: up to 64 pictures, one a second."""
PAPER_VIDEO = VideoOptions(fps=10.0, max_packing=6)
"""The range of the paper: up to 10 frames a second, up to 180 packages of 6, which are 1,080 frames."""


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """Frames of one video, and how they group."""

    indices: tuple[int, ...]
    """Numbers of the frames, from 0, never falling; a frame may occur twice where more are asked for than exist."""
    packages: tuple[tuple[int, ...], ...]
    """Ticks of the frames of each package, in the order of `indices`."""


def choose_frames(num_frames: int, source_fps: float, options: VideoOptions) -> FrameChoice:
    """Frames to show of a video of `num_frames` at `source_fps` frames per second (the model card's helper).

    With d = num_frames / source_fps seconds, r = `fps` and P = `max_packages`: if r * int(d) <= P, round(min(r,
    round(source_fps)) * min(P, d)) frames alone; else packages of p = ceil(d * r / P) frames, round(d * r) in all, or
    P * `max_packing` if p is more than that. `packing` replaces the size of the packages, not the number of frames.
    Frame i is int(i * g + g / 2), g = num_frames / count. The helper chooses no frame of the shortest clips; here it is
    at least one. Nor does it of clips whose rate is rounded to 0; here their rate is not rounded, and all are shown.

    Raises:
        ValueError: no frames, or no frame rate, or one that cannot be meant.
    """
    _check_clip(num_frames, source_fps)
    duration_s = num_frames / source_fps
    if options.fps * int(duration_s) <= options.max_packages:
        packing = 1
        count = round(min(options.fps, round(source_fps) or source_fps) * min(options.max_packages, duration_s))
    else:
        packing = math.ceil(duration_s * options.fps / options.max_packages)
        count = round(duration_s * options.fps)
        if packing > options.max_packing:
            packing, count = options.max_packing, options.max_packages * options.max_packing
    if options.packing is not None:
        packing = min(options.packing, options.max_packing)
    indices = _spread(num_frames, max(count, 1))
    return _grouped(indices, source_fps, duration_s, packing if options.timed else None)


def keep_frames(num_frames: int, options: VideoOptions) -> FrameChoice:
    """All frames of a list that was chosen before, one every 1 / `fps` seconds; spread thinner if beyond the budget.

    Packages are as small as the budget allows, if `packing` does not say their size.

    Raises:
        ValueError: no frames.
    """
    _check_clip(num_frames, options.fps)
    indices = _spread(num_frames, min(num_frames, options.max_packages * options.max_packing))
    wanted = options.packing or math.ceil(len(indices) / options.max_packages)
    packing = min(wanted, options.max_packing)
    return _grouped(indices, options.fps, num_frames / options.fps, packing if options.timed else None)


def _check_clip(num_frames: int, source_fps: float) -> None:
    if num_frames < 1:
        raise ValueError("A video without frames has nothing to encode.")
    if not (math.isfinite(source_fps) and source_fps > 0):
        raise ValueError(f"The frame rate of a video must be a positive number, got {source_fps}.")
    if num_frames > source_fps * _LONGEST_S:
        raise ValueError(
            f"{num_frames} frames at {source_fps} frames per second take more than {_LONGEST_S:,} seconds; "
            f"correct the rate."
        )


def _spread(num_frames: int, count: int) -> tuple[int, ...]:
    """`count` frame numbers, each from the middle of an equal share of the video."""
    gap = num_frames / count
    return tuple(int(i * gap + gap / 2) for i in range(count))


def _grouped(indices: tuple[int, ...], source_fps: float, duration_s: float, packing: int | None) -> FrameChoice:
    """The choice in packages of `packing` frames; None means pictures without time."""
    if packing is None:
        return FrameChoice(indices, ((STILL,),) * len(indices))
    ticks = _ticks(indices, source_fps, duration_s)
    return FrameChoice(indices, tuple(tuple(ticks[start : start + packing]) for start in range(0, len(ticks), packing)))


def _ticks(indices: Iterable[int], source_fps: float, duration_s: float) -> list[int]:
    """Tick of each frame: the nearest of the multiples of 0.1 s before the end, divided by 0.1 and cut off.

    Multiples and division are of floats, and the cut turns some ticks into the one before (43 into 42). Of two equally
    near multiples the search tree of the released helper takes one or the other; it is the same tree here.
    """
    from scipy.spatial import cKDTree  # heavy, and pictures do without

    scale_s = np.arange(0, duration_s, TICK_S)
    times_s = np.array(list(indices), dtype=np.float64) / source_fps
    nearest = cKDTree(scale_s[:, None]).query(times_s[:, None])[1]
    return (scale_s[nearest] / TICK_S).astype(np.int32).tolist()
