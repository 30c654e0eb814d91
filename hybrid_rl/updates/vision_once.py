"""Each distinct picture of an optimizer step through the vision tower once, forwards and backwards.

All pictures are encoded before the first micro-batch, equal pixels once, whichever groups and modes show them. The
micro-batches read the features as leaves of the graph; what they leave there as gradients goes back through the tower
in one pass at the end. The sum over micro-batches may be taken before the tower because its backward pass is linear.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.features import content_key, join, map_tensors
from hybrid_rl.policy import Policy
from hybrid_rl.templates import PromptInputs
from hybrid_rl.updates.rows import Row, prompts_of


class Pictures:
    """The features of the pictures of some prompts.

    Attributes:
        shown: pictures that the prompts show, equal ones counted again.
        encoded: pictures that went through the tower.
    """

    def __init__(self, policy: Policy, prompts: Sequence[PromptInputs]) -> None:
        backbone = policy.packing.backbone
        assert backbone is not None
        self._places: dict[int, list[int]] = {}
        distinct: dict[Any, int] = {}
        pictures: list[dict[str, Any]] = []
        for prompt in prompts:
            parts = backbone.split_media(policy.model, prompt.media) if prompt.media else []
            places = []
            for part in parts:
                key = content_key(part)
                if key not in distinct:
                    distinct[key] = len(pictures)
                    pictures.append(part)
                places.append(distinct[key])
            self._places[id(prompt)] = places
        self.shown = sum(map(len, self._places.values()))
        self.encoded = len(pictures)
        with policy.autocast():
            self._features = backbone.encode_media(policy.model, pictures) if pictures else []
        self._cut: list[tuple[Tensor, Tensor]] = []

    def of(self, prompt: PromptInputs) -> Any:
        """Features of all pictures of a prompt; None without any."""
        places = self._places[id(prompt)]
        return join([self._features[place] for place in places]) if places else None

    def cut(self) -> None:
        """From here on gradients gather at the features, until `send_back`."""
        self._features = [map_tensors(features, self._leaf) for features in self._features]

    def send_back(self) -> None:
        """Send what has gathered through the vision tower."""
        pairs = [(output, leaf.grad) for output, leaf in self._cut if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [grad for _, grad in pairs])
        self._cut = []

    def _leaf(self, output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        leaf = output.detach().requires_grad_()
        self._cut.append((output, leaf))
        return leaf


@contextlib.contextmanager
def encoded_once(policy: Policy, rows: Sequence[Row]) -> Iterator[Pictures]:
    """The pictures of the rows of an optimizer step, whose micro-batches go forwards and backwards inside the block."""
    pictures = Pictures(policy, prompts_of(rows)[0])
    pictures.cut()
    yield pictures
    pictures.send_back()
