"""A video as one picture, for pages and loggers: a few of its frames side by side."""

from __future__ import annotations

from PIL import Image

from hybrid_rl.videos import Clip, evenly_spread

_MOST_FRAMES = 4
_MAX_SIDE, _LEAST_SIDE = 176, 88
"""Of a frame, in pixels; smaller ones are enlarged pixel by pixel."""
_GAP = 2
"""White columns between frames."""


def film_strip(clip: Clip) -> Image.Image:
    """Frames evenly spread over a video, from left to right.

    Raises:
        DataError: the video cannot be decoded.
    """
    frames = [_sized(frame) for frame in evenly_spread(clip, _MOST_FRAMES)]
    width, height = frames[0].size
    strip = Image.new("RGB", (len(frames) * (width + _GAP) - _GAP, height), "white")
    for place, frame in enumerate(frames):
        strip.paste(frame, (place * (width + _GAP), 0))
    return strip


def _sized(frame: Image.Image) -> Image.Image:
    times = max(1, _LEAST_SIDE // max(frame.size))
    sized = frame.resize((frame.width * times, frame.height * times), Image.Resampling.NEAREST)
    sized.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return sized
