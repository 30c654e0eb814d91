"""Accuracy on held-out prompts, by mode: the same prompts in every mode, sampled as in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from hybrid_rl.algorithm.mode_choice import Answered, hybrid_accuracy
from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.insight.metrics import mean
from hybrid_rl.protocols import Thought
from hybrid_rl.records import Prompt, Request, Rollout, Score

_BATCH = 512
"""Responses asked for at once; bounds what is in flight and sets the pace of the progress display."""


class Generates(Protocol):
    def generate(self, requests: Sequence[Request]) -> list[Rollout]: ...


class Scores(Protocol):
    def score(self, rollouts: Sequence[Rollout]) -> list[Score]: ...


def evaluate(
    prompts: Sequence[Prompt],
    modes: ModesConfig,
    rollouts: Generates,
    rewards: Scores,
    *,
    seed: int,
    thoughts: Mapping[str, Thought],
    progress: Callable[[int], None] = lambda done: None,
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> dict[str, Any]:
    """Answer each prompt once in each mode.

    Args:
        seed: equal seeds draw equal random numbers, so that two evaluations of one run are a paired comparison.
        thoughts: what each mode leaves open.
        progress: told the number of responses that are done.
        keep: given one row a response at the end: `mode, prompt_id, task, source, index, accuracy, tokens`.

    Returns:
        By mode: `accuracy`, `accuracy_when_well_formed` (None where nothing is), `mean_tokens`, `n`, `leak_rate`,
        `closed_by_budget`, and `accuracy`, `mean_tokens`, `n` by task and by source; for a mode that leaves the choice
        to the model also `thinks`, the share of responses with a thought, and `hybrid_accuracy`
        (`hybrid_rl.algorithm.mode_choice`).
    """
    requests = list(
        chain.from_iterable(
            make_requests(prompts, [mode] * len(prompts), modes, step=0, num_responses=1, seed=seed)
            for mode in modes.kinds
        )
    )
    found: list[tuple[Rollout, Score]] = []
    for start in range(0, len(requests), _BATCH):
        answered = rollouts.generate(requests[start : start + _BATCH])
        found += zip(answered, rewards.score(answered), strict=True)
        progress(len(found))
    keep([response_row(rollout, score) for rollout, score in found])
    figures = {mode: mode_figures([f for f in found if f[0].request.mode == mode]) for mode in modes.kinds}
    answers = [
        Answered((r.request.prompt.source, r.request.prompt.id, r.request.place), r, accuracy_of(s)) for r, s in found
    ]
    for mode, value in hybrid_accuracy(answers, thoughts).items():
        figures[mode]["hybrid_accuracy"] = value
    for mode in (mode for mode in modes.kinds if thoughts[mode] == "free"):
        own = [rollout for rollout, _ in found if rollout.request.mode == mode]
        figures[mode]["thinks"] = mean(bool(rollout.response.thought) for rollout in own)
    return figures


def response_row(rollout: Rollout, score: Score) -> dict[str, Any]:
    """What is kept of a response; `index` counts the responses to a prompt in a mode."""
    prompt = rollout.request.prompt
    return {
        "mode": rollout.request.mode,
        "prompt_id": prompt.id,
        "task": prompt.task,
        "source": prompt.source,
        "index": rollout.request.index,
        "accuracy": accuracy_of(score),
        "tokens": rollout.num_sampled_tokens,
    }


def mode_figures(found: Sequence[tuple[Rollout, Score]]) -> dict[str, Any]:
    """The figures of a mode's responses, as `evaluate` returns them."""
    well_formed = [accuracy_of(score) for rollout, score in found if rollout.well_formed]
    figures: dict[str, Any] = _figures(found)
    figures["accuracy_when_well_formed"] = mean(well_formed) if well_formed else None
    figures["closed_by_budget"] = mean(rollout.closed_by_budget for rollout, _ in found)
    figures["leak_rate"] = mean(rollout.response.leaked for rollout, _ in found)
    figures["well_formed"] = len(well_formed) / len(found) if found else 0.0
    tasks = dict.fromkeys(rollout.request.prompt.task for rollout, _ in found)
    sources = dict.fromkeys(rollout.request.prompt.source for rollout, _ in found)
    figures["tasks"] = {t: _figures([f for f in found if f[0].request.prompt.task == t]) for t in tasks}
    figures["sources"] = {s: _figures([f for f in found if f[0].request.prompt.source == s]) for s in sources}
    return figures


def _figures(found: Sequence[tuple[Rollout, Score]]) -> dict[str, Any]:
    return {
        "accuracy": mean(accuracy_of(score) for _, score in found),
        "mean_tokens": mean(rollout.num_sampled_tokens for rollout, _ in found),
        "n": len(found),
    }


def accuracy_of(score: Score) -> float:
    """What cannot be judged does not count as right."""
    return score.parts.get("accuracy", 0.0)
