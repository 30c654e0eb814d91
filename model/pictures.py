"""Anything that is a picture to 8-bit RGB, or one clear error."""

from __future__ import annotations

import base64
import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 178_956_970
"""Largest picture that is decoded, half a gigabyte of RGB; Pillow refuses larger files too."""

_CHANNEL_COUNTS = (1, 3, 4)
_DATA_URL = re.compile(r"^data:image/[^,]*,|\s")
"""What surrounds the digits of base64 data."""
_MOVING = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose further pictures are frames, not pages."""
_TIMEOUT_S = 30.0
"""Seconds that a server may be silent."""
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises about damaged data, depending on the format."""


def nest(images: Any) -> list[list[Any]]:
    """Pictures as [sample][picture], whatever of the three accepted nestings they come in."""
    if images is None:
        return [[]]
    if not isinstance(images, list | tuple):
        return [[images]]
    if any(isinstance(sample, list | tuple) or sample is None for sample in images):
        return [list(s) if isinstance(s, list | tuple) else [] if s is None else [s] for s in images]
    return [list(images)]


def to_rgb(image: Any) -> Image.Image:
    """A picture as RGB: turned as its EXIF data say, its first frame if it moves, transparency dropped, not blended.

    Strings are file names, URLs or base64 data. Arrays may have their channels last or first; last wins where both
    would do, so that a picture three pixels high is not mistaken for three channels. Floats are taken as 0..1 (Pillow's
    own also as 0..255), 16-bit grey is cut to its upper 8 bits. A moving picture that was read further still shows its
    first frame; give a `copy()` of another.

    Raises:
        ValueError: not a picture, a damaged one, or one without pixels or with more than `MAX_PIXELS`.
    """
    if isinstance(image, Image.Image):
        return _pillow_to_rgb(image, getattr(image, "filename", "") or "An image")
    if isinstance(image, str | Path):
        return _load(str(image))
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        # numpy has no bfloat16.
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise ValueError(
        f"An image must be a Pillow image, a file name, a numpy array or a tensor, got {type(image).__name__}."
    )


def _load(source: str) -> Image.Image:
    # Of base64 data no `Path` can say that it is no file: it is too long for a name.
    if os.path.isfile(source):
        return _open(source, source, "is not an image of a known format")
    name = source if len(source) <= 200 else f"{source[:40]}..."
    if source.startswith(("http://", "https://")):
        return _open(BytesIO(_fetch(source, name)), name, "is not an image of a known format")
    nothing = "cannot be read as an image: there is no such file, and it is no URL or base64 data"
    return _open(BytesIO(_from_base64(source)), name, nothing)


def _fetch(url: str, name: str) -> bytes:
    try:
        return httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True).raise_for_status().content
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name} cannot be read as an image: {reason}.") from error


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(_DATA_URL.sub("", text), validate=True)
    except ValueError:
        return b""


def _open(source: str | BytesIO, name: str, unknown: str) -> Image.Image:
    """The picture of a file; `unknown` is what to say of one in no known format."""
    try:
        with Image.open(source) as opened:
            return _pillow_to_rgb(opened, name)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} {unknown}.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has more pixels than the limit of {MAX_PIXELS}.") from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read as an image: {error}.") from error


def _pillow_to_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(*image.size, name)
    if image.format in _MOVING and image.tell():
        return _first_frame(image, name)
    try:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.convert("RGBA")  # what Pillow asks for; the colours are the same
        if image.mode != "F" and not image.mode.startswith("I"):
            return image.convert("RGB")
    except _UNREADABLE as error:
        raise ValueError(f"{name} is damaged and cannot be decoded: {error}.") from error
    return _from_deep(np.asarray(image), name)


def _first_frame(image: Image.Image, name: str) -> Image.Image:
    """RGB of the first frame of a moving picture that stands at another one, and is left there."""
    frame = image.tell()
    try:
        image.seek(0)
        first = image.copy()
        image.seek(frame)
    except (*_UNREADABLE, AttributeError) as error:  # closed, a picture has no file to go back in
        raise ValueError(
            f"{name} stands at frame {frame} and cannot go back to its first; give a copy() of the frame."
        ) from error
    return _pillow_to_rgb(first, name)


def _from_deep(values: np.ndarray[Any, Any], name: str) -> Image.Image:
    """RGB of grey in 16 or 32 bits or in floats."""
    # Pillow's own conversion to floats keeps 0..255, files of floats hold 0..1; what is above 2 can only be the former.
    if values.dtype.kind == "f" and values.min() >= 0 and 2 <= values.max() <= 255:
        values = values.astype(np.uint8)
    try:
        return Image.fromarray(_to_bytes(values)).convert("RGB")
    except ValueError as error:
        raise ValueError(f"{name} has values that are no brightness; scale them first. {error}") from error


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{name} of {width} x {height} pixels has nothing to encode.")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} of {width} x {height} pixels has more than the limit of {MAX_PIXELS}; make it smaller first."
        )


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """RGB picture from [H, W], [H, W, C] or [C, H, W]."""
    shape = array.shape
    if array.size == 0:
        raise ValueError(f"An image of shape {shape} has nothing to encode.")
    if array.ndim == 3 and shape[2] not in _CHANNEL_COUNTS and shape[0] in _CHANNEL_COUNTS:
        array = array.transpose(1, 2, 0)
    elif array.ndim != 2 and not (array.ndim == 3 and shape[2] in _CHANNEL_COUNTS):
        raise ValueError(f"An image array must be [H, W], [H, W, C] or [C, H, W], got shape {shape}.")
    _check_size(array.shape[1], array.shape[0], "An image array")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(_to_bytes(array)).convert("RGB")


def _to_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Values of any type as 0..255.

    Raises:
        ValueError: values that are no brightness: no real numbers, not finite, negative, or beyond the range of their
            kind.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"An image array must hold real numbers, got values of type {array.dtype}.")
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        # A resampled picture may overshoot a little; what goes far beyond is on another scale.
        if not (np.isfinite(low) and np.isfinite(high) and low > -1 and high < 2):
            raise ValueError(f"An image array of floats must hold values from 0 to 1, got {low} to {high}.")
        # Truncated, not rounded: what the released processor does with floats.
        return (array * 255).clip(0, 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"An image array must hold values from 0 to 255, or 0 to 65535, got {low} to {high}.")
    if (array.dtype.kind, array.dtype.itemsize) == ("u", 2) or high > 255:  # in whichever byte order
        return (array >> 8).astype(np.uint8)
    return array.astype(np.uint8)
