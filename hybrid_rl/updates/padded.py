"""Rows [padding | prompt | response | padding] through a model (`hybrid_rl.backbones.layout`).

The form that every model takes, and the yardstick of the packed one. A prompt that several rows share has its images
encoded once.

Legend: B = rows, L = longest response, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybrid_rl.policy import Policy
from hybrid_rl.updates.pass_memory import PassMemory
from hybrid_rl.updates.rows import ResponseLogprobs, Row, prompts_of, targets_of

_LOGITS_AT_ONCE = 2**27
"""Logits whose distributions are computed at once: half a gigabyte in float32."""


def micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Split rows into batches of at most `max_tokens` padded tokens (a single longer row stands alone).

    Rows are taken longest first, so that rows of like length share a batch; those of one prompt stay neighbours.
    """
    longest: dict[int, int] = {}
    for row in rows:
        longest[id(row.inputs)] = max(longest.get(id(row.inputs), 0), row.length)
    first = {id(row.inputs): i for i, row in reversed(list(enumerate(rows)))}
    order = sorted(range(len(rows)), key=lambda i: (-longest[id(rows[i].inputs)], first[id(rows[i].inputs)], i))
    batches: list[list[int]] = []
    prompt = response = 0
    for index in order:
        row = rows[index]
        new_prompt, new_response = max(prompt, len(row.inputs.ids)), max(response, len(row.response))
        if batches and (len(batches[-1]) + 1) * (new_prompt + new_response) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            new_prompt, new_response = len(row.inputs.ids), len(row.response)
        prompt, response = new_prompt, new_response
    return batches


def padded_tokens(rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that are forwarded, padding included."""
    return sum(
        len(batch) * (max(len(rows[i].inputs.ids) for i in batch) + max(len(rows[i].response) for i in batch))
        for batch in batches
    )


def padded_logprobs(policy: Policy, rows: Sequence[Row], memory: PassMemory) -> ResponseLogprobs:
    """Forward rows once, padded together."""
    prompts, prompt_of_row = prompts_of(rows)
    logits_BLV = policy.response_logits(prompts, prompt_of_row, [row.response for row in rows], memory.vision)
    device = logits_BLV.device
    temperatures_B11 = torch.tensor([row.temperature for row in rows], device=device)[:, None, None]
    targets_BL, mask_BL = targets_of(rows)
    mask_BL = mask_BL.to(device)
    logprobs_BL, entropy_BL = _figures(policy, logits_BLV, temperatures_B11, targets_BL.to(device))
    return ResponseLogprobs(
        logprobs_BL=torch.where(mask_BL, logprobs_BL, 0.0),
        entropy_BL=torch.where(mask_BL, entropy_BL, 0.0),
        mask_BL=mask_BL,
    )


def _figures(policy: Policy, logits_BLV: Tensor, temperatures_B11: Tensor, targets_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, both [B, L].

    A distribution takes several float32 copies of its logits. Many are computed a few columns at a time, and once more
    in the backward pass, so that the copies of one piece are all that is held.
    """

    def piece(logits_BLV: Tensor, targets_BL: Tensor) -> tuple[Tensor, Tensor]:
        logprobs_BLV = policy.logprobs(logits_BLV, temperatures_B11)
        with torch.no_grad():
            # Forbidden ids have log-probability -inf and add nothing: 0 * -inf must read as 0.
            entropy_BL = -(logprobs_BLV.exp() * logprobs_BLV.clamp(min=-1e4)).sum(-1)
        return logprobs_BLV.gather(-1, targets_BL[..., None])[..., 0], entropy_BL

    B, _, V = logits_BLV.shape
    if logits_BLV.numel() <= _LOGITS_AT_ONCE:
        return piece(logits_BLV, targets_BL)
    columns = max(1, _LOGITS_AT_ONCE // (B * V))
    pieces = zip(logits_BLV.split(columns, dim=1), targets_BL.split(columns, dim=1), strict=True)
    found = [checkpoint(piece, logits, targets, use_reentrant=False) for logits, targets in pieces]
    return torch.cat([logprobs for logprobs, _ in found], dim=1), torch.cat([entropy for _, entropy in found], dim=1)
