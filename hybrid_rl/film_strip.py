"""A video as one picture, for pages and loggers: a few of its frames side by side."""

from __future__ import annotations

from PIL import Image

from hybrid_rl.videos import Clip, evenly_spread

_MOST_FRAMES = 4
_MAX_SIDE = 176
"""Of a frame, in pixels."""
_GAP = 2
"""White columns between frames."""


def film_strip(clip: Clip) -> Image.Image:
    """Frames evenly spread over a video, from left to right.

    Raises:
        DataError: the video cannot be decoded.
    """
    frames = [frame.copy() for frame in evenly_spread(clip, _MOST_FRAMES)]
    for frame in frames:
        frame.thumbnail((_MAX_SIDE, _MAX_SIDE))
    width, height = frames[0].size
    strip = Image.new("RGB", (len(frames) * (width + _GAP) - _GAP, height), "white")
    for place, frame in enumerate(frames):
        strip.paste(frame, (place * (width + _GAP), 0))
    return strip
