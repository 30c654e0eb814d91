"""Log-probabilities of the responses that a step trains on, and of no others: those of dropped groups, without a score
or cut and masked would go through a model for nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hybrid_rl.algorithm.advantage import Group

Logprobs = Sequence[Sequence[tuple[float, ...]]]
"""For each group and sample, one value a token of the response, nats [L]."""


def of_trained(groups: Sequence[Group], ask: Callable[[Sequence[Group]], Logprobs]) -> list[list[tuple[float, ...]]]:
    """For each group and sample, what `ask` says of it; empty for samples without a trained token.

    Args:
        ask: is given groups that hold trained samples only; not called where there are none.
    """
    kept = [tuple(sample for sample in group.samples if any(sample.loss_mask)) for group in groups]
    wanted = [replace(group, samples=samples) for group, samples in zip(groups, kept, strict=True) if samples]
    answers = iter(value for values in (ask(wanted) if wanted else ()) for value in values)
    return [[next(answers) if any(sample.loss_mask) else () for sample in group.samples] for group in groups]
