"""`rewards`: weighted parts of the reward, by name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hybrid_rl.config.section import Arguments, Section


class RewardConfig(Section):
    """A part of the reward."""

    target: str | None = None
    """The reward: `module:name` or `file.py:name`."""
    by_task: dict[str, str] | None = None
    """Instead of `target`: the reward of each task; a task that is not listed does without this part."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the reward, if it is a class."""
    weight: float = 1.0
    """Weight of the part in the sum."""
    runs_in: Literal["pool", "inline"] | None = None
    """`pool`: in processes that are killed at `timeout_s`. `inline`: in the reward worker itself, without a limit.
    Unset: as the reward declares, else `pool`."""
    timeout_s: float = Field(default=1.0, gt=0)
    """Seconds that the reward may take for one response, in the pool."""
    max_error_share: float = Field(default=0.0, ge=0, le=1)
    """The run stops when the reward fails on a larger share of a batch; a timeout is no failure."""

    @model_validator(mode="after")
    def _one_target(self) -> RewardConfig:
        if (self.target is None) == (self.by_task is None):
            raise ValueError("give either target or by_task")
        return self

    @property
    def targets(self) -> dict[str | None, str]:
        """Target by task; the key None stands for every task."""
        if self.target is not None:
            return {None: self.target}
        return {task: target for task, target in (self.by_task or {}).items()}
