"""Rows through a model in packs: no padding, and what rows share once (`hybrid_rl.backbones.pack`).

A group that does not fit into one pack is spread over several, behind its prompt, which goes before (`pass_memory`).

Legend: M = response tokens of all rows, B = rows, L = longest response.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hybrid_rl.policy import Policy
from hybrid_rl.updates.head import target_logprobs
from hybrid_rl.updates.pass_memory import PassMemory
from hybrid_rl.updates.rows import ResponseLogprobs, Row, prompts_of, targets_of


@dataclass(frozen=True, slots=True)
class PackSizes:
    """How large packs are made where larger ones would still fit.

    Attributes:
        joined: tokens up to which small groups are joined.
        part: about how many tokens of responses a group is forwarded at a time that has more than two such parts; for
            fewer the prompt's own pass costs more than it saves.
    """

    joined: int
    part: int

    @classmethod
    def of(cls, policy: Policy) -> PackSizes | None:
        """For a CPU, where larger packs take more memory and gain little (docs/performance.md); None elsewhere."""
        if policy.device.type != "cpu":
            return None
        # A layer's states are of one size in all narrow models, 1 MiB in float32; fewer tokens make poor products.
        part = max(512, 2**18 // policy.model.get_input_embeddings().weight.shape[1])
        return cls(2 * part, part)


def packed_batches(rows: Sequence[Row], max_tokens: int, sizes: PackSizes | None = None) -> list[list[int]]:
    """Split rows into packs of at most `max_tokens` tokens, by prompt (a single longer row stands alone).

    A prompt whose rows do not fit is split into neighbouring packs. Its own tokens count in each: they stay in memory.
    """
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(id(row.inputs), []).append(index)
    split = [_split(rows, group, max_tokens, sizes) for group in groups.values()]
    batches = [part for parts in split if len(parts) > 1 for part in parts]
    room = 0
    # Stable, so that what is alike in size stays in the order it came.
    whole = [parts[0] for parts in split if len(parts) == 1]
    for group in sorted(whole, key=lambda group: -packed_tokens(rows, [group])):
        tokens = packed_tokens(rows, [group])
        if tokens <= room:
            batches[-1] += group
            room -= tokens
        else:
            batches.append(list(group))
            room = (min(max_tokens, sizes.joined) if sizes else max_tokens) - tokens
    return batches


def _split(rows: Sequence[Row], group: Sequence[int], max_tokens: int, sizes: PackSizes | None) -> list[list[int]]:
    """Rows of one prompt in parts of like size, about as few as fit."""
    total = sum(len(rows[i].response) for i in group)
    room = max(1, max_tokens - len(rows[group[0]].inputs.ids))
    wanted = round(total / sizes.part) if sizes and total > 2 * sizes.part else 1
    count = max(1, math.ceil(total / room), wanted)
    while count < len(group):
        parts = _dealt(rows, group, count)
        if all(packed_tokens(rows, [part]) <= max_tokens for part in parts):
            return parts
        count += 1
    return [[i] for i in sorted(group, key=lambda i: -len(rows[i].response))]


def _dealt(rows: Sequence[Row], group: Sequence[int], count: int) -> list[list[int]]:
    """Rows, long ones first, each to the part that has the fewest tokens."""
    parts: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for index in sorted(group, key=lambda i: -len(rows[i].response)):
        smallest = tokens.index(min(tokens))
        parts[smallest].append(index)
        tokens[smallest] += len(rows[index].response)
    return [part for part in parts if part]


def packed_tokens(rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that are forwarded: each prompt once, and its responses."""
    prompts = {id(rows[i].inputs): len(rows[i].inputs.ids) for batch in batches for i in batch}
    return sum(prompts.values()) + sum(len(rows[i].response) for batch in batches for i in batch)


def packed_logprobs(policy: Policy, rows: Sequence[Row], memory: PassMemory) -> ResponseLogprobs:
    """Forward rows once, in one pack."""
    device = policy.device
    with policy.autocast():
        states_MD = _states(policy, rows, memory)
    targets_BL, mask_BL = (x.to(device) for x in targets_of(rows))
    temperatures_B1 = torch.tensor([row.temperature for row in rows], device=device)[:, None]
    logprobs_M, entropy_M = target_logprobs(
        policy, states_MD, targets_BL[mask_BL], temperatures_B1.expand_as(targets_BL)[mask_BL]
    )
    empty_BL = torch.zeros(mask_BL.shape, device=device)
    return ResponseLogprobs(
        logprobs_BL=empty_BL.masked_scatter(mask_BL, logprobs_M),
        entropy_BL=empty_BL.masked_scatter(mask_BL, entropy_M),
        mask_BL=mask_BL,
    )


def _states(policy: Policy, rows: Sequence[Row], memory: PassMemory) -> torch.Tensor:
    """What the vocabulary head reads for each response token [M, D]."""
    backbone, model = policy.packing.backbone, policy.model
    assert backbone is not None
    responses = [row.response for row in rows]
    if not memory.is_part(rows):
        prompts, prompt_of_row = prompts_of(rows)
        return backbone.packed_states(model, prompts, prompt_of_row, responses, memory.vision)
    item = rows[0].inputs
    kept = memory.take_prompt(rows, lambda: backbone.keep_prompt(model, item, memory.vision))
    return backbone.states_behind(model, kept, item, responses)
