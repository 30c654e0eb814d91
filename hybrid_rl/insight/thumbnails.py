"""Images of prompts as data URIs. Each is decoded and written anew, so that nothing but pixels reaches the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

MAX_SIDE = 360
"""Pixels."""
_STRIP_SIDE = 720
"""Pixels, of frames side by side."""
_PNG_BYTES = 40_000
"""A PNG larger than this is a photograph and becomes a JPEG."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """`uri` is empty where the image cannot be shown. `coarse`: so small that it is shown enlarged, pixel by pixel.
    `strip`: frames of a video side by side."""

    name: str
    uri: str = ""
    coarse: bool = False
    strip: bool = False


def thumbnails(run_dir: Path, row: Mapping[str, object], most: int | None = None) -> list[Thumbnail]:
    """The images of a recorded response's prompt, and strips of frames of its videos; at most so many of each."""

    def names(column: str) -> list[str]:
        value = row.get(column)
        return [str(name) for name in value][:most] if isinstance(value, list) else []

    strips = [thumbnail(run_dir, name, _STRIP_SIDE) for name in names("videos")]
    return [
        *(thumbnail(run_dir, name) for name in names("images")),
        *(replace(strip, coarse=False, strip=True) for strip in strips),
    ]


def thumbnail(run_dir: Path, name: str, max_side: int = MAX_SIDE) -> Thumbnail:
    """The image at a path relative to the run folder; only files inside the folder are read."""
    from PIL import Image

    from hybrid_rl.images import UNREADABLE, upright_rgb

    try:
        path = (run_dir / name).resolve()
        if not path.is_relative_to(run_dir.resolve()):
            return Thumbnail(name)
        with Image.open(path) as opened:
            opened.draft("RGB", (MAX_SIDE * 2, MAX_SIDE * 2))
            image = upright_rgb(opened)
    except UNREADABLE:
        return Thumbnail(name)
    coarse = max(image.size) < 120
    image.thumbnail((max_side, max_side))
    data, kind = _encode(image, "PNG"), "png"
    if len(data) > _PNG_BYTES:
        data, kind = _encode(image, "JPEG"), "jpeg"
    return Thumbnail(name, f"data:image/{kind};base64,{base64.b64encode(data).decode()}", coarse)


def _encode(image: object, kind: str) -> bytes:
    from PIL import Image

    assert isinstance(image, Image.Image)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True, quality=85)
    return buffer.getvalue()
