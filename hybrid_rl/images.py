"""References to images. A prompt carries references; whoever needs pixels opens them, in its own process."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageStat, UnidentifiedImageError

from hybrid_rl.errors import DataError


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
    """Decode an image to RGB.

    Raises:
        DataError: the file is missing, or its content is not a complete image.
    """
    data = ref.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's own words for this case show the address of the buffer.
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"image {ref.name} cannot be decoded ({reason}); replace or remove it") from error


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
