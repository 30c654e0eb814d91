"""Notices, while a run goes on, reward parts that no longer teach anything, or that decide everything."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

_STEPS = 20
"""A sentence is said when every one of so many steps in a row gives cause."""
_ALIKE = 0.01
_NEARLY_ALL = 0.95


class PartWatch:
    """Looks at the metrics of each step.

    Args:
        parts: names of the config's reward parts.
        modes: names of the modes.
        past: metrics of the steps so far, of a resumed run.
        said: sentences that need not be repeated.
    """

    def __init__(
        self,
        parts: Sequence[str],
        modes: Sequence[str],
        past: Iterable[Mapping[str, float]] = (),
        said: Iterable[str] = (),
    ) -> None:
        self._places = [(part, mode) for part in parts for mode in modes]
        self._recent: deque[Mapping[str, float]] = deque(past, maxlen=_STEPS)
        self._said = set(said)

    def step(self, metrics: Mapping[str, float]) -> list[str]:
        """New sentences after a step."""
        self._recent.append(metrics)
        if len(self._recent) < _STEPS:
            return []
        found = [sentence for part, mode in self._places for sentence in self._look_at(part, mode)]
        new = [sentence for sentence in found if sentence not in self._said]
        self._said.update(new)
        return new

    def _look_at(self, part: str, mode: str) -> list[str]:
        sentences = []
        means, stds = self._row(f"part/{part}/{mode}"), self._row(f"part_std/{part}/{mode}")
        shares = self._row(f"part_share/{part}/{mode}")
        # A penalty that nobody earns is alike as well, and as it should be; only of accuracy is zero bad news.
        at_work = part == "accuracy" or any(abs(mean) > _ALIKE for mean in means)
        if len(stds) == _STEPS and max(stds) <= _ALIKE and at_work:
            sentences.append(
                f"rewards.{part} has given every response in mode {mode} nearly the same value for {_STEPS} steps: it "
                f"teaches nothing there any more, or does not work"
            )
        # That accuracy decides is what it is there for.
        if len(shares) == _STEPS and min(shares) >= _NEARLY_ALL and part != "accuracy":
            sentences.append(
                f"rewards.{part} has made up more than {100 * _NEARLY_ALL:.0f} % of the advantage in mode {mode} for "
                f"{_STEPS} steps: the other parts hardly count there; are the weights meant like this?"
            )
        return sentences

    def _row(self, key: str) -> list[float]:
        return [metrics[key] for metrics in self._recent if key in metrics]
