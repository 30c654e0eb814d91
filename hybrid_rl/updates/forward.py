"""Log-probabilities of responses under a policy, for training, reference and supervised stages alike.

A batch holds rows [padding | prompt | response | padding] (`hybrid_rl.backbones.layout`). A prompt that several rows
share has its images encoded once.

Legend: B = rows, L = longest response, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.policy import Policy
from hybrid_rl.templates import PromptInputs

_LOGITS_AT_ONCE = 2**27
"""Logits whose distributions are computed at once: half a gigabyte in float32."""


@dataclass(frozen=True, slots=True)
class Row:
    """A response behind its prompt. Rows that share a prompt share the `inputs` object."""

    inputs: PromptInputs
    response: tuple[int, ...]
    temperature: float = 1.0

    @property
    def length(self) -> int:
        return len(self.inputs.ids) + len(self.response)


@dataclass(frozen=True, slots=True)
class ResponseLogprobs:
    """What a forward pass says of the responses.

    Attributes:
        logprobs_BL: log-probability of each response token, nats; 0 in the padding.
        entropy_BL: entropy of the distribution it was drawn from, nats, detached; 0 in the padding.
        mask_BL: True on response tokens.
    """

    logprobs_BL: Tensor
    entropy_BL: Tensor
    mask_BL: Tensor


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


def response_logprobs(policy: Policy, rows: Sequence[Row]) -> ResponseLogprobs:
    """Forward rows once, padded together."""
    prompts = {id(row.inputs): row.inputs for row in rows}
    place = {key: u for u, key in enumerate(prompts)}
    responses = [row.response for row in rows]
    logits_BLV = policy.response_logits(list(prompts.values()), [place[id(row.inputs)] for row in rows], responses)
    device = logits_BLV.device
    temperatures_B11 = torch.tensor([row.temperature for row in rows], device=device)[:, None, None]
    targets_BL, mask_BL = _targets(responses)
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


def group_logprobs(policy: Policy, groups: Sequence[Group], max_tokens: int) -> list[list[tuple[float, ...]]]:
    """Log-probability of each token of each sample of each group, in nats, without a gradient."""
    rows = []
    for group in groups:
        request = group.samples[0].rollout.request
        inputs = policy.format.inputs(request.prompt, request.mode)
        rows += [Row(inputs, s.rollout.generation.ids, request.temperature) for s in group.samples]
    found: list[tuple[float, ...]] = [()] * len(rows)
    with torch.inference_mode():
        for batch in micro_batches(rows, max_tokens):
            logprobs_BL = response_logprobs(policy, [rows[i] for i in batch]).logprobs_BL.tolist()
            for index, values in zip(batch, logprobs_BL, strict=True):
                found[index] = tuple(values[: len(rows[index].response)])
    iterator = iter(found)
    return [[next(iterator) for _ in group.samples] for group in groups]


def _targets(responses: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Responses padded with 0 [B, L], and True on their tokens [B, L]."""
    L = max(len(response) for response in responses)
    targets_BL = torch.zeros(len(responses), L, dtype=torch.long)
    mask_BL = torch.zeros(len(responses), L, dtype=torch.bool)
    for b, response in enumerate(responses):
        targets_BL[b, : len(response)] = torch.tensor(response)
        mask_BL[b, : len(response)] = True
    return targets_BL, mask_BL
