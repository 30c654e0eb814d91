"""Log-probabilities of responses under a policy, for training, reference and supervised stages alike.

A batch holds rows [padding | prompt | response | padding]: prompts end, and responses begin, in the same column, so the
logits of all responses are the last columns of the forward pass and the rest of the vocabulary projection is skipped.
A prompt that several rows share is embedded once, its images encoded once.

Legend: B = rows, P = longest prompt, L = longest response, T = P + L, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_rl.chat_format import PromptInputs
from hybrid_rl.policy import Policy


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
    device = policy.device
    prompts = {id(row.inputs): row.inputs for row in rows}
    with policy.autocast():
        embedded = policy.embed_prompts(list(prompts.values()))
        index_BT, attention_BT, targets_BL, mask_BL = _layout(rows, list(prompts), [len(e) for e in embedded])
        response_ids = torch.tensor([i for row in rows for i in row.response], device=device)
        response_ND = policy.model.get_input_embeddings()(response_ids)
        blank_1D = torch.zeros_like(response_ND[:1])
        embeds_BTD = torch.cat([blank_1D, *embedded, response_ND])[index_BT.to(device)]
        positions_BT = (attention_BT.cumsum(-1) - 1).clamp(min=0)
        output = policy.model(
            inputs_embeds=embeds_BTD,
            attention_mask=attention_BT.to(device),
            position_ids=positions_BT.to(device),
            use_cache=False,
            logits_to_keep=targets_BL.shape[1] + 1,
        )
    temperatures_B = torch.tensor([row.temperature for row in rows], device=device)
    # The column before the first response token predicts it; the last column predicts nothing of ours.
    logprobs_BLV = policy.logprobs(output.logits[:, :-1], temperatures_B[:, None, None])
    mask_BL = mask_BL.to(device)
    logprobs_BL = logprobs_BLV.gather(-1, targets_BL.to(device)[..., None])[..., 0]
    with torch.no_grad():
        # Forbidden ids have log-probability -inf and add nothing: 0 * -inf must read as 0.
        entropy_BL = -(logprobs_BLV.exp() * logprobs_BLV.clamp(min=-1e4)).sum(-1)
    return ResponseLogprobs(
        logprobs_BL=torch.where(mask_BL, logprobs_BL, 0.0),
        entropy_BL=torch.where(mask_BL, entropy_BL, 0.0),
        mask_BL=mask_BL,
    )


def _layout(
    rows: Sequence[Row], prompt_keys: Sequence[int], prompt_lengths: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where each column of each row comes from in [blank | prompts | responses], which columns are real, and targets.

    Returns:
        index_BT, attention_BT, targets_BL, mask_BL.
    """
    starts, position = {}, 1
    for key, length in zip(prompt_keys, prompt_lengths, strict=True):
        starts[key] = position
        position += length
    P = max(len(row.inputs.ids) for row in rows)
    L = max(len(row.response) for row in rows)
    index_BT = torch.zeros(len(rows), P + L, dtype=torch.long)
    targets_BL = torch.zeros(len(rows), L, dtype=torch.long)
    for b, row in enumerate(rows):
        p, n = len(row.inputs.ids), len(row.response)
        start = starts[id(row.inputs)]
        index_BT[b, P - p : P] = torch.arange(start, start + p)
        index_BT[b, P : P + n] = torch.arange(position, position + n)
        targets_BL[b, :n] = torch.tensor(row.response)
        position += n
    attention_BT = (index_BT > 0).long()
    return index_BT, attention_BT, targets_BL, attention_BT[:, P:].bool()
