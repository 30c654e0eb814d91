"""`admission`: which groups of a step are trained on."""

from __future__ import annotations

from pydantic import Field, model_validator

from hybrid_rl.config.section import Section


class StdFilterConfig(Section):
    """RLPR's filter: a group whose rewards differ less than is usual in its mode is left out."""

    beta: float = Field(default=0.5, ge=0)
    """A group is kept if the standard deviation of its rewards is at least this times the usual one."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """The usual one is a moving average of the mean over a step's groups: the share of it that stays in each step."""
    ema_from_step: int = Field(default=6, ge=1)
    """First step whose mean counts. Up to `filter_from_step` the average is a plain one."""
    filter_from_step: int = Field(default=11, ge=1)
    """First step in which groups are left out."""

    @model_validator(mode="after")
    def _has_something_to_compare_with(self) -> StdFilterConfig:
        if self.filter_from_step <= self.ema_from_step:
            raise ValueError(
                f"filter_from_step is {self.filter_from_step}; make it larger than ema_from_step "
                f"({self.ema_from_step}), so that there is an average to compare with"
            )
        return self


class DynamicSamplingConfig(Section):
    """DAPO's: groups without signal are left out and replaced by fresh prompts of the same source and mode."""

    max_rounds: int = Field(default=3, ge=0)
    """Most times that a step samples again for what was left out. 0: it is left out and not replaced."""


class AdmissionConfig(Section):
    """What happens to scored groups before they are trained on."""

    dynamic_sampling: DynamicSamplingConfig | None = None
    """Leave out groups without signal, in which no response differs from its baseline, and replace whatever is left
    out, by this or another rule, in its own mode. Unset: neither."""
    std_filter: StdFilterConfig | None = None
    """Leave out groups whose rewards hardly differ. Unset: none; `{}` for RLPR's values."""
