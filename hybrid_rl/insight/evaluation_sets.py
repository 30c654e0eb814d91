"""Evaluation on a named set: several samples a prompt, mean@n and pass@k."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config.evaluation import EvaluationSetConfig
from hybrid_rl.config.modes import KindConfig, ModesConfig
from hybrid_rl.insight.evaluation import Generates, Scores, accuracy_of, mode_figures, response_row
from hybrid_rl.insight.metrics import mean
from hybrid_rl.records import Prompt, Rollout, Score

_BATCH = 512
"""Responses asked for at once; those of a prompt stay together."""
_SLACK = 1e-9
"""A reward of 0.1 + 0.9 is 1."""


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that at least one of k responses is right, estimated without bias from more of them.

    1 - C(n - c, k) / C(n, k), with c of n samples right (arXiv 2107.03374, equation 1).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise ValueError(f"pass@{k} of {samples} samples, {right} right: k must be in 1..n, and right in 0..n")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def modes_of_set(config: EvaluationSetConfig, modes: ModesConfig, thinking: Sequence[str]) -> ModesConfig:
    """The set's modes with its sampling.

    Args:
        thinking: modes that may have a thought; a thinking budget is theirs alone.
    """
    kinds = {name: _kind(config, modes.kinds[name], name in thinking) for name in config.modes or modes.kinds}
    return modes.model_copy(update={"kinds": kinds, "long_ratio": None})


def _kind(config: EvaluationSetConfig, kind: KindConfig, thinks: bool) -> KindConfig:
    changes: dict[str, Any] = {
        "temperature": config.temperature,
        "max_new_tokens": config.max_new_tokens,
        "max_think_tokens": config.max_think_tokens if thinks else None,
    }
    return kind.model_copy(update={name: value for name, value in changes.items() if value is not None})


def evaluate_set(
    prompts: Sequence[Prompt],
    config: EvaluationSetConfig,
    modes: ModesConfig,
    rollouts: Generates,
    rewards: Scores,
    *,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> dict[str, Any]:
    """Answer each prompt `samples_per_prompt` times in each mode.

    Args:
        modes: as `modes_of_set` makes them.
        progress, keep: as in `evaluate`.

    Returns:
        By mode what `evaluate` returns, its `accuracy` being mean@n, with `n` responses; and `prompts`, `samples` a
        prompt, and `pass` by k.
    """
    each = config.samples_per_prompt
    requests = list(
        chain.from_iterable(
            make_requests(prompts, [mode] * len(prompts), modes, step=0, num_responses=each, seed=seed)
            for mode in modes.kinds
        )
    )
    size = max(1, _BATCH // each) * each
    found: list[tuple[Rollout, Score]] = []
    for start in range(0, len(requests), size):
        answered = rollouts.generate(requests[start : start + size])
        found += zip(answered, rewards.score(answered), strict=True)
        progress(len(found))
    keep([response_row(rollout, score) for rollout, score in found])
    return {mode: _figures([f for f in found if f[0].request.mode == mode], config) for mode in modes.kinds}


def _figures(found: Sequence[tuple[Rollout, Score]], config: EvaluationSetConfig) -> dict[str, Any]:
    right: dict[str, int] = defaultdict(int)
    for rollout, score in found:
        right[rollout.request.group] += accuracy_of(score) >= config.right_from - _SLACK
    n = config.samples_per_prompt
    return {
        **mode_figures(found),
        "prompts": len(right),
        "samples": n,
        "pass": {str(k): mean(pass_at_k(n, c, k) for c in right.values()) for k in config.pass_at},
    }
