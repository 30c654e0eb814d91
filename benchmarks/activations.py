"""How much a forward pass keeps for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(run: Callable[[], Any], parameters: Iterable[Tensor]) -> int:
    """Bytes of all storages that autograd holds after `run`, parameters not counted, each storage once.

    This is the activation memory of training: what must stay until backward. Storages are kept alive while counting,
    so that a reused address is not mistaken for one seen before.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    held: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(storage.nbytes() for storage in held.values())
