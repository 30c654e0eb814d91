"""What the work of a run costs, and what its machine can do: the two sides of every share in the accounting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybrid_rl.machine.kernels import PLAIN, KernelChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """Attributes:
    kernels: what was found of the machine that updates run on.
    linear_weights: of the decoder's linear layers and its vocabulary head; 0 where it is not known.
    dtype: that the policy computes in.
    """

    kernels: KernelChoice = PLAIN
    linear_weights: int = 0
    dtype: str = "float32"

    @property
    def peak_flops_per_s(self) -> float:
        """The best rate that was measured in the dtype of the policy; 0 where none was."""
        return self.kernels.peak_flops_per_s(self.dtype)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all linear weights, as sampling reads them."""
        return self.linear_weights * (2 if self.dtype == "bfloat16" else 4)


def linear_weights(model: Any) -> int:
    """Weights of the linear layers of a model's decoder and of its vocabulary head, which each token meets once."""
    import torch

    decoder = model.get_decoder()
    head = model.get_output_embeddings()
    layers = {id(layer): layer for layer in decoder.modules() if isinstance(layer, torch.nn.Linear)}
    if head is not None:
        layers[id(head)] = head
    return sum(layer.weight.numel() for layer in layers.values())
