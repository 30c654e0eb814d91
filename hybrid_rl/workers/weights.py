"""Weights on their way from the actor to rollout and reference workers: one array a parameter, with a version.

With LoRA these are the adapter's alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybrid_rl.protocols import Weights


@dataclass(frozen=True, slots=True)
class VersionedWeights:
    """The weights that policy version `version` answers with."""

    version: int
    arrays: Weights


def export_weights(parameters: Mapping[str, Tensor], dtype: torch.dtype) -> Weights:
    """Parameters as arrays on the CPU, cast to the dtype that they are computed in. Tied parameters appear once."""
    arrays = {}
    for name, parameter in parameters.items():
        tensor = parameter.detach().to("cpu", dtype)
        # numpy has no bfloat16; its bits travel as uint16.
        arrays[name] = tensor.view(torch.uint16).numpy() if dtype is torch.bfloat16 else tensor.numpy()
    return arrays


@torch.no_grad()
def import_weights(parameters: Mapping[str, Tensor], arrays: Weights) -> None:
    """Copy arrays of `export_weights` into the parameters of the same name."""
    missing = parameters.keys() ^ arrays.keys()
    if missing:
        raise KeyError(f"weights and model differ in {sorted(missing)[:3]}")
    for name, parameter in parameters.items():
        parameter.copy_(_tensor(arrays[name]))


def _tensor(array: Any) -> Tensor:
    with warnings.catch_warnings():
        # Arrays from the object store are read-only, which torch warns about; they are only read here.
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
