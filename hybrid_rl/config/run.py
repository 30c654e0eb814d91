"""`run`: where a run lives, how long it is, what seeds it; `checkpoints`: what is kept of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hybrid_rl.config.condition import Condition
from hybrid_rl.config.section import Section


class RunConfig(Section):
    """Where a run lives, how long it is and what seeds it."""

    dir: str | None = None
    """Run folder; must not exist yet. Unset: `runs/<config name>/<time>`."""
    seed: int = Field(default=0, ge=0)
    """Seeds the initial weights, the data order and every response."""
    steps: int = Field(default=100, ge=1)
    """Number of GRPO steps."""
    stop_when: str | None = None
    """End the run earlier, after the step in which a metric (docs/metrics.md) meets a condition such as
    `eval/accuracy/long >= 0.9`; the relation is >=, <=, > or <."""
    max_update_tokens: int | None = Field(default=None, ge=1)
    """End the run earlier, after the step with which its update tokens, over all modes, reach this number."""
    live: bool | None = None
    """Live terminal view. Unset: on where standard output is a terminal, plain lines elsewhere."""

    @model_validator(mode="after")
    def _stop_when_can_be_read(self) -> RunConfig:
        if self.stop_when is not None:
            Condition.parse(self.stop_when)
        return self


class CheckpointConfig(Section):
    """What is kept of a run to go on from."""

    every_steps: int = Field(default=50, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    keep_last: int = Field(default=2, ge=1)
    """Number of newest checkpoints kept."""
    keep_best: str | None = None
    """Name of the metric (docs/metrics.md) whose best checkpoint is kept too, such as `reward/long`."""
    best_is: Literal["max", "min"] = "max"
    """Whether the largest or the smallest value of `keep_best` is the best one."""
