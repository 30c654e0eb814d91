"""Whether a policy's responses can be forwarded packed: prompts once, pictures once, no padding (`pack`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from hybrid_rl.backbones.kept_prompt import KeptPrompt
from hybrid_rl.backbones.plan_support import why_not_planned
from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.templates import PromptInputs


@runtime_checkable
class PackingBackbone(Protocol):
    """What a backbone offers beside `hybrid_rl.protocols.Backbone` to be packed; the built-in ones do."""

    def packed_states(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        vision: VisionMemory,
    ) -> Tensor:
        """What the vocabulary head reads to predict each response token, the responses one after the other.

        Law: the head makes of it the logits of `response_logits`. Shape: response tokens of all rows, width.
        """
        ...

    def keep_prompt(self, model: Any, item: PromptInputs, vision: VisionMemory) -> KeptPrompt:
        """A prompt by itself, for `states_behind`. `KeptPrompt.of` makes one."""
        ...

    def states_behind(
        self, model: Any, kept: KeptPrompt, item: PromptInputs, responses: Sequence[Sequence[int]]
    ) -> Tensor:
        """What the vocabulary head reads to predict each response token, behind a prompt that went before.

        Law: the same as `packed_states` of these responses to this prompt. `KeptPrompt.states_behind` does it.
        """
        ...


@dataclass(slots=True)
class Packing:
    """Attributes:
    backbone: of the policy; None where it cannot be packed, or should not.
    trusted: by whether there are pictures, and whether there is a gradient, what the comparison with padded rows found;
        filled as batches come.
    notices: what the user should be told, once.
    """

    backbone: PackingBackbone | None
    trusted: dict[tuple[bool, bool], bool] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any, backbone: Any, asked: Literal["auto", "never"], *, trainable: bool) -> Packing:
        """Packing of a policy, with a notice where it is asked for and cannot be.

        Args:
            trainable: whether the model is trained, and may drop attention weights at random.
        """
        if asked == "never":
            return cls(None)
        reason = _obstacle(model, backbone, trainable)
        if reason is not None:
            return cls(None, notices=[f"responses are padded, not packed, in the update: {reason}"])
        return cls(backbone)

    def take_notices(self) -> list[str]:
        """What has not been told yet."""
        notices, self.notices = self.notices, []
        return notices


def _obstacle(model: Any, backbone: Any, trainable: bool) -> str | None:
    if not isinstance(backbone, PackingBackbone):
        return f"{type(backbone).__name__} lacks a method of hybrid_rl.backbones.packing.PackingBackbone"
    reason = why_not_planned(model)
    if reason is not None:
        return reason
    config = model.get_decoder().config
    if getattr(config, "final_logit_softcapping", None):
        return "its logits have a soft cap"
    for name in ("logit_scale", "logits_scaling", "lm_head_multiplier"):
        if (getattr(config, name, None) or 1) != 1:
            return f"it scales its logits ({name})"
    if trainable and getattr(config, "attention_dropout", None):
        return "it drops attention weights at random (attention_dropout)"
    return None
