"""Packed rows are compared with padded ones before they are relied on: once a process, with and without pictures, and
with and without a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.policy import Policy
from hybrid_rl.updates.packed import packed_logprobs
from hybrid_rl.updates.padded import padded_logprobs
from hybrid_rl.updates.rows import ResponseLogprobs, Row
from hybrid_rl.updates.vision_once import LearningVision

_PROMPTS = 2
_PROBED = 3
"""About so many parameters have their gradients compared."""
_LARGEST = 2**22
"""Larger parameters are left out: their gradients are held twice."""


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """Attributes:
    logprob: largest difference of a log-probability, nats.
    gradient: largest difference of the gradients as a share of their norm.
    """

    logprob: float
    gradient: float


_TOLERANCES = {torch.float32: _Tolerance(1e-3, 1e-2), torch.bfloat16: _Tolerance(0.3, 0.3)}
"""Rounding stays far below these; a token that sees what it should not, or the wrong position, does not."""


def packs(policy: Policy, rows: Sequence[Row]) -> bool:
    """Whether these rows are forwarded packed: the policy can be, and its first rows of their kind agreed.

    Who only looks, as the reference of an adapter does before the first update, has not seen whether gradients agree:
    the first rows that are learned from are compared again.
    """
    packing = policy.packing
    if packing.backbone is None:
        return False
    with_pictures, learning = any(row.inputs.media for row in rows), torch.is_grad_enabled()
    kind = (with_pictures, learning)
    if kind not in packing.trusted:
        known = packing.trusted.get((with_pictures, not learning))
        settled = known is False or (known is True and not learning)
        packing.trusted[kind] = bool(known) if settled else _agrees(policy, _sample(rows, with_pictures))
    return packing.trusted[kind]


def _sample(rows: Sequence[Row], with_pictures: bool) -> list[Row]:
    """Few and short rows of different lengths, two to a prompt."""
    shortest: dict[int, Row] = {}
    for row in rows:
        if bool(row.inputs.media) == with_pictures:
            known = shortest.get(id(row.inputs))
            shortest[id(row.inputs)] = row if known is None or row.length < known.length else known
    chosen = sorted(shortest.values(), key=lambda row: row.length)[:_PROMPTS]
    halves = [Row(row.inputs, row.response[: (len(row.response) + 1) // 2], row.temperature) for row in chosen]
    return [row for pair in zip(chosen, halves, strict=True) for row in pair]


def _agrees(policy: Policy, rows: Sequence[Row]) -> bool:
    """Compare, and leave a notice where the two forms differ."""
    tolerance = _TOLERANCES.get(policy.compute_dtype, _TOLERANCES[torch.bfloat16])
    with _undisturbed(policy) as probe:
        # Both see the same features, whose own gradient is not asked for.
        vision = LearningVision()
        wanted, wanted_gradient = _measure(padded_logprobs(policy, rows, vision), probe)
        found, gradient = _measure(packed_logprobs(policy, rows, vision), probe)
    difference = float((found - wanted).abs().max())
    share = float((gradient - wanted_gradient).norm() / wanted_gradient.norm().clamp(min=1e-12))
    # Not a number fails both.
    if difference <= tolerance.logprob and share <= tolerance.gradient:
        return True
    kind = "with pictures" if any(row.inputs.media for row in rows) else "of text"
    policy.packing.notices.append(
        f"responses {kind} are padded, not packed, in the update: packed log-probabilities differ by {difference:.2g} "
        f"from padded ones and gradients by {share:.2g} of their norm; allowed are {tolerance.logprob:g} and "
        f"{tolerance.gradient:g}"
    )
    return False


@contextmanager
def _undisturbed(policy: Policy) -> Iterator[list[torch.nn.Parameter]]:
    """Without dropout, and where weights are trained with gradients: yields parameters to compare those of."""
    training, asked = policy.model.training, torch.is_grad_enabled()
    policy.model.eval()
    try:
        # Workers that only look call this in inference mode.
        with torch.inference_mode(False), torch.set_grad_enabled(asked):
            trained = [p for p in policy.trained_parameters().values() if p.requires_grad and p.numel() <= _LARGEST]
            yield trained[:: max(1, len(trained) // _PROBED)] if asked else []
    finally:
        policy.model.train(training)


def _measure(output: ResponseLogprobs, probe: Sequence[torch.nn.Parameter]) -> tuple[Tensor, Tensor]:
    """The log-probabilities, and the gradients of their sum, as vectors."""
    logprobs = output.logprobs_BL[output.mask_BL]
    if not probe or not logprobs.requires_grad:
        return logprobs.detach(), logprobs.new_zeros(1)
    found = torch.autograd.grad(logprobs.sum(), list(probe), allow_unused=True)
    return logprobs.detach(), torch.cat(
        [g.flatten().float() for g in found if g is not None] or [logprobs.new_zeros(1)]
    )
