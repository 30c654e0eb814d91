"""Every evaluation of a policy in one place: plain, blind, and on named sets, by whatever workers there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybrid_rl.config import Config
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.images import blanked
from hybrid_rl.insight.evaluation import Generates, Scores, evaluate
from hybrid_rl.insight.evaluation_sets import evaluate_set, modes_of_set
from hybrid_rl.preflight import Material
from hybrid_rl.records import Prompt
from hybrid_rl.videos import blanked_video

Progress = Callable[[int], None]
Keep = Callable[[list[dict[str, Any]]], None]


def _quiet(done: int) -> None:
    return None


def _kept_nowhere(rows: list[dict[str, Any]]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates with the weights that the workers hold. Equal seeds make all of it paired."""

    config: Config
    material: Material
    rollouts: Generates
    rewards: Scores

    def plain(self, progress: Progress = _quiet, keep: Keep = _kept_nowhere) -> dict[str, Any]:
        """The evaluation proper; `keep` is given its single responses."""
        return self._evaluate(self.material.eval_prompts, self.config.modes, progress, keep)

    def blind(self, progress: Progress = _quiet, keep: Keep = _kept_nowhere) -> dict[str, Any]:
        """The same with every image and video blanked."""
        blanked_prompts = [blind(prompt) for prompt in self.material.eval_prompts]
        return self._evaluate(blanked_prompts, self.config.modes, progress, keep)

    def limited(self, modes: ModesConfig, progress: Progress = _quiet) -> dict[str, Any]:
        """The same prompts in other modes, or with other budgets."""
        return self._evaluate(self.material.eval_prompts, modes, progress)

    def on_set(self, name: str, progress: Progress = _quiet, keep: Keep = _kept_nowhere) -> dict[str, Any]:
        """The evaluation on a named set."""
        chosen = self.config.evaluation.sets[name]
        modes = modes_of_set(chosen, self.config.modes, self.material.thinking_modes)
        return evaluate_set(
            self.material.set_prompts[name],
            chosen,
            modes,
            self.rollouts,
            self.rewards,
            seed=self.config.run.seed,
            progress=progress,
            keep=keep,
        )

    def responses(self, name: str | None = None) -> int:
        """How many responses an evaluation asks for: the one proper, or that of a set."""
        if name is None:
            return len(self.material.eval_prompts) * len(self.config.modes.kinds)
        chosen = self.config.evaluation.sets[name]
        modes = chosen.modes or self.config.modes.kinds
        return len(self.material.set_prompts[name]) * len(modes) * chosen.samples_per_prompt

    def _evaluate(
        self, prompts: Sequence[Prompt], modes: ModesConfig, progress: Progress, keep: Keep = _kept_nowhere
    ) -> dict[str, Any]:
        return evaluate(
            prompts,
            modes,
            self.rollouts,
            self.rewards,
            seed=self.config.run.seed,
            thoughts={mode: self.material.format.thought(mode) for mode in modes.kinds},
            progress=progress,
            keep=keep,
        )


def blind(prompt: Prompt) -> Prompt:
    """The prompt with its images and videos blanked."""
    return replace(prompt, images=tuple(map(blanked, prompt.images)), videos=tuple(map(blanked_video, prompt.videos)))
