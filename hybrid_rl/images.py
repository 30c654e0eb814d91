"""References to images. A prompt carries references; whoever needs pixels opens them, in its own process."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageStat, UnidentifiedImageError

from hybrid_rl.errors import DataError
from hybrid_rl.kept_media import MEDIA

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""What decoding a file may raise, depending on its format and damage."""


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An encoded image (PNG, JPEG ...) held in memory."""

    data: bytes
    name: str = "inline image"

    def read_bytes(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image in a file; read when it is needed, never copied into records."""

    path: str

    @property
    def name(self) -> str:
        return self.path

    def read_bytes(self) -> bytes:
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise DataError(f"image {self.path} cannot be read: {error.strerror or error}; check the path") from error


ImageRef = InlineImage | FileImage


def open_image(ref: ImageRef) -> Image.Image:
    """An image as RGB; see `upright_rgb`. Decoded once for its content (`hybrid_rl.kept_media`); a copy, to change.

    Raises:
        DataError: the file is missing, its content is not a complete image, or it holds no brightness.
    """
    data = ref.read_bytes()
    return MEDIA.get(("image", digest(data)), lambda: _decode(data, ref)).copy()


def image_digest(ref: ImageRef) -> bytes:
    """The same for images of the same content."""
    return digest(ref.read_bytes())


def digest(data: bytes) -> bytes:
    """Of the bytes of an image."""
    return hashlib.blake2b(data, digest_size=16).digest()


def _decode(data: bytes, ref: ImageRef) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return upright_rgb(image)
    except UNREADABLE as error:
        # Pillow's own words for this case show the address of the buffer.
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"image {ref.name} cannot be decoded ({reason}); replace or remove it") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB of 8 bits, turned as its EXIF data say.

    Grey of 16 bits is cut to its upper 8, grey of 32 bits taken as 0..255 or 0..65535, floats as 0..1 or 0..255.

    Raises:
        ValueError: values on another scale.
        OSError, SyntaxError: a damaged image.
    """
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # what Pillow asks for; the colours are the same
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    return image.convert("RGB")


def _to_bytes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Brightness of deeper kinds as 0..255."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        scale, fits = (255, low > -1) if high < 2 else (1, low >= 0 and high <= 255)
        if not fits:  # also where a value is no number
            raise ValueError(f"its floats must be from 0 to 1, or 0 to 255, and are {low:g} to {high:g}")
        return (values * scale).clip(0, 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"its values must be from 0 to 255, or 0 to 65535, and are {low} to {high}")
    is_deep = values.dtype.itemsize == 2 or high > 255
    return (values >> 8 if is_deep else values).astype(np.uint8)


def inline_png(image: Image.Image) -> InlineImage:
    """Encode an image as PNG and hold it in memory."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)  # fast; these images are small and short-lived
    return InlineImage(buffer.getvalue())


def blanked(ref: ImageRef) -> InlineImage:
    """The image without what it shows: the same size, all of it in its mean grey."""
    image = open_image(ref)
    grey = round(ImageStat.Stat(image.convert("L")).mean[0])
    return inline_png(Image.new("RGB", image.size, (grey, grey, grey)))


def content_name(ref: ImageRef) -> str:
    """A file name for the image made of its content, so that equal images share one file."""
    data = ref.read_bytes()
    suffix = Path(ref.path).suffix.lower() if isinstance(ref, FileImage) else ".png"
    return hashlib.sha256(data).hexdigest()[:24] + suffix
