"""Packed rows are compared with padded ones before they are relied on: once a process, with and without pictures, and
with and without a gradient. So are rows that are spread over packs, behind their prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.policy import Policy
from hybrid_rl.updates.packed import packed_batches, packed_logprobs
from hybrid_rl.updates.padded import micro_batches, padded_logprobs
from hybrid_rl.updates.pass_memory import PassMemory
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


_Forward = Callable[[Policy, Sequence[Row], PassMemory], ResponseLogprobs]
_TOLERANCES = {torch.float32: _Tolerance(1e-3, 1e-2), torch.bfloat16: _Tolerance(0.3, 0.3)}
"""Rounding stays far below these; a token that sees what it should not, or the wrong position, does not."""


def packs(policy: Policy, rows: Sequence[Row], max_tokens: int = 0) -> bool:
    """Whether these rows are forwarded packed: the policy can be, and its first rows of each of their kinds agreed.

    Who only looks, as the reference of an adapter does before the first update, has not seen whether gradients agree:
    the first rows that are learned from are compared again.

    Args:
        max_tokens: that a comparison may forward at once; 0 for no bound.
    """
    return policy.packing.backbone is not None and all(
        _trusted(policy, rows, with_pictures, max_tokens) for with_pictures in sorted({_shows(row) for row in rows})
    )


def _shows(row: Row) -> bool:
    return bool(row.inputs.media)


def _trusted(policy: Policy, rows: Sequence[Row], with_pictures: bool, max_tokens: int) -> bool:
    trusted, learning = policy.packing.trusted, torch.is_grad_enabled()
    kind = (with_pictures, learning)
    if kind not in trusted:
        known = trusted.get((with_pictures, not learning))
        settled = known is False or (known is True and not learning)
        sample = [] if settled else _sample([row for row in rows if _shows(row) == with_pictures], max_tokens)
        trusted[kind] = bool(known) if settled else _agrees(policy, sample, max_tokens)
    return trusted[kind]


def _sample(rows: Sequence[Row], max_tokens: int) -> list[Row]:
    """Few and short rows of different lengths, two to a prompt, cut so that these two fit into a pack."""
    shortest: dict[int, Row] = {}
    for row in rows:
        known = shortest.get(id(row.inputs))
        shortest[id(row.inputs)] = row if known is None or row.length < known.length else known
    pairs = []
    for row in sorted(shortest.values(), key=lambda row: row.length)[:_PROMPTS]:
        room = max(1, (max_tokens - len(row.inputs.ids)) // 2) if max_tokens else len(row.response)
        longer = row.response[:room]
        pairs += [Row(row.inputs, ids, row.temperature) for ids in (longer, longer[: (len(longer) + 1) // 2])]
    return pairs


def _agrees(policy: Policy, rows: Sequence[Row], max_tokens: int) -> bool:
    """Compare, and leave a notice where a form differs."""
    together = [list(range(len(rows)))]
    apart = micro_batches(rows, max_tokens) if max_tokens else together
    packed = packed_batches(rows, max_tokens) if max_tokens else together
    spread = [[i] for i in range(len(rows))]  # each prompt goes before its responses
    tolerance = _TOLERANCES.get(policy.compute_dtype, _TOLERANCES[torch.bfloat16])
    with _undisturbed(policy) as probe:
        # All see the same features, whose own gradient is not asked for.
        vision = LearningVision()

        def measured(forward: _Forward, batches: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
            memory = PassMemory(rows, batches, vision, cut=False)
            return _measure(rows, batches, lambda some: forward(policy, some, memory), probe, again=batches is spread)

        wanted, wanted_gradient = measured(padded_logprobs, apart)
        forms = [measured(packed_logprobs, batches) for batches in (packed, spread)]
    norm = wanted_gradient.norm().clamp(min=1e-12)
    differences = torch.tensor([(found - wanted).abs().max() for found, _ in forms])
    shares = torch.tensor([(gradient - wanted_gradient).norm() / norm for _, gradient in forms])
    # Not a number fails both.
    difference, share = float(differences.max()), float(shares.max())
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


def _measure(
    rows: Sequence[Row],
    batches: Sequence[Sequence[int]],
    forward: Callable[[Sequence[Row]], ResponseLogprobs],
    probe: Sequence[torch.nn.Parameter],
    *,
    again: bool,
) -> tuple[Tensor, Tensor]:
    """The log-probabilities of the rows in order, and the gradients of their sum, as vectors.

    Args:
        again: batches go backwards through what earlier ones went through, their prompt.
    """
    logprobs: dict[int, Tensor] = {}
    gradients = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in probe]
    for batch in batches:
        output = forward([rows[i] for i in batch])
        logprobs |= {i: output.logprobs_BL[b][output.mask_BL[b]].detach() for b, i in enumerate(batch)}
        total = output.logprobs_BL[output.mask_BL].sum()
        if not probe or not total.requires_grad:
            continue
        parts = torch.autograd.grad(total, list(probe), allow_unused=True, retain_graph=again)
        del output, total  # one batch in memory at a time
        for gradient, part in zip(gradients, parts, strict=True):
            if part is not None:
                gradient += part
    found = torch.cat([logprobs[i] for i in range(len(rows))])
    return found, torch.cat([gradient.flatten() for gradient in gradients] or [found.new_zeros(1)])
