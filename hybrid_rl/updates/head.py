"""Log-probabilities of target tokens from what the vocabulary head reads, without all logits at once.

Tokens are taken in chunks. What a chunk needs for its gradient is its softmax: kept where all of them fit in a limit,
computed a second time in the backward pass where they do not. The distribution itself is `Policy.logprobs`, as
everywhere.

Legend: M = tokens, D = width, V = vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybrid_rl.policy import Policy

_LOGITS_AT_ONCE = 2**23
"""Logits of a chunk: 32 MiB in float32. There are a few tensors of this size at a time."""
_TOKENS_AT_LEAST = 256
"""Of a chunk: with fewer, a large vocabulary's weights and their gradient would be read for little."""
_KEPT_BYTES = 2**28
"""Bytes of softmax that a forward pass may keep for its backward pass."""


def target_logprobs(
    policy: Policy, states_MD: Tensor, targets_M: Tensor, temperatures_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of its distribution without a gradient; both [M], nats, float32.

    Args:
        states_MD: what the head reads to predict each target.
    """
    head = policy.model.get_output_embeddings()
    # A layer that an adapter wraps, or that adds a bias, is asked itself.
    if type(head) is nn.Linear and head.bias is None:
        found: tuple[Tensor, Tensor] = _Plain.apply(states_MD, head.weight, targets_M, temperatures_M, policy)
        return found
    return _by_module(policy, head, states_MD, targets_M, temperatures_M)


class _Plain(torch.autograd.Function):
    """A head that is one product with a matrix [V, D]."""

    @staticmethod
    def forward(
        ctx: Any, states_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, temperatures_M: Tensor, policy: Policy
    ) -> tuple[Tensor, Tensor]:
        dtype = policy.compute_dtype
        weight = weight_VD.to(dtype)
        size = len(states_MD) * len(weight) * dtype.itemsize
        keep = any(ctx.needs_input_grad) and size <= _KEPT_BYTES
        shared = _shared(temperatures_M)
        logprobs, entropies, kept = [], [], []
        for states, targets, temperatures in _chunks(len(weight), states_MD, targets_M, temperatures_M):
            logprobs_MV = policy.logprobs(states.to(dtype) @ weight.T, shared or temperatures[:, None])
            logprobs.append(logprobs_MV.gather(1, targets[:, None])[:, 0])
            probs_MV = logprobs_MV.exp()
            entropies.append(_entropy(logprobs_MV, probs_MV))
            if keep:
                kept.append(probs_MV.to(dtype))
        ctx.save_for_backward(states_MD, weight_VD, targets_M, temperatures_M, *kept)
        ctx.policy, ctx.shared = policy, shared
        logprobs_M, entropy_M = torch.cat(logprobs), torch.cat(entropies)
        ctx.mark_non_differentiable(entropy_M)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states_MD, weight_VD, targets_M, temperatures_M, *kept = ctx.saved_tensors
        policy: Policy = ctx.policy
        dtype = policy.compute_dtype
        weight = weight_VD.to(dtype)
        to_states, to_weight = ctx.needs_input_grad[:2]
        states_grads = []
        weight_grad = torch.zeros_like(weight_VD) if to_weight else None
        chunks = _chunks(len(weight), states_MD, targets_M, temperatures_M, grad_M)
        for i, (states, targets, temperatures, grad) in enumerate(chunks):
            states = states.to(dtype)
            by = ctx.shared or temperatures[:, None]
            probs_MV = kept[i].float() if kept else policy.logprobs(states @ weight.T, by).exp_()
            # d log p(target) / d logits = (1 at the target - p) / temperature. What was kept is used up.
            slope_M1 = (grad / temperatures)[:, None]
            logits_grad_MV = probs_MV.mul_(-slope_M1).scatter_add_(1, targets[:, None], slope_M1).to(dtype)
            if to_states:
                states_grads.append(logits_grad_MV @ weight)
            if weight_grad is not None and weight_grad.dtype is dtype:
                weight_grad.addmm_(logits_grad_MV.T, states)
            elif weight_grad is not None:
                weight_grad += logits_grad_MV.T @ states
        states_grad = torch.cat(states_grads).to(states_MD.dtype) if to_states else None
        return states_grad, weight_grad, None, None, None


def _by_module(
    policy: Policy, head: nn.Module, states_MD: Tensor, targets_M: Tensor, temperatures_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Any head, through its own forward pass: each chunk is computed a second time in the backward pass."""

    def piece(states: Tensor, targets: Tensor, temperatures: Tensor) -> tuple[Tensor, Tensor]:
        with policy.autocast():
            logits_MV = head(states)
        logprobs_MV = policy.logprobs(logits_MV, temperatures[:, None])
        with torch.no_grad():
            entropy = _entropy(logprobs_MV.detach().clone(), logprobs_MV.exp())
        return logprobs_MV.gather(1, targets[:, None])[:, 0], entropy

    vocabulary = policy.model.get_input_embeddings().weight.shape[0]
    found = [
        checkpoint(piece, *chunk, use_reentrant=False)
        for chunk in _chunks(vocabulary, states_MD, targets_M, temperatures_M)
    ]
    return torch.cat([logprobs for logprobs, _ in found]), torch.cat([entropy for _, entropy in found])


def _shared(temperatures_M: Tensor) -> float | None:
    """The temperature of all tokens; None where they differ."""
    first = temperatures_M[:1]
    return float(first) if len(first) and bool((temperatures_M == first).all()) else None


def _chunks(vocabulary: int, *tensors: Tensor) -> Any:
    rows = max(_TOKENS_AT_LEAST, _LOGITS_AT_ONCE // vocabulary)
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _entropy(logprobs_MV: Tensor, probs_MV: Tensor) -> Tensor:
    """Uses up the log-probabilities. Forbidden ids have -inf there and add nothing: 0 * -inf must read as 0."""
    return logprobs_MV.clamp_(min=-1e4).mul_(probs_MV).sum(-1).neg_()
