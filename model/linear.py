"""Products in bfloat16 and float16 on processors that have no instructions for them.

There torch falls back to a loop at about a tenth of the speed of float32, so operands are widened, multiplied in
float32 and the result is rounded once: the same inputs and outputs, and a more exact sum. Everywhere else these are
torch's own products.

Shape suffixes: T tokens, I features in, O features out.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@cache
def _cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether the processor's own kernels multiply matrices of this type."""
    if dtype in (torch.bfloat16, torch.float16) and not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def _widens(x: Tensor) -> bool:
    return x.device.type == "cpu" and not _cpu_multiplies(x.dtype)


class _WidenedLinear(torch.autograd.Function):
    """y = x W' + b in float32. Keeps the narrow operands for backward, so it costs no more memory than torch's own."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_TI, weight_OI)
        bias = None if bias_O is None else bias_O.float()
        return functional.linear(x_TI.float(), weight_OI.float(), bias).to(x_TI.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_TI, weight_OI = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad = grads[0].float()
        grad_TO = grad.flatten(0, -2)
        return (
            (grad @ weight_OI.float()).to(x_TI.dtype) if wants_x else None,
            (grad_TO.T @ x_TI.float().flatten(0, -2)).to(weight_OI.dtype) if wants_weight else None,
            grad_TO.sum(0).to(weight_OI.dtype) if wants_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., I] to [..., O] by a weight [O, I], as `torch.nn.functional.linear`."""
    if _widens(x) and x.dtype == weight.dtype and x.dim() > 1:
        out: Tensor = _WidenedLinear.apply(x, weight, bias)
        return out
    return functional.linear(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes, as `a @ b`."""
    return (a.float() @ b.float()).to(a.dtype) if _widens(a) else a @ b


class Linear(nn.Linear):
    """`torch.nn.Linear` through `linear`; adapters, sharding and checkpoints see torch's class."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        return linear(input, self.weight, self.bias)
