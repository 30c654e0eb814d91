"""What a run has spent so far, counted from its metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence


def spent(
    rows: Iterable[Mapping[str, float]], modes: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, int]]]:
    """Seconds of each phase of the steps, and tokens of each mode: `{mode: {"rollout": n, "update": n}}`.

    Args:
        rows: of `metrics.jsonl`.
    """
    phases: defaultdict[str, float] = defaultdict(float)
    tokens = {mode: {"rollout": 0, "update": 0} for mode in modes}
    for row in rows:
        for key, value in row.items():
            name, _, rest = key.partition("/")
            if name == "wall_s":
                phases[rest] += value
            elif name in ("rollout_tokens", "update_tokens"):
                tokens.setdefault(rest, {"rollout": 0, "update": 0})[name.removesuffix("_tokens")] += int(value)
    return dict(phases), tokens


def update_tokens(metrics: Mapping[str, float]) -> float:
    """Tokens that the loss of a step was computed on, in all modes."""
    return sum(value for key, value in metrics.items() if key.startswith("update_tokens/"))
