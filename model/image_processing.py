"""Pictures to packed slices: cut as `slicing` plans, normalise, and lay the patches side by side.

Packing (NaViT, arXiv 2307.06304): a slice of R x S patches becomes a strip [3, P, P * R * S] in which patch j, counted
row by row, fills columns P*j to P*j + P - 1. Strips of differently shaped slices differ in length only.

Shape suffixes: C colour channels, H and W pixels, P pixels of a patch side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .pictures import nest, to_rgb
from .slicing import SlicePlan, plan_slices


class MiniCPMVImageProcessor(BaseImageProcessor):
    """Slice, normalise and pack pictures. Field names and defaults are those of released preprocessor_config.json.

    Args:
        max_slice_nums: most cells of the grid a picture is cut into; 1 shows every picture as one view.
        scale_resolution: side in pixels of the square whose area one slice has.
        patch_size: side of a patch in pixels.
        image_feature_size: tokens one slice becomes; the model's `query_num`.
        use_image_id: number the pictures of a conversation in the prompt.
        norm_mean, norm_std: per channel, subtracted and divided after scaling to 0..1.
    """

    model_input_names = ["pixel_values", "tgt_sizes"]  # noqa: RUF012 (transformers declares it on instances)

    def __init__(
        self,
        max_slice_nums: int = 9,
        scale_resolution: int = 448,
        patch_size: int = 14,
        image_feature_size: int = 64,
        use_image_id: bool = True,
        norm_mean: Sequence[float] = (0.5, 0.5, 0.5),
        norm_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_slice_nums = max_slice_nums
        self.scale_resolution = scale_resolution
        self.patch_size = patch_size
        self.image_feature_size = image_feature_size
        self.use_image_id = use_image_id
        self.norm_mean = list(norm_mean)
        self.norm_std = list(norm_std)

    def plan(self, width: int, height: int, max_slice_nums: int | None = None) -> SlicePlan:
        """How a picture of this size in pixels is cut; `max_slice_nums` replaces the processor's own.

        Raises:
            ValueError: a picture without pixels.
        """
        return plan_slices(
            width,
            height,
            max_slice_nums=self.max_slice_nums if max_slice_nums is None else max_slice_nums,
            scale_resolution=self.scale_resolution,
            patch_size=self.patch_size,
        )

    def slices(self, image: Image.Image, plan: SlicePlan) -> list[Tensor]:
        """Packed slices [C, P, P * L] float32 of an RGB picture, overview first.

        Every size is resampled from the original, bicubic with antialiasing.
        """
        views = [image.resize(plan.source, Image.Resampling.BICUBIC)]
        if plan.refined is not None and plan.cell is not None and plan.grid is not None:
            refined = image.resize(plan.refined, Image.Resampling.BICUBIC)
            width, height = plan.cell
            views += [
                refined.crop((column * width, row * height, (column + 1) * width, (row + 1) * height))
                for row in range(plan.grid[1])
                for column in range(plan.grid[0])
            ]
        return [self.pack(self._normalise(view)) for view in views]

    def pack(self, pixels_CHW: Tensor) -> Tensor:
        """[C, H, W], both sides whole patches, to a strip [C, P, P * L] of L patches."""
        side = self.patch_size
        rows, columns = pixels_CHW.shape[1] // side, pixels_CHW.shape[2] // side
        patches = pixels_CHW.reshape(-1, rows, side, columns, side)
        return patches.transpose(1, 2).reshape(-1, side, rows * columns * side)

    def preprocess(
        self,
        images: Any,
        max_slice_nums: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Pictures of a batch to the model's media arguments.

        Args:
            images: one picture, a list of pictures (one sample) or a list of lists (one per sample; None for a
                sample without). Pillow images, file names, numpy arrays or tensors; see `to_rgb`.
            max_slice_nums: replaces the processor's own.
            return_tensors: accepted for compatibility; slices differ in shape, so lists of tensors come back anyway.

        Returns:
            `pixel_values` [sample][slice] of [3, P, P * L] float32, `tgt_sizes` [sample] of int64 [num_slices, 2]
            and `image_sizes` [sample] of (width, height).

        Raises:
            ValueError: a picture without pixels, or what is no picture.
        """
        batches = [[to_rgb(image) for image in sample] for sample in nest(images)]
        pixel_values: list[list[Tensor]] = []
        tgt_sizes: list[Tensor] = []
        for sample in batches:
            plans = [self.plan(*image.size, max_slice_nums) for image in sample]
            pixel_values.append(
                [s for image, plan in zip(sample, plans, strict=True) for s in self.slices(image, plan)]
            )
            grids = [grid for plan in plans for grid in plan.patch_grids(self.patch_size)]
            tgt_sizes.append(torch.tensor(grids, dtype=torch.long).reshape(-1, 2))
        sizes = [[image.size for image in sample] for sample in batches]
        return BatchFeature({"pixel_values": pixel_values, "tgt_sizes": tgt_sizes, "image_sizes": sizes})

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """See `preprocess`."""
        return self.preprocess(images, *args, **kwargs)

    def _normalise(self, image: Image.Image) -> Tensor:
        """RGB picture to float32 [C, H, W]."""
        pixels_HWC = np.asarray(image)
        table = _normalised_bytes(tuple(self.norm_mean), tuple(self.norm_std))
        out_CHW = np.empty((3, image.height, image.width), dtype=np.float32)
        for channel in range(3):
            np.take(table[channel], pixels_HWC[:, :, channel], out=out_CHW[channel], mode="clip")
        return torch.from_numpy(out_CHW)


@lru_cache(maxsize=8)
def _normalised_bytes(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[C, 256]: what each byte of a channel becomes. Looking it up is faster than computing it for every pixel."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None]
