"""Where the time of a step goes, against what the machine can do.

Operations are those of the decoder's linear layers, two for a multiply-add of each weight and token, and three times
that where gradients are computed (forward, to the input, to the weight: Kaplan et al., arXiv 2001.08361, section 2.1).
Attention and a vision tower are not counted, so that shares are a little too small, never too large. Bytes are those of
the weights that every pass of sampling reads; keys and values are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybrid_rl.machine.yardstick import Yardstick
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.updates.forward_figures import ForwardFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWork:
    """What a phase sent through the model.

    Attributes:
        tokens: positions with a token; a prompt that several responses share counts as often as it was forwarded.
        padded_tokens: positions without one.
        passes: 1 for forward alone, 3 with gradients.
        weight_reads: how often all weights were read for few tokens: steps of sampling.
        vision_encodes: images, or slices of images, that went through the vision tower.
        unique_images: different ones among them.
    """

    tokens: int
    padded_tokens: int = 0
    passes: int = 1
    weight_reads: int = 0
    vision_encodes: int = 0
    unique_images: int = 0


def phase_metrics(work: Mapping[str, PhaseWork], seconds: Mapping[str, float], machine: Yardstick) -> dict[str, float]:
    """Figures of the phases, by the names of `hybrid_rl.insight.names`; those that are not known are left out."""
    found: dict[str, float] = {}
    for phase, done in work.items():
        forwarded, took = done.tokens + done.padded_tokens, seconds.get(phase, 0.0)
        if forwarded:
            found[f"padding/{phase}"] = done.padded_tokens / forwarded
        if done.unique_images:
            found[f"encodes_per_image/{phase}"] = done.vision_encodes / done.unique_images
        if took <= 0 or not done.tokens:
            continue
        found[f"forwarded_per_s/{phase}"] = done.tokens / took
        if machine.peak_flops_per_s:
            operations = 2.0 * machine.linear_weights * done.tokens * done.passes
            found[f"peak_share/{phase}"] = operations / took / machine.peak_flops_per_s
        if machine.kernels.copy_bytes_per_s and done.weight_reads:
            read = float(machine.weight_bytes) * done.weight_reads
            found[f"bandwidth_share/{phase}"] = read / took / machine.kernels.copy_bytes_per_s
    return found


def sampling_work(figures: RolloutFigures) -> PhaseWork:
    """What the rollout engines of a step did."""
    return PhaseWork(
        tokens=figures.prefill_tokens + figures.row_steps,
        padded_tokens=figures.padded_tokens,
        weight_reads=figures.decode_steps,
        vision_encodes=figures.vision_encodes,
        unique_images=figures.unique_images,
    )


def forward_work(figures: ForwardFigures, *, trained: bool = False) -> PhaseWork:
    """What a pass over responses did, with gradients where it was `trained`."""
    return PhaseWork(
        tokens=figures.tokens,
        padded_tokens=figures.padded_tokens,
        passes=3 if trained else 1,
        vision_encodes=figures.vision_encodes,
        unique_images=figures.unique_images,
    )
