"""Where the graph is cut: what is computed once is read by several micro-batches as leaves.

Each micro-batch goes backwards by itself and leaves its gradients at the leaves. The backward pass of what made them is
linear, so that it is run once, with the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Cuts:
    """Tensors that were cut off, until their gradients are sent back."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def leaf(self, output: Tensor) -> Tensor:
        """What is to be read instead of a tensor: itself, where it has no gradient."""
        if not output.requires_grad:
            return output
        leaf = output.detach().requires_grad_()
        self._pairs.append((output, leaf))
        return leaf

    def send_back(self) -> None:
        """Send the gathered gradients on, all in one pass, and forget the tensors."""
        pairs = [(output, leaf.grad) for output, leaf in self._pairs if leaf.grad is not None]
        self._pairs = []
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [grad for _, grad in pairs])
