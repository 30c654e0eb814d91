"""`modes`: the minds of the policy. Modes are data; `short` and `long` are merely the kinds that ship."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hybrid_rl.config.ratio import Ratio, RatioConfig
from hybrid_rl.config.section import Section


class KindConfig(Section):
    """One mode: how its prompt is rendered, its budget, its sampling."""

    share: float | None = Field(default=None, ge=0, le=1)
    """Share of the prompts answered in this mode. Give it for every kind, or `modes.long_ratio`, or neither (equal)."""
    template_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the chat template that select the mode, such as `enable_thinking: true`."""
    prefill: str = ""
    """Text put behind the generation prompt; it belongs to the prompt."""
    mode_token: str = ""
    """Text that a response in this mode begins with, by which a model that chooses its mode says so, such as
    `<think>`. The engine forces it; it belongs to the response."""
    max_new_tokens: int = Field(ge=1)
    """Budget of generated tokens of a response, its stop token included."""
    max_think_tokens: int | None = Field(default=None, ge=0)
    """Thinking budget: a thought that has so many tokens is closed by force and the answer follows, in training and
    evaluation. The forced tokens count in `max_new_tokens` and are never trained on. Unset: no such limit."""
    target_length: int | None = Field(default=None, ge=1)
    """Tokens that the prompt asks for (L1): `target_text` is written behind its last user turn, and rewards get the
    number as `target_length`. A column `target_length` of the row comes first. Unset: no length is asked for."""
    target_length_to: int | None = Field(default=None, ge=1)
    """With it the number is drawn, for each prompt, from `target_length` up to this."""
    target_text: str = "Think for {target_length} tokens."
    """The sentence that asks."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature, in training and evaluation."""
    loss_weight: float = Field(default=1.0, ge=0)
    """Multiplies the mode's weight in the loss."""
    truncation: Literal["keep", "penalise", "mask"] = "keep"
    """What becomes of a response that its budget cut off. `keep`: nothing, its reward is what it is. `penalise`:
    `truncation_penalty` is taken off its reward before advantages. `mask`: it counts in the advantages of its group and
    is then left out of the loss, numerator and denominator."""
    truncation_penalty: float = Field(default=1.0, gt=0)
    """What `truncation: penalise` takes off."""

    @model_validator(mode="after")
    def _a_length_can_be_asked_for(self) -> KindConfig:
        low, high = self.target_length, self.target_length_to
        if high is not None and (low is None or high < low):
            raise ValueError(f"target_length_to is {high}; give a target_length that is not larger")
        if "{target_length}" not in self.target_text:
            raise ValueError("target_text does not say the length; write {target_length} where the number belongs")
        if any(sign in self.target_text.replace("{target_length}", "") for sign in "{}"):
            raise ValueError("target_text may hold no braces but those of {target_length}")
        return self


class ModesConfig(Section):
    """The minds of the policy, and how prompts are dealt to them."""

    assign: Literal["per_prompt", "paired", "per_rollout", "column"] = "per_prompt"
    """`per_prompt`: all responses of a prompt in one mode (MiniCPM-V 4.5, appendix A). `paired`: every prompt in every
    mode, its responses divided by the shares. `per_rollout`: every response in a mode of its own. `column`: the mode
    that stands in the column `mode` of the prompt's row."""
    long_ratio: Ratio | None = None
    """With exactly two kinds: shares 1 - r and r, in their order. A number, a schedule over the steps, or one
    of these for each source."""
    forced_tokens: Literal["mask", "importance"] = "mask"
    """What the loss makes of a `mode_token` that was forced. `mask`: nothing. `importance`: it is trained as if drawn
    with the probability of its mode's share (AdaptThink)."""
    kinds: dict[str, KindConfig] = Field(min_length=1)
    """The modes by name, in order."""

    @model_validator(mode="after")
    def _shares_are_told_once(self) -> ModesConfig:
        given = [name for name, kind in self.kinds.items() if kind.share is not None]
        if self.long_ratio is not None:
            if len(self.kinds) != 2:
                raise ValueError(
                    f"long_ratio needs exactly two kinds, here are {len(self.kinds)}; give each kind a share instead"
                )
            if given:
                raise ValueError(f"give either long_ratio or the share of each kind ({', '.join(given)}), not both")
            if isinstance(self.long_ratio, RatioConfig) and self.assign == "paired":
                raise ValueError("assign paired divides every prompt alike; give long_ratio as one number")
        elif given:
            if len(given) != len(self.kinds):
                missing = ", ".join(name for name in self.kinds if name not in given)
                raise ValueError(f"every kind needs a share, or none; without one: {missing}")
            total = sum(kind.share or 0.0 for kind in self.kinds.values())
            if abs(total - 1) > 1e-9:
                raise ValueError(f"the shares of the kinds add up to {total:g}, not to 1")
        if self.assign == "column" and (self.long_ratio is not None or given):
            raise ValueError(
                "assign column takes the modes from the data; remove long_ratio and the shares of the kinds"
            )
        if self.forced_tokens == "importance" and not any(kind.mode_token for kind in self.kinds.values()):
            raise ValueError("forced_tokens importance is about the mode_token of a kind, and no kind has one")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Share of each kind, in order; they add up to 1. Equal where a schedule, the sources or the data decide."""
        if self.long_ratio is not None and not isinstance(self.long_ratio, RatioConfig):
            return dict(zip(self.kinds, (1 - self.long_ratio, self.long_ratio), strict=True))
        equal = 1 / len(self.kinds)
        return {name: equal if kind.share is None else kind.share for name, kind in self.kinds.items()}
