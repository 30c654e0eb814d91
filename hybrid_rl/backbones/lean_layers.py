"""RMSNorm and gated MLPs of a decoder with short backward passes, for training in float32 on a CPU.

transformers writes a normalization as six operations. Autograd keeps what each of them reads and goes back through
them one by one, and on a CPU such passes over memory are a good part of an update. Here the gradient is a formula: it
needs the input and one number a row, and a gated MLP keeps its two projections alone.

Legend: D = width, N = whatever stands before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

_TOLERANCE = 1e-5
"""Largest difference, as a share of the size, between a layer's own output and the formula's."""


def lean_layers(model: Any) -> int:
    """Have the layers of a model's decoder that are what they seem compute their gradients by formula.

    A layer is taken whose output on random numbers equals the formula's, so that a normalization that adds 1 to its
    weight is left alone. Elsewhere than in training in float32 on a CPU, a layer goes on as it was.

    Returns:
        How many layers were changed.
    """
    known: dict[Any, bool] = {}
    changed = 0
    for layer in model.get_decoder().modules():
        key, make, agrees = _kind(layer)
        if make is None:
            continue
        if key not in known:
            known[key] = agrees(layer)
        if known[key]:
            layer.forward = make(layer, layer.forward)
            changed += 1
    return changed


def _kind(layer: nn.Module) -> tuple[Any, Callable[..., Any] | None, Callable[[Any], bool]]:
    """What stands for layers that need one check, how to change one, and the check."""
    name = type(layer).__name__
    if name.endswith("RMSNorm") and _epsilon(layer) is not None and isinstance(getattr(layer, "weight", None), Tensor):
        return (type(layer), _epsilon(layer)), _LeanNorm, _is_norm
    # An adapter's layer has projections of another type.
    if all(type(getattr(layer, f"{part}_proj", None)) is nn.Linear for part in ("gate", "up", "down")):
        return (type(layer), type(getattr(layer, "act_fn", None))), _LeanMLP, _is_gated_mlp
    return None, None, lambda _: False


def _epsilon(layer: nn.Module) -> float | None:
    found = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    return found if isinstance(found, float) else None


@dataclass(frozen=True, slots=True)
class _LeanNorm:
    """The forward of a layer. Its layer is a field, so that a deep copy of a model has forwards of its own."""

    layer: Any
    own: Callable[[Tensor], Tensor]

    def __call__(self, x_ND: Tensor) -> Tensor:
        if not _applies(x_ND) or self.layer.weight.dtype is not torch.float32:
            return self.own(x_ND)
        found: Tensor = _RMSNorm.apply(x_ND, self.layer.weight, _epsilon(self.layer))
        return found


@dataclass(frozen=True, slots=True)
class _LeanMLP:
    """As `_LeanNorm`."""

    layer: Any
    own: Callable[[Tensor], Tensor]

    def __call__(self, x_ND: Tensor) -> Tensor:
        if not _applies(x_ND):
            return self.own(x_ND)
        gate = self.layer.gate_proj(x_ND)
        up = self.layer.up_proj(x_ND)
        inner: Tensor = _SwiGLU.apply(gate, up)
        found: Tensor = self.layer.down_proj(inner)
        return found


def _applies(x_ND: Tensor) -> bool:
    is_plain = x_ND.device.type == "cpu" and x_ND.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_plain and torch.is_grad_enabled()


def _is_norm(layer: Any) -> bool:
    """On a weight of random numbers: a checkpoint's may be all ones."""
    x_ND, weight_D = _random(3, len(layer.weight)), _random(len(layer.weight))
    with torch.no_grad():
        own = functional_call(layer, {"weight": weight_D}, (x_ND,))
        return _agree(own, _rms_norm(x_ND, weight_D, _epsilon(layer) or 0.0)[0])


def _is_gated_mlp(layer: Any) -> bool:
    weight = layer.gate_proj.weight
    x_ND = _random(3, weight.shape[1]).to(weight)
    with torch.no_grad():
        inner = functional.silu(layer.gate_proj(x_ND)) * layer.up_proj(x_ND)
        return _agree(layer(x_ND), layer.down_proj(inner))


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _agree(own: Tensor, found: Tensor) -> bool:
    return bool((own - found).norm() <= _TOLERANCE * own.norm())


def _rms_norm(x_ND: Tensor, weight_D: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) * weight (arXiv 1910.07467), and 1 / rms(x) [N, 1]."""
    squares_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True).square_()
    scale_N1 = squares_N1.div_(x_ND.shape[-1]).add_(epsilon).rsqrt_()
    return (x_ND * scale_N1).mul_(weight_D), scale_N1


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        out_ND, scale_N1 = _rms_norm(x_ND, weight_D, epsilon)
        ctx.save_for_backward(x_ND, weight_D, scale_N1)
        return out_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor | None, None]:
        # With y = x s and s = 1 / rms(x):  dx = s (g w - y mean(g w y)),  dw = sum(g y).
        x_ND, weight_D, scale_N1 = ctx.saved_tensors
        y_ND = x_ND * scale_N1
        product_ND = grad_ND * y_ND
        mean_N1 = (product_ND @ weight_D[:, None]).div_(-len(weight_D))
        grad_x_ND = y_ND.mul_(mean_N1).addcmul_(grad_ND, weight_D).mul_(scale_N1)
        grad_weight_D = product_ND.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grad_x_ND, grad_weight_D, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up (arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, functional.silu(gate).mul_(grad)
