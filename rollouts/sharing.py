"""Whether responses may share the memory of their prompt: the model's layers allow it, and a trial agrees.

The trial decodes a few tokens both ways, with the prompts of the call, before the first response of a kind is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hybrid_rl.backbones.head_shape import HeadShape
from hybrid_rl.backbones.plan_support import why_not_planned
from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.policy import Policy
from hybrid_rl.protocols import PlannedBackbone
from hybrid_rl.templates import PromptInputs
from rollouts.row_decoder import PlainRowDecoder, RowDecoder, SharedRowDecoder

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Nats by which a log-probability may differ between two ways to compute it, on average over what may be drawn: far
above rounding, far below what a wrong mask does."""
_TRIAL_STEPS = 2


class Sharing:
    """Whether rows share the memory of their prompts, and why they do not.

    Attributes:
        on: responses share the memory of their prompts, as far as is known.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tried: set[bool] = set()
        self._notices: list[str] = []
        reason = why_not_planned(policy.model)
        if reason is None and not isinstance(policy.backbone, PlannedBackbone):
            reason = f"{type(policy.backbone).__name__} offers no prefill_planned"
        self.on = reason is None
        if reason is not None:
            self._notices.append(f"each response keeps its own copy of its prompt's memory: {reason}")

    def take_notices(self) -> tuple[str, ...]:
        """What has not been told yet."""
        notices, self._notices = tuple(self._notices), []
        return notices

    @property
    def shape(self) -> HeadShape:
        config = self._policy.model.get_decoder().config
        return HeadShape.of(config, self._policy.compute_dtype, self._policy.device)

    def needs_trial(self, inputs: Sequence[PromptInputs]) -> bool:
        """Whether a kind of prompt, with or without images, comes for the first time."""
        return self.on and not {bool(item.media) for item in inputs} <= self._tried

    def try_out(
        self,
        inputs: Sequence[PromptInputs],
        vision: VisionMemory,
        kernels: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        """Compare both ways on two of the prompts, those with images first; the shared one with the fast kernels."""
        self._tried |= {bool(item.media) for item in inputs}
        two = sorted(inputs, key=lambda item: (not item.media, len(item.ids)))[:2]
        rows = [0, 0, len(two) - 1]
        expected, tokens = follow(self._policy, PlainRowDecoder(self._policy, two, vision), rows)
        with kernels():
            shared = SharedRowDecoder(self._policy, self.shape, two, vision, len(rows), _TRIAL_STEPS)
            found, _ = follow(self._policy, shared, rows, tokens)
        difference = expected_difference(torch.cat(expected), torch.cat(found))
        tolerance = _TOLERANCE.get(self._policy.compute_dtype, _TOLERANCE[torch.bfloat16])
        if not difference <= tolerance:
            self.on = False
            self._notices.append(
                f"each response keeps its own copy of its prompt's memory: with a shared one, log-probabilities differ "
                f"by {difference:.2g} nats"
            )


def follow(
    policy: Policy, decoder: RowDecoder, prompts: Sequence[int], told: Sequence[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities of a few tokens of responses to prompts, each step [B, V], and the tokens that were fed [B].

    Args:
        told: the tokens to feed; None lets each row have a likely one of its own.
    """
    logprobs, fed = [policy.logprobs(decoder.admit(prompts), 1.0)], []
    for step in range(_TRIAL_STEPS):
        likely_BB = logprobs[-1].topk(len(prompts), dim=-1).indices
        fed.append(likely_BB.diagonal().clone() if told is None else told[step])
        logprobs.append(policy.logprobs(decoder.decode(fed[-1]), 1.0))
    return logprobs, fed


def expected_difference(logprobs_BV: Tensor, others_BV: Tensor) -> float:
    """Of log-probabilities, over what may be drawn of the first; of the worst row. Forbidden tokens do not count."""
    differences_BV = torch.where(torch.isneginf(logprobs_BV), 0.0, (logprobs_BV - others_BV).abs())
    return float((logprobs_BV.exp() * differences_BV).sum(-1).max())
