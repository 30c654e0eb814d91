"""Linear layers with their weights in the layout that oneDNN multiplies in, for decoding on a CPU.

A decoding step multiplies few rows with every weight of the model; packing the weights beforehand takes the packing
out of each step. The packed copies are kept between calls and made anew for the weights that have changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS = 64
"""How many rows the layout is chosen for; any number can be multiplied."""

Version = tuple[int, int]
"""Where a weight lies, and how often it has been written to."""


class PackedLinears:
    """Packed copies of the linear layers of a model's decoder and of its vocabulary head."""

    def __init__(self, model: Any) -> None:
        modules = [*model.get_decoder().modules(), model.get_output_embeddings()]
        # Not of subclasses: theirs may be another product. An adapter's layer has plain ones inside.
        found = dict.fromkeys(module for module in modules if type(module) is nn.Linear and _packs(module.weight))
        self._layers: list[nn.Linear] = list(found)
        self._forwards: dict[int, tuple[Version, Callable[[Tensor], Tensor]]] = {}

    @property
    def num_bytes(self) -> int:
        """What the copies take."""
        return sum(layer.weight.nbytes for layer in self._layers)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the layers multiply with their packed weights. They are as they were behind it."""
        for place, layer in enumerate(self._layers):
            version = (layer.weight.data_ptr(), layer.weight._version)
            if place not in self._forwards or self._forwards[place][0] != version:
                self._forwards[place] = version, _packed_forward(layer)
            layer.forward = self._forwards[place][1]  # type: ignore # of this one layer
        try:
            yield
        finally:
            for layer in self._layers:
                layer.__dict__.pop("forward", None)


def _packs(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype is torch.float32 or (
        weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _packed_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias, dtype = layer.weight, layer.bias, layer.weight.dtype
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def forward(x: Tensor) -> Tensor:
        if x.dtype is not dtype or torch.is_autocast_enabled("cpu"):  # which decides what dtype it is computed in
            return functional.linear(x, weight, bias)
        product: Tensor = multiply(x, packed, bias, "none", [], "")
        return product

    return forward
