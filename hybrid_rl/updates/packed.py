"""Rows through a model in packs: no padding, and what rows share once (`hybrid_rl.backbones.pack`).

Legend: M = response tokens of all rows, B = rows, L = longest response.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.policy import Policy
from hybrid_rl.updates.head import target_logprobs
from hybrid_rl.updates.rows import ResponseLogprobs, Row, prompts_of, targets_of

_CACHED_TOKENS = 2048
"""On a CPU small groups are joined up to so many tokens: activations of more leave its caches (docs/models.md)."""


def packed_batches(rows: Sequence[Row], max_tokens: int, device: torch.device) -> list[list[int]]:
    """Split rows into packs of at most `max_tokens` tokens, by prompt (a single longer row stands alone).

    A prompt whose rows do not fit is split, and repeated in each part.
    """
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(id(row.inputs), []).append(index)
    parts = [part for group in groups.values() for part in _split(rows, group, max_tokens)]
    joined = max_tokens if device.type != "cpu" else min(max_tokens, _CACHED_TOKENS)
    batches: list[list[int]] = []
    room = 0
    # Stable, so that what is alike in size stays in the order it came.
    for part in sorted(parts, key=lambda part: -packed_tokens(rows, [part])):
        tokens = packed_tokens(rows, [part])
        if batches and tokens <= room:
            batches[-1] += part
            room -= tokens
        else:
            batches.append(list(part))
            room = joined - tokens
    return batches


def _split(rows: Sequence[Row], group: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows of one prompt, long ones first, in as few parts as fit one after the other."""
    parts: list[list[int]] = []
    for index in sorted(group, key=lambda i: -len(rows[i].response)):
        if parts and packed_tokens(rows, [[*parts[-1], index]]) <= max_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def packed_tokens(rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that are forwarded: each prompt of a batch once, and its responses."""
    tokens = 0
    for batch in batches:
        tokens += sum({id(rows[i].inputs): len(rows[i].inputs.ids) for i in batch}.values())
        tokens += sum(len(rows[i].response) for i in batch)
    return tokens


def packed_logprobs(policy: Policy, rows: Sequence[Row], vision: VisionMemory) -> ResponseLogprobs:
    """Forward rows once, in one pack."""
    backbone, device = policy.packing.backbone, policy.device
    assert backbone is not None
    prompts, prompt_of_row = prompts_of(rows)
    with policy.autocast():
        states_MD = backbone.packed_states(policy.model, prompts, prompt_of_row, [r.response for r in rows], vision)
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
