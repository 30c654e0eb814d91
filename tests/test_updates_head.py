"""Log-probabilities in chunks are those of all logits at once, and so are their gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hybrid_rl.policy import Policy
from hybrid_rl.updates import head

WIDTH = 128
FORBIDDEN = (7, 11)


def drawn(policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """States of 40 tokens, their targets and temperatures."""
    generator = torch.Generator().manual_seed(0)
    states_MD = torch.randn(40, WIDTH, generator=generator, requires_grad=True)
    targets_M = torch.randint(20, 90, (40,), generator=generator)
    return states_MD, targets_M, 0.5 + torch.rand(40, generator=generator)


def whole(policy: Policy, states_MD: Tensor, targets_M: Tensor, temperatures_M: Tensor) -> tuple[Tensor, Tensor]:
    """By the formula: softmax of scaled logits without the forbidden ids."""
    logits_MV = policy.model.get_output_embeddings()(states_MD) / temperatures_M[:, None]
    logits_MV[:, list(policy.forbidden_ids)] = float("-inf")
    logprobs_MV = logits_MV.log_softmax(-1)
    entropy_M = torch.special.entr(logprobs_MV.exp()).sum(-1)
    return logprobs_MV.gather(1, targets_M[:, None])[:, 0], entropy_M


def gradients(policy: Policy, states_MD: Tensor, logprobs_M: Tensor) -> tuple[Tensor, Tensor]:
    weights_M = torch.linspace(-1, 2, len(logprobs_M))
    weight_VD = policy.model.get_output_embeddings().weight
    states, weight = torch.autograd.grad((weights_M * logprobs_M).sum(), (states_MD, weight_VD))
    return states, weight


@pytest.mark.parametrize("kept_bytes", [2**30, 0], ids=["softmax kept", "softmax computed again"])
@pytest.mark.parametrize("chunk", [2**24, 1000], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("shared", [None, 1.0, 0.7], ids=["temperatures", "temperature 1", "temperature 0.7"])
def test_chunks_are_the_whole(
    tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch, kept_bytes: int, chunk: int, shared: float | None
) -> None:
    monkeypatch.setattr(head, "_KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(head, "_LOGITS_AT_ONCE", chunk)
    monkeypatch.setattr(head, "_TOKENS_AT_LEAST", 1)
    policy = replace(tiny_policy, forbidden_ids=FORBIDDEN)
    states_MD, targets_M, temperatures_M = drawn(policy)
    if shared is not None:
        temperatures_M = torch.full_like(temperatures_M, shared)
    logprobs_M, entropy_M = head.target_logprobs(policy, states_MD, targets_M, temperatures_M)
    expected_M, expected_entropy_M = whole(policy, states_MD, targets_M, temperatures_M)
    torch.testing.assert_close(logprobs_M, expected_M)
    torch.testing.assert_close(entropy_M, expected_entropy_M)
    assert not entropy_M.requires_grad
    found, wanted = gradients(policy, states_MD, logprobs_M), gradients(policy, states_MD, expected_M)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_head_with_a_bias_is_asked_itself(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_LOGITS_AT_ONCE", 1000)
    monkeypatch.setattr(head, "_TOKENS_AT_LEAST", 1)
    biased = torch.nn.Linear(WIDTH, tiny_policy.model.get_output_embeddings().out_features)
    monkeypatch.setattr(tiny_policy.model, "get_output_embeddings", lambda: biased)
    states_MD, targets_M, temperatures_M = drawn(tiny_policy)
    logprobs_M, entropy_M = head.target_logprobs(tiny_policy, states_MD, targets_M, temperatures_M)
    expected_M, expected_entropy_M = whole(tiny_policy, states_MD, targets_M, temperatures_M)
    torch.testing.assert_close(logprobs_M, expected_M)
    torch.testing.assert_close(entropy_M, expected_entropy_M)
    (found,) = torch.autograd.grad(logprobs_M.sum(), biased.bias)
    (wanted,) = torch.autograd.grad(expected_M.sum(), biased.bias)
    torch.testing.assert_close(found, wanted)


def test_in_half_precision_the_distribution_stays_in_float32(tiny_policy: Policy) -> None:
    policy = replace(tiny_policy, compute_dtype=torch.bfloat16)
    states_MD, targets_M, temperatures_M = drawn(policy)
    logprobs_M, _ = head.target_logprobs(policy, states_MD, targets_M, temperatures_M)
    assert logprobs_M.dtype is torch.float32
    expected_M, _ = whole(policy, states_MD, targets_M, temperatures_M)
    torch.testing.assert_close(logprobs_M, expected_M, atol=0.1, rtol=0.02)
    found, wanted = gradients(policy, states_MD, logprobs_M), gradients(policy, states_MD, expected_M)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype is torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_only_what_is_trained_gets_a_gradient(tiny_policy: Policy) -> None:
    states_MD, targets_M, temperatures_M = drawn(tiny_policy)
    weight = tiny_policy.model.get_output_embeddings().weight
    logprobs_M, _ = head.target_logprobs(tiny_policy, states_MD.detach(), targets_M, temperatures_M)
    (found,) = torch.autograd.grad(logprobs_M.sum(), weight)
    weight.requires_grad_(False)
    try:
        logprobs_M, _ = head.target_logprobs(tiny_policy, states_MD, targets_M, temperatures_M)
        (of_states,) = torch.autograd.grad(logprobs_M.sum(), states_MD)
    finally:
        weight.requires_grad_(True)
    assert float(found.abs().max()) > 0 and float(of_states.abs().max()) > 0
