"""Log-probabilities of reference answers placed behind sampled thoughts, for rewards."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hybrid_rl.errors import DataError
from hybrid_rl.policy import Policy
from hybrid_rl.records import AnswerQuery
from hybrid_rl.templates import PromptInputs
from hybrid_rl.updates.forward import batches_of, response_logprobs
from hybrid_rl.updates.pass_memory import PassMemory
from hybrid_rl.updates.rows import Row


def answer_logprobs(policy: Policy, queries: Sequence[AnswerQuery], max_tokens: int) -> list[tuple[float, ...]]:
    """Log-probability of each target token of each query, nats, at temperature 1, without a gradient.

    Queries on one prompt and mode share the encoding of its images where they are forwarded together.

    Args:
        max_tokens: tokens forwarded at once; 0 forwards each query alone.

    Raises:
        DataError: prompt, thought and answer are longer than the model's context.
    """
    inputs: dict[tuple[int, str], PromptInputs] = {}
    rows = []
    for query in queries:
        key = (id(query.prompt), query.mode)
        if key not in inputs:
            inputs[key] = policy.format.inputs(query.prompt, query.mode)
        rows.append(Row(inputs[key], query.prefix_ids + query.target_ids))
        _check_length(rows[-1], query, policy.context_length)
    found: list[tuple[float, ...]] = [()] * len(rows)
    with torch.inference_mode():
        batches = batches_of(policy, rows, max_tokens)
        # Alone means alone: what company a picture was encoded in shows in its last bits.
        memory = PassMemory(rows, batches) if max_tokens else None
        for batch in batches:
            logprobs_BL = response_logprobs(policy, [rows[i] for i in batch], memory).logprobs_BL.tolist()
            for index, values in zip(batch, logprobs_BL, strict=True):
                found[index] = tuple(values[len(queries[index].prefix_ids) : len(rows[index].response)])
    return found


def _check_length(row: Row, query: AnswerQuery, context_length: int) -> None:
    if row.length > context_length:
        raise DataError(
            f"prompt {query.prompt.id} of source {query.prompt.source}, its thought and its reference answer have "
            f"{row.length} tokens together, more than the model's context of {context_length}; lower "
            f"modes.kinds.{query.mode}.max_new_tokens, or shorten the answer"
        )
