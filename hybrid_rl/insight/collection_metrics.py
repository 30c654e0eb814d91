"""How the groups of a step came about: how old they are, and what dynamic sampling did, and where it fell short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hybrid_rl.collecting import Collected
from hybrid_rl.config import Config


def collection_metrics(collected: Collected, config: Config, version: int) -> dict[str, float]:
    """Figures of the groups of a step beside those of `step_metrics`, by the names of `hybrid_rl.insight.names`.

    Args:
        version: updates before that of the step.
    """
    groups = collected.groups
    result: dict[str, float] = {}
    if config.train.async_steps:
        lags = [version - sample.rollout.versions[0] for group in groups for sample in group.samples]
        result |= {"lag_mean": sum(lags) / len(lags), "lag_max": max(lags)}
    if collected.hidden_s:
        result["scoring_hidden_s"] = collected.hidden_s
    tokens: Counter[str] = Counter()
    for group in groups:
        if group.dropped:
            tokens[group.mode] += sum(sample.rollout.num_sampled_tokens for sample in group.samples)
    modes = dict.fromkeys(group.mode for group in groups)
    if config.admission.dynamic_sampling is not None:
        result["refill_rounds"] = collected.rounds
        result |= {f"missing/{mode}": collected.missing.get(mode, 0) for mode in modes}
    if config.admission.dynamic_sampling is not None or config.admission.std_filter is not None:
        result |= {f"dropped_tokens/{mode}": tokens[mode] for mode in modes}
    return result


class RefillWatch:
    """Says, once a mode, that a step has trained on fewer groups than it was to.

    Args:
        said: warnings that the run has given already.
    """

    def __init__(self, config: Config, said: Iterable[str]) -> None:
        self._rules = config.admission.dynamic_sampling
        said = list(said)
        self._said = {mode for mode in config.modes.kinds if any(text.startswith(_opening(mode)) for text in said)}

    def step(self, collected: Collected) -> list[str]:
        """The sentences that are new."""
        if self._rules is None:
            return []
        new = [mode for mode, count in collected.missing.items() if count and mode not in self._said]
        self._said.update(new)
        return [self._sentence(mode, collected) for mode in new]

    def _sentence(self, mode: str, collected: Collected) -> str:
        assert self._rules is not None
        kept = sum(group.mode == mode and not group.dropped for group in collected.groups)
        return (
            f"{_opening(mode)} {collected.missing[mode]} groups of the step without signal after {collected.rounds} "
            f"rounds, and the step trains on {kept}; raise admission.dynamic_sampling.max_rounds, or give the mode "
            f"prompts that it answers now and then (missing/{mode} counts on)"
        )


def _opening(mode: str) -> str:
    return f"dynamic sampling left mode {mode}"
