"""A pack is its rows, each by itself: the layout by hand, and attention with its gradients for any lengths."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hybrid_rl.backbones.attention_kernels import attend, attend_backward
from hybrid_rl.backbones.flash_by_offsets import FlashByOffsets, Offsets
from hybrid_rl.backbones.pack import Pack, Prefix, Run
from hybrid_rl.backbones.shared_attention import ByRuns, SharedAttentionPlan, attend_to_pack

CPU = torch.device("cpu")
GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=4)), min_size=1, max_size=4
)
"""Lengths of each prompt, and of the responses to it."""


def pack_of(groups: list[tuple[int, list[int]]]) -> Pack:
    rows = [(u, length) for u, (_, lengths) in enumerate(groups) for length in lengths]
    return Pack.of([p for p, _ in groups], [u for u, _ in rows], [length for _, length in rows])


def test_a_pack_by_hand() -> None:
    """Prompts of 2 and 3 tokens; the first has responses of 1, 2 and 2 tokens, the second one of 2."""
    pack = Pack.of([2, 3], [0, 0, 1, 0], [1, 2, 2, 2])
    # The strip: blank 0, prompts 1-2 and 3-5, responses 6, 7-8, 9-10 (the second prompt's) and 11-12.
    assert pack.index_N.tolist() == [3, 4, 5, 9, 10, 1, 2, 7, 8, 11, 12, 6]
    assert pack.positions_N.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 2, 3, 2]
    # In the order of the rows; first tokens are predicted by the end of their prompt.
    assert pack.predictors_M.tolist() == [6, 6, 7, 2, 3, 6, 9]
    assert pack.runs == (Run(0, 1, 5), Run(5, 3, 2), Run(11, 1, 1))
    assert pack.prefixes == (Prefix(slice(5, 7), slice(7, 12)),)
    assert pack.prompts == (1, 0)
    assert pack.num_tokens == 12


def test_responses_behind_a_prompt_that_went_before_by_hand() -> None:
    """A prompt of 3 tokens, not in the pack, and responses of 1 and 3 tokens, the long one first."""
    pack = Pack.behind(3, [1, 3])
    # The strip: blank 0, prompt 1-3, responses 4 and 5-7.
    assert pack.index_N.tolist() == [5, 6, 7, 4]
    assert pack.positions_N.tolist() == [3, 4, 5, 3]
    assert pack.predictors_M.tolist() == [-1, -1, 0, 1]
    # Its keys come first. A response as long as the prompt is no neighbour of it.
    assert pack.runs == (Run(0, 1, 3), Run(3, 1, 1))
    assert pack.prefixes == (Prefix(slice(0, 3), slice(0, 4)),)
    assert (pack.kept, pack.num_tokens) == (3, 4)


class PlainRagged:
    """What the GPU's kernel promises, sequence by sequence."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, queries: Offsets, keys: Offsets, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
        for a, b in zip(pairwise(queries.starts.tolist()), pairwise(keys.starts.tolist()), strict=True):
            found, its_lse = attend(
                _batch(q[slice(*a)]), _batch(k[slice(*b)]), _batch(v[slice(*b)]), scale=scale, causal=causal
            )
            out[slice(*a)], lse[:, slice(*a)] = found[0].transpose(0, 1), its_lse[0]
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *offsets: Any, **how: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = [torch.empty_like(x) for x in (q, k, v)]
        for a, b in zip(*(pairwise(o.starts.tolist()) for o in offsets), strict=True):
            i, j = slice(*a), slice(*b)
            parts = attend_backward(
                _batch(grad[i]), _batch(q[i]), _batch(k[j]), _batch(v[j]), _batch(out[i]), lse[None, :, i], **how
            )
            for whole, at, part in zip(grads, (i, j, j), parts, strict=True):
                whole[at] = part[0].transpose(0, 1)
        return grads[0], grads[1], grads[2]


def _batch(x: Tensor) -> Tensor:
    return x.transpose(0, 1)[None]


@settings(max_examples=20)
@given(groups=GROUPS, before=st.booleans(), by_offsets=st.booleans())
def test_attention_over_a_pack_is_that_of_each_row(
    groups: list[tuple[int, list[int]]], before: bool, by_offsets: bool
) -> None:
    """Four query heads on two key heads, against a mask that says who sees whom; output and all gradients.

    Also where the prompt (the first one) went before.
    """
    pack = Pack.behind(*groups[0]) if before else pack_of(groups)
    N, kept = pack.num_tokens, pack.kept
    generator = torch.Generator().manual_seed(N)
    q, k, v = (
        torch.randn(1, heads, columns, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads, columns in ((4, N), (2, kept + N), (2, kept + N))
    )
    sees = torch.zeros(N, kept + N, dtype=torch.bool)
    for run in pack.runs:
        for start in range(run.start, run.stop, run.length):
            own = slice(start, start + run.length)
            sees[own, kept + start : kept + start + run.length] = torch.ones(run.length, run.length).tril().bool()
    for prefix in pack.prefixes:
        sees[prefix.queries, prefix.keys] = True
    expected = scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=0.3, enable_gqa=True).transpose(1, 2)
    grad = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, (q, k, v), grad)

    parts = FlashByOffsets.of(pack, CPU, PlainRagged()) if by_offsets else ByRuns(pack)
    found = attend_to_pack(*(x[0].transpose(0, 1) for x in (q, k, v)), parts, 0.3)[None]
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, (q, k, v), grad), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@given(groups=GROUPS)
def test_every_token_is_there_once_and_prompts_are_not_repeated(groups: list[tuple[int, list[int]]]) -> None:
    pack = pack_of(groups)
    assert pack.num_tokens == sum(p + sum(lengths) for p, lengths in groups)
    assert sorted(pack.index_N.tolist()) == list(range(1, 1 + pack.num_tokens))
    assert sum(run.count * run.length for run in pack.runs) == pack.num_tokens
    # Position p + t is predicted from position p + t - 1.
    lengths = [(p, length) for p, responses in groups for length in responses]
    expected = [p + t - 1 for p, length in lengths for t in range(length)]
    assert pack.positions_N[pack.predictors_M].tolist() == expected


def test_under_autocast_it_computes_in_half_precision() -> None:
    pack = pack_of([(3, [2, 2])])
    q, k, v = (torch.randn(1, 2, 7, 8) for _ in range(3))
    plan = SharedAttentionPlan.of(pack, CPU)
    exact = plan.attend(0, q, k, v, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        found = plan.attend(0, q, k, v, 0.3)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=3e-2, rtol=3e-2)
