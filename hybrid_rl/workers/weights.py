"""Weights on their way from the actor to rollout and reference workers, in buckets of bounded size, with a version.

A bucket holds stretches of flattened parameters; a large parameter spans several buckets. It is made when it is sent
and copied into place when it arrives, so that no process ever holds a second copy of the model for it. Where sender and
receiver share a process and the dtype of their weights, the stretches are views and the one copy is into place.

With LoRA the weights are the adapter's alone.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hybrid_rl.errors import EngineMismatch

BUCKET_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Span:
    """The values [start, stop) of a flattened parameter."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A part of the weights of a policy version.

    Attributes:
        version: of the policy.
        number, count: this is bucket `number`, from 0, of `count`.
        pieces: where values belong, and the values, on the CPU. bfloat16 travels as uint16: numpy has none.
    """

    version: int
    number: int
    count: int
    pieces: tuple[tuple[Span, npt.NDArray[np.generic]], ...]


def plan_buckets(parameters: Mapping[str, Tensor], dtype: torch.dtype, limit: int = BUCKET_BYTES) -> list[list[Span]]:
    """Deal parameters, in their order, into buckets of at most `limit` bytes in `dtype`; tied ones appear once."""
    room = values = max(1, limit // dtype.itemsize)
    buckets: list[list[Span]] = [[]]
    for name, parameter in parameters.items():
        start = 0
        while start < parameter.numel():
            if room == 0:
                buckets.append([])
                room = values
            stop = min(parameter.numel(), start + room)
            buckets[-1].append(Span(name, start, stop))
            room -= stop - start
            start = stop
    return buckets


def read_bucket(
    parameters: Mapping[str, Tensor], plan: Sequence[Sequence[Span]], number: int, dtype: torch.dtype, version: int
) -> Bucket:
    """Make a bucket of a plan, cast to the dtype that the weights are computed in."""
    pieces = []
    for span in plan[number]:
        flat = parameters[span.name].detach().reshape(-1)[span.start : span.stop]
        pieces.append((span, _array(flat.to("cpu", dtype))))
    return Bucket(version, number, len(plan), tuple(pieces))


class WeightReceiver:
    """Copies buckets into parameters, in place.

    Args:
        parameters: of the same names and shapes as the sender's; contiguous, as parameters are.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self._missing: dict[str, int] = {}
        self.complete = True
        """No transfer is under way; between its first and last bucket the weights are a mixture of two versions."""

    @torch.no_grad()
    def take(self, bucket: Bucket) -> None:
        """Copy a bucket into place.

        Raises:
            EngineMismatch: sender and receiver have other parameters, or a bucket is missing.
        """
        if bucket.number == 0:
            self._missing = {name: parameter.numel() for name, parameter in self._parameters.items()}
        self.complete = False
        arrived: dict[str, int] = defaultdict(int)
        for span, values in bucket.pieces:
            if span.stop > self._numel(span.name):
                raise EngineMismatch(f"the actor's parameter {span.name} is not this worker's; their models differ")
            # `view` and not `reshape`, which may copy and would leave the parameter as it was.
            self._parameters[span.name].view(-1)[span.start : span.stop].copy_(_tensor(values))
            arrived[span.name] += span.stop - span.start
        for name, count in arrived.items():
            self._missing[name] = self._missing.get(name, 0) - count
        if bucket.number == bucket.count - 1:
            self._check()
            self.complete = True

    def _numel(self, name: str) -> int:
        return self._parameters[name].numel() if name in self._parameters else -1

    def _check(self) -> None:
        wrong = [name for name, count in self._missing.items() if count != 0]
        if wrong:
            raise EngineMismatch(f"weights of {wrong[0]} did not all arrive; the actor's model and this one differ")


def _array(tensor: Tensor) -> npt.NDArray[np.generic]:
    values: npt.NDArray[np.generic] = (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return values


def _tensor(array: Any) -> Tensor:
    with warnings.catch_warnings():
        # Arrays from the object store are read-only, which torch warns about; they are only read here.
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
