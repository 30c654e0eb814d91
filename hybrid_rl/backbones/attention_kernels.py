"""Attention that also says how much weight it found, so that parts over different keys can be joined afterwards.

The output over keys A and B together follows from the outputs over A and over B and their log-sum-exps (Milakov and
Gimelshein, arXiv 1805.02867). The backward pass of either part is the ordinary one of flash attention (Dao, arXiv
2307.08691, algorithm 2) given the joined output and log-sum-exp: it needs nothing else of the softmax.

Keys and values are never copied: query heads that share a key head (GQA) are told apart by the kernel.

Legend: B = rows, H = query heads, K = key/value heads (H is a multiple of K; head h reads h // (H / K)), T = queries,
S = keys, D = head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = (torch.bfloat16, torch.float16)


def attend(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask_B1TS: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention and its log-sum-exp; without a gradient of its own (see `attend_backward`).

    Args:
        scale: factor of the products of queries and keys.
        causal: query t sees keys 0 to t; needs T = S.
        mask_B1TS: added to the scaled products, in the dtype of the queries; -inf hides a key. Every query must see
            one. The singleton axes may be broadcast.

    Returns:
        Output [B, H, T, D] in the dtype of the queries, and the log of the sum of the exponentials [B, H, T], in
        float32 (float64 for float64). Without keys the output is 0 and the log-sum-exp -inf.
    """
    if q_BHTD.numel() == 0 or k_BKSD.numel() == 0:
        # The kernels divide by the number of blocks.
        return torch.zeros_like(q_BHTD), _lse_like(q_BHTD).fill_(-torch.inf)
    if q_BHTD.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BHTD, k_BKSD, v_BKSD, 0.0, causal, attn_mask=mask_B1TS, scale=scale
        )
        return out, lse
    if mask_B1TS is None and has_cuda_flash(q_BHTD):
        found = torch.ops.aten._scaled_dot_product_flash_attention(q_BHTD, k_BKSD, v_BKSD, 0.0, causal, scale=scale)
        return found[0], found[1]
    return attend_plainly(q_BHTD, k_BKSD, v_BKSD, scale=scale, causal=causal, mask_B1TS=mask_B1TS)


def attend_backward(
    grad_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    out_BHTD: Tensor,
    lse_BHT: Tensor,
    *,
    scale: float,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values through these keys.

    Args:
        out_BHTD, lse_BHT: of `attend`; or, where the queries saw further keys too, what `merge` made of all parts.
            The gradient of the queries is then the sum over the parts.
    """
    if q_BHTD.numel() == 0 or k_BKSD.numel() == 0:
        return torch.zeros_like(q_BHTD), torch.zeros_like(k_BKSD), torch.zeros_like(v_BKSD)
    if q_BHTD.device.type == "cpu":
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_BHTD, q_BHTD, k_BKSD, v_BKSD, out_BHTD, lse_BHT, 0.0, causal, scale=scale
        )
        return dq, dk, dv
    # On a GPU, what its flash attention reads goes through `flash_by_offsets`.
    return attend_plainly_backward(grad_BHTD, q_BHTD, k_BKSD, v_BKSD, out_BHTD, lse_BHT, scale=scale, causal=causal)


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over the keys of two parts together, from the outputs [..., D] and log-sum-exps [...] of each.

    One of the parts may have had no keys, not both.
    """
    share_of_b = torch.sigmoid(lse_b - lse_a)[..., None]
    # A weight in bfloat16 would err by 0.4 %, more than the outputs do.
    out = torch.lerp(out_a.to(share_of_b.dtype), out_b.to(share_of_b.dtype), share_of_b)
    return out.to(out_a.dtype), torch.logaddexp(lse_a, lse_b)


def attend_plainly(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask_B1TS: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`attend` for any device and dtype, with the scores of all queries and keys in memory."""
    scores_BHTS = _scores(q_BHTD, k_BKSD, scale, causal)
    if mask_B1TS is not None:
        scores_BHTS = scores_BHTS + mask_B1TS
    lse_BHT = scores_BHTS.logsumexp(-1)
    weights_BHTS = (scores_BHTS - lse_BHT[..., None]).exp().to(v_BKSD.dtype)
    return _per_key_head(weights_BHTS, v_BKSD), lse_BHT


def attend_plainly_backward(
    grad_BHTD: Tensor,
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    out_BHTD: Tensor,
    lse_BHT: Tensor,
    *,
    scale: float,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`attend_backward` for any device and dtype."""
    weights_BHTS = (_scores(q_BHTD, k_BKSD, scale, causal) - lse_BHT[..., None]).exp()
    delta_BHT = (grad_BHTD * out_BHTD).to(lse_BHT.dtype).sum(-1)
    inner_BHTS = _per_key_head(grad_BHTD, v_BKSD.transpose(-1, -2)).to(lse_BHT.dtype)
    scores_grad_BHTS = (weights_BHTS * (inner_BHTS - delta_BHT[..., None]) * scale).to(q_BHTD.dtype)
    return (
        _per_key_head(scores_grad_BHTS, k_BKSD),
        _over_queries(scores_grad_BHTS, q_BHTD, k_BKSD.shape[1]),
        _over_queries(weights_BHTS.to(grad_BHTD.dtype), grad_BHTD, k_BKSD.shape[1]),
    )


def _scores(q_BHTD: Tensor, k_BKSD: Tensor, scale: float, causal: bool) -> Tensor:
    scores_BHTS = _per_key_head(q_BHTD, k_BKSD.transpose(-1, -2)).to(_lse_dtype(q_BHTD)) * scale
    if causal:
        future_TS = torch.ones(scores_BHTS.shape[-2:], dtype=torch.bool, device=q_BHTD.device).triu(1)
        scores_BHTS = scores_BHTS.masked_fill(future_TS, -torch.inf)
    return scores_BHTS


def _per_key_head(x_BHTX: Tensor, y_BKXY: Tensor) -> Tensor:
    """Product of each query head's matrix with that of its key head [B, H, T, Y]."""
    B, H, T, X = x_BHTX.shape
    K = y_BKXY.shape[1]
    return (x_BHTX.reshape(B, K, H // K * T, X) @ y_BKXY).view(B, H, T, -1)


def _over_queries(x_BHTS: Tensor, y_BHTD: Tensor, K: int) -> Tensor:
    """For each key head [B, K, S, D]: the sum over its query heads, and over all queries, of x times y."""
    B, _, _, S = x_BHTS.shape
    return x_BHTS.reshape(B, K, -1, S).transpose(-1, -2) @ y_BHTD.reshape(B, K, -1, y_BHTD.shape[-1])


def _lse_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype is torch.float64 else torch.float32


def _lse_like(q_BHTD: Tensor) -> Tensor:
    return torch.empty(q_BHTD.shape[:-1], dtype=_lse_dtype(q_BHTD), device=q_BHTD.device)


def has_cuda_flash(q: Tensor) -> bool:
    """Whether torch's flash attention on a GPU reads it: half precision, and heads of a multiple of 8 up to 256."""
    return q.device.type == "cuda" and q.dtype in _HALF and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
