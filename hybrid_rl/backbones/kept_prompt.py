"""A prompt that goes through the decoder by itself, and responses behind it in later passes.

Responses to a prompt that do not fit into one pack are forwarded in several. What they need of their prompt is, of each
layer, its keys and values, and what the vocabulary head reads at its end.

Legend: P = tokens of the prompt, N = columns of a pack, M = response tokens, K = key/value heads, D = head size, or
width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.calling import last_columns, planned_states
from hybrid_rl.backbones.pack import Pack
from hybrid_rl.backbones.shared_attention import KeyRecorder, SharedAttentionPlan


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """Attributes:
    layers: keys and values of each layer [P, K, D].
    last_1D: what the vocabulary head reads at the prompt's last token.
    position: of the token behind the prompt; P, unless its pictures take up fewer positions than tokens.
    """

    layers: dict[int, tuple[Tensor, Tensor]]
    last_1D: Tensor
    position: int

    @classmethod
    def of(cls, model: Any, length: int, position: int, **arguments: Any) -> KeptPrompt:
        """Forward a prompt of so many tokens, given as arguments of the model, in one row."""
        recorder = KeyRecorder()
        plan = SharedAttentionPlan.of(Pack.alone(length), model.device, recorder=recorder)
        last_1D = planned_states(model, plan, last_columns([length], model.device), **arguments)
        return cls(recorder.take(), last_1D, position)

    def positions_of(self, pack: Pack) -> Tensor:
        """Positions of the columns of a pack of `Pack.behind` [1, N]."""
        return (pack.positions_N + (self.position - pack.kept))[None]

    def states_behind(self, model: Any, pack: Pack, **arguments: Any) -> Tensor:
        """What the head reads to predict each response token [M, D].

        Args:
            pack: of `Pack.behind`.
            arguments: of the model, for the columns of the pack.
        """
        plan = SharedAttentionPlan.of(pack, model.device, kept=self.layers)
        predictors_M = pack.predictors_M.to(model.device)
        states_ND = planned_states(model, plan, torch.arange(pack.num_tokens, device=model.device), **arguments)
        return torch.cat([self.last_1D, states_ND])[predictors_M + 1]  # -1 is the prompt's last token

    def mapped(self, function: Callable[[Tensor], Tensor]) -> KeptPrompt:
        """The same with every tensor replaced."""
        layers = {layer: (function(keys), function(values)) for layer, (keys, values) in self.layers.items()}
        return KeptPrompt(layers, function(self.last_1D), self.position)
