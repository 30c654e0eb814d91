"""Attention in parts is attention; its backward pass too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hybrid_rl.backbones.attention_kernels import (
    attend,
    attend_backward,
    attend_plainly,
    attend_plainly_backward,
    merge,
)

SCALE = 0.3


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=SCALE, enable_gqa=True)


@settings(max_examples=25, deadline=None)
@given(
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2)]),
    queries=st.integers(1, 9),
    before=st.integers(1, 9),
    plain=st.booleans(),
)
def test_two_parts_are_one_attention(heads: tuple[int, int], queries: int, before: int, plain: bool) -> None:
    """Queries see `before` keys and, causally, themselves: output and all gradients, with shared key heads."""
    forward, backward = (attend_plainly, attend_plainly_backward) if plain else (attend, attend_backward)
    H, K = heads
    q = drawn(2, H, queries, 8, seed=1).requires_grad_()
    k, v = (drawn(2, K, before + queries, 8, seed=s).requires_grad_() for s in (2, 3))
    mask = torch.ones(queries, before + queries).tril(before).bool()
    whole = reference(q, k, v, mask)
    grad = drawn(*whole.shape, seed=4)
    whole.backward(grad)

    q_all, k_all, v_all = q.detach(), k.detach(), v.detach()
    k_a, k_b = k_all[:, :, :before], k_all[:, :, before:]
    v_a, v_b = v_all[:, :, :before], v_all[:, :, before:]
    out_a, lse_a = forward(q_all, k_a, v_a, scale=SCALE)
    out_b, lse_b = forward(q_all, k_b, v_b, scale=SCALE, causal=True)
    out, lse = merge(out_a, lse_a, out_b, lse_b)
    torch.testing.assert_close(out, whole.detach())
    dq_a, dk_a, dv_a = backward(grad, q_all, k_a, v_a, out, lse, scale=SCALE)
    dq_b, dk_b, dv_b = backward(grad, q_all, k_b, v_b, out, lse, scale=SCALE, causal=True)
    torch.testing.assert_close(dq_a + dq_b, q.grad)
    torch.testing.assert_close(torch.cat([dk_a, dk_b], dim=2), k.grad)
    torch.testing.assert_close(torch.cat([dv_a, dv_b], dim=2), v.grad)


@pytest.mark.parametrize("function", [attend, attend_plainly])
def test_a_mask_hides_keys(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    q, k, v = drawn(2, 4, 1, 8), drawn(2, 2, 5, 8, seed=1), drawn(2, 2, 5, 8, seed=2)
    lengths = torch.tensor([3, 5])
    mask = torch.zeros(2, 1, 1, 5, dtype=q.dtype)
    mask[torch.arange(5)[None, None, None] >= lengths[:, None, None, None]] = -torch.inf
    out, lse = function(q, k, v, scale=SCALE, mask_B1TS=mask)
    alone, its_lse = attend(q[:1], k[:1, :, :3], v[:1, :, :3], scale=SCALE)
    torch.testing.assert_close(out[:1], alone)
    torch.testing.assert_close(lse[:1], its_lse)


def test_no_keys_weigh_nothing_and_no_queries_are_fine() -> None:
    q, k, v = drawn(1, 2, 3, 8), drawn(1, 2, 3, 8, seed=1), drawn(1, 2, 3, 8, seed=2)
    out, lse = attend(q, k, v, scale=SCALE)
    joined, joined_lse = merge(out, lse, *attend(q, k[:, :, :0], v[:, :, :0], scale=SCALE))
    torch.testing.assert_close(joined, out)
    torch.testing.assert_close(joined_lse, lse)
    assert attend(q[:, :, :0], k, v, scale=SCALE)[0].shape == (1, 2, 0, 8)
    assert attend_backward(q[:, :, :0], q[:, :, :0], k, v, q[:, :, :0], lse[:, :, :0], scale=SCALE)[1].abs().sum() == 0


def test_half_precision_keeps_its_weights_in_float32() -> None:
    q, k, v = (drawn(1, 2, 6, 8, seed=s).bfloat16() for s in range(3))
    out, lse = merge(
        *attend(q, k[:, :, :4], v[:, :, :4], scale=SCALE), *attend(q, k[:, :, 4:], v[:, :, 4:], scale=SCALE)
    )
    assert out.dtype is torch.bfloat16
    assert lse.dtype is torch.float32
    torch.testing.assert_close(out.double(), reference(q.double(), k.double(), v.double()), atol=2e-2, rtol=2e-2)
