"""Slices to encode: equal ones, a declared mix of sizes, and real pictures cut by the model's own image processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from model.image_processing import MiniCPMVImageProcessor

Grid = tuple[int, int]

MIXED_GRIDS: tuple[Grid, ...] = (
    (8, 8), (8, 10), (8, 12), (10, 10), (8, 16), (12, 12), (10, 16), (14, 14), (12, 20), (16, 16),
    (16, 20), (20, 20), (16, 30), (24, 24), (22, 32), (32, 32),
)  # fmt: skip
"""The declared mix: 16 slices of 64 to 1,024 patches in nearly equal steps of the logarithm, 4,968 patches in all."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Input of a vision tower."""

    strips: list[Tensor]
    """Per slice [3, P, P * L]."""
    grids: list[Grid]
    """Per slice (rows, columns) in patches."""

    @property
    def lengths(self) -> list[int]:
        """Patches of each slice."""
        return [rows * columns for rows, columns in self.grids]

    @property
    def padding_fraction(self) -> float:
        """Share of a padded batch that is padding."""
        return 1 - sum(self.lengths) / (len(self.grids) * max(self.lengths))


def random_slices(grids: list[Grid], patch_size: int = 14) -> Slices:
    """Noise in these shapes: the arithmetic is the same as for pictures."""
    generator = torch.Generator().manual_seed(0)
    strips = [torch.randn(3, patch_size, patch_size * r * c, generator=generator) for r, c in grids]
    return Slices(strips, grids)


def real_slices(processor: MiniCPMVImageProcessor) -> Slices:
    """Photographs, strips of handwritten digits and thumbnails, with the slices that the processor cuts them into."""
    cut = processor.preprocess([real_pictures()])
    grids = [(rows, columns) for rows, columns in cut["tgt_sizes"][0].tolist()]
    return Slices(list(cut["pixel_values"][0]), grids)


def real_pictures() -> list[Image.Image]:
    """Pictures that scikit-learn and matplotlib bring along."""
    samples = Path(matplotlib.get_data_path()) / "sample_data"
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    photos.append(Image.open(samples / "grace_hopper.jpg").convert("RGB"))
    thumbnails = [photo.resize((photo.width // 8, photo.height // 8)) for photo in photos]
    return [*photos, *thumbnails, _strip_of_digits(12), _strip_of_digits(30)]


def _strip_of_digits(count: int) -> Image.Image:
    """A line of handwritten digits, 32 pixels high."""
    digits = torch.from_numpy(load_digits().images[:count])
    row = torch.cat(list(digits), dim=1) * (255 / 16)
    return Image.fromarray((255 - row).byte().numpy()).resize((32 * count, 32)).convert("RGB")
