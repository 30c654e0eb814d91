"""Samples to model inputs: the text of each with its pictures and videos in place, their slices, and padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from .batching import order_by_package, packages_of, refuse_longer, sequences
from .chat_template import VIDEO_PLACEHOLDER
from .image_processing import MiniCPMVImageProcessor
from .messages import VideoRequest
from .prompt import EncodeAll, EncodedPrompt, LiteralText, Piece, encode_pieces, interleave, placeholders_of
from .video_sampling import VideoOptions
from .visuals import Visual, arranged, picture_visuals, video_visual


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """Options of one call, for all its samples."""

    max_slice_nums: int | None = None
    use_image_id: bool | None = None
    temporal_ids: Any = None
    videos_kwargs: Mapping[str, Any] | None = None
    padding: bool | str | None = None
    padding_side: str = "left"
    max_length: int | None = None
    return_tensors: str | None = None

    @property
    def padded(self) -> bool:
        """Tensors need equal lengths, so asking for them pads."""
        return self.padding not in (None, False, "do_not_pad") or self.return_tensors is not None

    @property
    def min_length(self) -> int:
        """Tokens to pad to at least.

        Raises:
            ValueError: padding to a maximum that is not given.
        """
        if self.padding != "max_length":
            return 0
        if self.max_length is None:
            raise ValueError('padding="max_length" needs max_length.')
        return self.max_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembler:
    """What all batches of a processor share."""

    image_processor: MiniCPMVImageProcessor
    encode_all: EncodeAll
    literal: LiteralText
    """Guards text against markers."""
    placeholder_id: int
    pad_id: int
    videos: VideoOptions

    def batch(
        self,
        texts: Sequence[list[str]],
        images: list[list[Any]],
        videos: Sequence[Sequence[VideoRequest]],
        options: CallOptions,
    ) -> BatchFeature:
        """Inputs of samples whose text comes as runs to tokenise one by one.

        Raises:
            ValueError: as `MiniCPMVProcessor.__call__`.
        """
        for name, samples in (("images", images), ("videos", videos)):
            if len(samples) != len(texts):
                raise ValueError(f"There are {name} for {len(samples)} samples and text for {len(texts)}.")
        video_options = self.videos.with_changes(options.videos_kwargs)
        plan, numbered = self.image_processor.plan, options.use_image_id
        numbered = self.image_processor.use_image_id if numbered is None else numbered
        packages = packages_of(options.temporal_ids, images)
        prompts: list[EncodedPrompt] = []
        placed: list[list[Visual]] = []
        for runs, sample, groups, requests in zip(texts, images, packages, videos, strict=True):
            pictures = picture_visuals(sample, groups, plan, options.max_slice_nums)
            films = [video_visual(request, plan, video_options) for request in requests]
            prompt, order = self._prompt(runs, pictures, films, numbered)
            prompts.append(prompt)
            placed.append(order)
        refuse_longer(prompts, options.max_length)
        text = sequences(
            prompts,
            self.pad_id,
            padding_side=options.padding_side,
            padded=options.padded,
            min_length=options.min_length,
            return_tensors=options.return_tensors,
        )
        # Pixels come last: whatever is wrong with the prompts has been said before a film is decoded.
        return BatchFeature({**text, **self._media(placed)})

    def _prompt(
        self, runs: list[str], pictures: Sequence[Visual], videos: Sequence[Visual], numbered: bool
    ) -> tuple[EncodedPrompt, list[Visual]]:
        """Ids and spans of one sample, and its visuals in the order of the text."""
        # Cuts never fall inside a placeholder of ours, so each run holds whole ones.
        places = [placeholders_of(run) for run in runs]
        visuals = arranged([place for run in places for place in run], pictures, videos)
        width = self.image_processor.image_feature_size
        shown: list[list[Piece] | None] = []
        number = 0
        for visual in visuals:
            if visual is None:
                shown.append(None)
                continue
            is_video = visual.placeholder == VIDEO_PLACEHOLDER
            shown.append(visual.pieces(width, number if numbered and not is_video else None))
            number += 0 if is_video else visual.num_places
        pieces: list[Piece] = []
        for run, inside in zip(runs, places, strict=True):
            pieces += interleave(run, shown[: len(inside)], self.literal)
            shown = shown[len(inside) :]
        prompt = encode_pieces(pieces, self.encode_all, self.placeholder_id)
        return prompt, [visual for visual in visuals if visual is not None]

    def _media(self, samples: Sequence[Sequence[Visual]]) -> dict[str, list[Any]]:
        """`pixel_values`, `tgt_sizes` and `temporal_ids` of a batch."""
        media: dict[str, list[Any]] = {"pixel_values": [], "tgt_sizes": [], "temporal_ids": []}
        for visuals in samples:
            strips: list[Tensor] = []
            sizes: list[tuple[int, int]] = []
            ticks: list[list[int]] = []
            for visual in visuals:
                slices = [
                    self.image_processor.slices(frame, plan)
                    for frame, plan in zip(visual.frames, visual.plans, strict=True)
                ]
                grids = [plan.patch_grids(self.image_processor.patch_size) for plan in visual.plans]
                order, of_packages = order_by_package([len(s) for s in slices], visual.packages)
                strips += [slices[frame][i] for frame, i in order]
                sizes += [grids[frame][i] for frame, i in order]
                ticks += of_packages
            media["pixel_values"].append(strips)
            media["tgt_sizes"].append(torch.tensor(sizes, dtype=torch.long).reshape(-1, 2))
            media["temporal_ids"].append(ticks)
        return media
