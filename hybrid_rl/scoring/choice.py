"""Which reward of a part a prompt gets: by task, by a column, or by the shape of its reference answer."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import ConfigError, PluginError
from hybrid_rl.plugins import load
from hybrid_rl.records import Prompt


class Choice:
    """Chooses among the targets of one part.

    Raises:
        PluginError: `shape` does not load.
    """

    def __init__(self, name: str, config: RewardConfig, search: Sequence[str]) -> None:
        self._name = name
        self._config = config
        self._shape_of: Callable[[Prompt], str] | None = load(config.shape, search) if config.by_shape else None
        if self._shape_of is not None and not callable(self._shape_of):
            raise PluginError(f"rewards.{name}.shape: '{config.shape}' is not callable; name a function of a prompt")

    def key(self, prompt: Prompt) -> str | None:
        """What chooses for this prompt: its task, the value of its column, its shape; None if nothing does."""
        config = self._config
        if config.by_task is not None:
            return prompt.task
        if config.column is not None:
            return str(prompt.columns.get(config.column))
        return self._shape_of(prompt) if self._shape_of is not None else None

    def refusal(self, prompt: Prompt) -> ConfigError:
        """That the prompt, which must have a reward, has none."""
        key = self.key(prompt)
        listed = [str(known) for known in self._config.targets]
        topic, origin = "task", "by_task"
        if self._config.column is not None:
            topic, origin = f"{self._config.column} =", "by_column"
        elif self._config.by_shape is not None:
            topic, origin = "shape", "by_shape"
        near = difflib.get_close_matches(str(key), listed, n=1)
        hint = f"did you mean '{near[0]}' to be it?" if near else f"{origin} has {', '.join(listed)}"
        where = "" if origin == "by_task" else f" (prompt {prompt.id})"
        return ConfigError(
            f"rewards.{self._name} has no reward for {topic} '{key}' of source {prompt.source}{where}; {hint}"
        )
