"""Log-probabilities of responses under a policy, for training, reference and supervised stages alike.

Rows are forwarded packed (`packed`) where the policy can be, and padded (`padded`) elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.errors import DataError
from hybrid_rl.policy import Policy
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.updates.packed import PackSizes, packed_batches, packed_logprobs
from hybrid_rl.updates.padded import micro_batches, padded_logprobs
from hybrid_rl.updates.pass_memory import PassMemory
from hybrid_rl.updates.rows import ResponseLogprobs, Row
from hybrid_rl.updates.self_check import packs


def batches_of(policy: Policy, rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Split rows into micro-batches of at most `max_tokens` tokens (a single longer row stands alone).

    Rows that are packed and rows that are padded share none: a pack that went padded would be over the bound.
    """
    kinds = {shows: [i for i, row in enumerate(rows) if bool(row.inputs.media) == shows] for shows in (False, True)}
    forms: dict[bool, list[int]] = {True: [], False: []}
    for members in kinds.values():
        forms[packs(policy, [rows[i] for i in members], max_tokens)] += members
    batches, sizes = [], PackSizes.of(policy)
    for packed, members in forms.items():
        members.sort()
        chosen = [rows[i] for i in members]
        parts = packed_batches(chosen, max_tokens, sizes) if packed else micro_batches(chosen, max_tokens)
        batches += [[members[place] for place in part] for part in parts]
    return batches


def forms_of(policy: Policy, rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> list[bool]:
    """For each of these micro-batches, whether it is packed."""
    return [packs(policy, [rows[i] for i in batch]) for batch in batches]


def response_logprobs(policy: Policy, rows: Sequence[Row], memory: PassMemory | None = None) -> ResponseLogprobs:
    """Forward rows once.

    Args:
        memory: of the calls that belong to one pass, each with one of its micro-batches; None for this call alone.
            Prompts whose micro-batches are over go backwards first.
    """
    memory = memory or PassMemory()
    memory.settle()
    forward = packed_logprobs if packs(policy, rows) else padded_logprobs
    return forward(policy, rows, memory)


def check_budget(rows: Sequence[Row], max_tokens: int) -> None:
    """Check that each row fits into a micro-batch.

    Raises:
        DataError: names the longest that does not.
    """
    longest = max(rows, key=lambda row: row.length, default=None)
    if longest is not None and longest.length > max_tokens:
        raise DataError(
            f"{longest.name} has {longest.length} tokens with its prompt, more than train.max_tokens_per_micro_batch "
            f"({max_tokens}); raise it"
        )


def group_logprobs(
    policy: Policy, groups: Sequence[Group], max_tokens: int, figures: ForwardFigures | None = None
) -> list[list[tuple[float, ...]]]:
    """Log-probability of each token of each sample of each group, in nats, without a gradient.

    Args:
        figures: where what went through the model is added.

    Raises:
        DataError: a prompt and its response are longer than `max_tokens`.
    """
    rows = [row for group in groups for row in group_rows(policy, group)]
    check_budget(rows, max_tokens)
    found: list[tuple[float, ...]] = [()] * len(rows)
    with torch.inference_mode():
        batches = batches_of(policy, rows, max_tokens)
        memory = PassMemory(rows, batches)
        for batch in batches:
            logprobs_BL = response_logprobs(policy, [rows[i] for i in batch], memory).logprobs_BL.tolist()
            for index, values in zip(batch, logprobs_BL, strict=True):
                found[index] = tuple(values[: len(rows[index].response)])
    if figures is not None:
        figures.add(rows, batches, memory.vision, packed=forms_of(policy, rows, batches))
    iterator = iter(found)
    return [[next(iterator) for _ in group.samples] for group in groups]


def group_rows(policy: Policy, group: Group) -> list[Row]:
    """The responses of a group behind their prompt."""
    request = group.samples[0].rollout.request
    inputs = policy.format.inputs(request.prompt, request.mode)
    return [
        Row(
            inputs,
            sample.rollout.generation.ids,
            sample.rollout.request.temperature,
            f"response {sample.rollout.request.index} to prompt {request.prompt.id} of source {request.prompt.source} "
            f"in mode {request.mode}",
        )
        for sample in group.samples
    ]
