"""Media arguments of the model: per-sample lists, checked and put into one shape.

A batch carries, for each sample, its slices (`pixel_values`), their shapes (`tgt_sizes`), the packages they form
(`temporal_ids`) and the token spans that the packages fill (`image_bound`). Samples without media have empty lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .resampler import STILL

PixelValues = Sequence[Sequence[Tensor]]
"""[sample][slice] of [C, P, P * L]."""
SliceSizes = Sequence[Any]
"""[sample] of integers [num_slices, 2], (rows, columns) in patches."""
Packages = Sequence[Sequence[Sequence[int]]]
"""[sample][package] of the ticks of its frames, in tenths of a second; [-1] for a picture."""
Spans = Sequence[Any]
"""[sample] of integers [num_packages, 2], first placeholder token and the one after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaBatch:
    """All slices of a batch in a row, and how they group."""

    strips: list[Tensor]
    grids: list[tuple[int, int]]
    packages: list[list[int]]
    packages_per_sample: list[int]

    @classmethod
    def of(cls, pixel_values: PixelValues, tgt_sizes: SliceSizes, temporal_ids: Packages | None) -> MediaBatch:
        """Flatten per-sample lists.

        Raises:
            ValueError: the lists disagree about the number of samples, slices or frames.
        """
        temporal = [None] * len(pixel_values) if temporal_ids is None else list(temporal_ids)
        if not len(pixel_values) == len(tgt_sizes) == len(temporal):
            raise ValueError(
                f"pixel_values, tgt_sizes and temporal_ids describe {len(pixel_values)}, {len(tgt_sizes)} and "
                f"{len(temporal)} samples."
            )
        strips: list[Tensor] = []
        grids: list[tuple[int, int]] = []
        packages: list[list[int]] = []
        counts: list[int] = []
        for sample, (slices, sizes, ticks) in enumerate(zip(pixel_values, tgt_sizes, temporal, strict=True)):
            shapes = [(int(rows), int(columns)) for rows, columns in _pairs(sizes)]
            # A sample without media may carry a stand-in package; it has nothing to describe.
            groups = [[STILL]] * len(slices) if not ticks or not len(slices) else [list(map(int, g)) for g in ticks]
            if not len(slices) == len(shapes) == sum(map(len, groups)):
                raise ValueError(
                    f"Sample {sample} has {len(slices)} slices, {len(shapes)} sizes and temporal ids for "
                    f"{sum(map(len, groups))} slices."
                )
            strips += slices
            grids += shapes
            packages += groups
            counts.append(len(groups))
        return cls(strips=strips, grids=grids, packages=packages, packages_per_sample=counts)


def span_positions(image_bound: Spans, features: Sequence[Tensor], seq_len: int) -> tuple[Tensor, Tensor]:
    """Where features go in a [B, T] batch: (sample index, token index), each [num_feature_rows] long, on the CPU.

    Raises:
        ValueError: spans and features of a sample differ in number or length, or a span leaves the sequence.
    """
    if len(image_bound) != len(features):
        raise ValueError(f"image_bound describes {len(image_bound)} samples, the media {len(features)}.")
    samples: list[Tensor] = []
    tokens: list[Tensor] = []
    for sample, (bounds, rows) in enumerate(zip(image_bound, features, strict=True)):
        spans = _pairs(bounds)
        if len(spans) != rows.shape[0]:
            raise ValueError(f"Sample {sample} has {len(spans)} placeholder spans for {rows.shape[0]} image features.")
        for start, stop in spans:
            if stop - start != rows.shape[1] or start < 0 or stop > seq_len:
                raise ValueError(
                    f"Sample {sample} has a placeholder span from {start} to {stop} in a sequence of {seq_len} "
                    f"tokens, which cannot hold {rows.shape[1]} features."
                )
            samples.append(torch.full((stop - start,), sample))
            tokens.append(torch.arange(start, stop))
    if not samples:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    return torch.cat(samples), torch.cat(tokens)


def _pairs(values: Any) -> list[tuple[int, int]]:
    """Rows of an [n, 2] tensor, array or list as plain integers."""
    rows = values.tolist() if hasattr(values, "tolist") else values
    return [(int(first), int(second)) for first, second in rows]
