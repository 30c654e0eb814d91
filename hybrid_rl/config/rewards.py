"""`rewards`: weighted parts of the reward, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from hybrid_rl.config.section import Arguments, Section


class TargetConfig(Section):
    """A reward with arguments of its own; just its name is enough."""

    target: str
    """The reward: `module:name` or `file.py:name`."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the reward, if it is a class, beside those of the part."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"target": value} if isinstance(value, str) else value


_CHOICES = ("target", "by_task", "by_column", "by_shape")


class RewardConfig(Section):
    """A part of the reward."""

    target: str | None = None
    """The reward: `module:name` or `file.py:name`."""
    by_task: dict[str, TargetConfig] | None = None
    """Instead of `target`: the reward of each task; a task that is not listed does without this part."""
    by_column: dict[str, TargetConfig] | None = None
    """Instead of `target`: the reward of each value of the data column `column`; other rows do without this part."""
    column: str | None = None
    """The data column of `by_column`."""
    by_shape: dict[str, TargetConfig] | None = None
    """Instead of `target`: the reward of each shape of the reference answer, as `shape` tells them apart."""
    shape: str = "rewards.answer_shape:answer_shape"
    """For `by_shape`: a function of a prompt (`hybrid_rl.Prompt`) that returns the name of a shape."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the reward, if it is a class."""
    weight: float = 1.0
    """Weight of the part in the sum."""
    standardize: bool = False
    """The part adds (value - mean) / std over the responses of the same prompt and mode that have a value, clipped to
    [-3, 3]; 0 where they are all alike, and where it abstains."""
    runs_in: Literal["pool", "inline", "async", "actor"] | None = None
    """`pool`: in processes that are killed at `timeout_s`. `inline`: in the reward worker itself, without a limit.
    `async`: a coroutine, many at once. `actor`: in a worker of its own, for models. Unset: as the reward declares, else
    `async` for a coroutine, and `pool`."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that the reward may take for one response, in the pool and where it is async. Unset: as the reward
    declares, else 1."""
    max_concurrency: int = Field(default=8, ge=1)
    """Calls of an async reward that are under way at once, in each reward worker."""
    max_error_share: float = Field(default=0.0, ge=0, le=1)
    """The run stops when the reward fails on a larger share of a batch; a timeout is no failure."""

    @model_validator(mode="after")
    def _one_choice(self) -> RewardConfig:
        given = [name for name in _CHOICES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(_CHOICES)}" + (f", not {' and '.join(given)}" if given else ""))
        if (self.column is None) != (self.by_column is None):
            raise ValueError("by_column and column belong together: by_column lists rewards by the values of a column")
        return self

    @property
    def targets(self) -> Mapping[str | None, TargetConfig]:
        """Targets by what chooses between them; the key None stands for everything."""
        if self.target is not None:
            return {None: TargetConfig(target=self.target, args=self.args)}
        listed = self.by_task or self.by_column or self.by_shape or {}
        return {
            key: TargetConfig(target=entry.target, args={**self.args, **entry.args}) for key, entry in listed.items()
        }
