"""How `modes.assign` deals the responses of a step to modes. Every dealer is a pure function of the step.

Counts are stratified, not drawn: over the run, what a mode has had stays within one prompt (`per_prompt`) or one
response (`per_rollout`) of its share, whatever the number of prompts.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from hybrid_rl.algorithm.modes import StratifiedModes, spread
from hybrid_rl.algorithm.quota import quotas
from hybrid_rl.algorithm.ratio import ratios, scheduled_count
from hybrid_rl.config import Config
from hybrid_rl.config.ratio import RatioConfig, ScheduleConfig
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.protocols import ModeSchedule
from hybrid_rl.records import Prompt, stable_seed

COLUMN = "mode"
"""The data column of `modes.assign: column`."""

Counts = list[Mapping[str, int]]


# --- strata: modes in exact proportion --------------------------------------------------------------------------------


class Strata(Protocol):
    """Modes in proportion, for the prompts of a step or for each of their responses."""

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]: ...

    def deal(self, step: int, sources: Sequence[str], each: int) -> list[str]:
        """`each` modes for every prompt, whose sources are given; those of a prompt adjacent [prompts x each]."""
        ...


class ConstantShares:
    """Shares that do not change."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._modes = StratifiedModes(shares)

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]:
        return self._modes.shares

    def deal(self, step: int, sources: Sequence[str], each: int) -> list[str]:
        return self._modes.assign(step, len(sources) * each)


class ScheduledRatio:
    """Two modes; the share of the second follows a schedule."""

    def __init__(self, kinds: Sequence[str], ratio: ScheduleConfig) -> None:
        self._first, self._second = kinds
        self._ratio = ratio

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]:
        ratio = float(ratios(self._ratio, step)[-1])
        return {self._first: 1 - ratio, self._second: ratio}

    def deal(self, step: int, sources: Sequence[str], each: int) -> list[str]:
        total = len(sources) * each
        count = scheduled_count(self._ratio, step, total)
        return _turned({self._first: total - count, self._second: count}, step)


class RatioBySource:
    """Two modes; each source has a ratio of its own, a number or a schedule.

    Args:
        weights: of the sources, which decide how many prompts each has had before a step.

    Raises:
        ConfigError: the ratios are not those of the sources.
    """

    def __init__(
        self, kinds: Sequence[str], ratio: Mapping[str, float | ScheduleConfig], weights: Mapping[str, float]
    ) -> None:
        for source in {**ratio, **weights}:
            if source not in weights or source not in ratio:
                wrong = "has no ratio" if source in weights else "is no source"
                raise ConfigError(
                    f"modes.long_ratio.by_source: '{source}' {wrong}; give a ratio to each of {', '.join(weights)}"
                )
        self._first, self._second = kinds
        self._ratio = dict(ratio)
        self._weights = dict(weights)
        self._drawn: dict[int, list[list[int]]] = {}

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]:
        weights = self._weights if source is None else {source: 1.0}
        now = {name: float(ratios(self._ratio[name], step)[-1]) for name in weights}
        ratio = sum(now[name] * weight for name, weight in weights.items()) / sum(weights.values())
        return {self._first: 1 - ratio, self._second: ratio}

    def deal(self, step: int, sources: Sequence[str], each: int) -> list[str]:
        drawn = dict(zip(self._weights, zip(*self._prompts(step, len(sources)), strict=True), strict=True))
        here = Counter(sources)
        modes = {name: iter(self._modes(name, drawn[name], n, each, step)) for name, n in here.items()}
        return [next(modes[source]) for source in sources for _ in range(each)]

    def _prompts(self, step: int, num_prompts: int) -> list[list[int]]:
        """How many prompts each source has in the steps 1 to `step` [step x sources]; kept, to be counted once."""
        known = self._drawn.setdefault(num_prompts, [])
        weights = list(self._weights.values())
        for place in range(len(known), step):
            known.append(quotas(weights, place * num_prompts, (place + 1) * num_prompts))
        return known[:step]

    def _modes(self, source: str, drawn: Sequence[int], count: int, each: int, step: int) -> list[str]:
        """Modes of the responses, `each` to the `count` prompts of a step; `drawn`: prompts of the steps up to it."""
        ratio = self._ratio[source]
        if isinstance(ratio, ScheduleConfig):
            second = scheduled_count(ratio, step, [each * n for n in [*drawn[:-1], count]])
            first = count * each - second
        else:
            before = sum(drawn[:-1]) * each
            first, second = quotas([1 - ratio, ratio], before, before + count * each)
        return _turned({self._first: first, self._second: second}, step)


def _turned(counts: Mapping[str, int], step: int) -> list[str]:
    """The modes evenly spread, beginning elsewhere in every step, so that no place is tied to a mode."""
    modes = spread(counts)
    turn = (step - 1) % max(1, len(modes))
    return modes[turn:] + modes[:turn]


# --- dealers ----------------------------------------------------------------------------------------------------------


class PerPrompt:
    """All responses of a prompt in one mode."""

    def __init__(self, strata: Strata) -> None:
        self.shares = strata.shares
        self._strata = strata

    def assign(self, step: int, prompts: Sequence[Prompt], num_responses: int) -> Counts:
        return [{mode: num_responses} for mode in self._strata.deal(step, [p.source for p in prompts], 1)]


class PerRollout:
    """Every response in a mode of its own; which responses of a source are in which mode is shuffled by the seed."""

    def __init__(self, strata: Strata, seed: int) -> None:
        self.shares = strata.shares
        self._strata = strata
        self._seed = seed

    def assign(self, step: int, prompts: Sequence[Prompt], num_responses: int) -> Counts:
        sources = [prompt.source for prompt in prompts]
        dealt = np.array(self._strata.deal(step, sources, num_responses))
        owner = np.repeat(np.array(sources), num_responses)
        for source in dict.fromkeys(sources):
            mine = np.flatnonzero(owner == source)
            shuffler = np.random.default_rng(stable_seed("modes of responses", self._seed, step, source))
            dealt[mine] = dealt[shuffler.permutation(mine)]
        rows = [Counter(row) for row in dealt.reshape(len(prompts), num_responses).tolist()]
        return [{mode: row[mode] for mode in sorted(row)} for row in rows]


class Paired:
    """Every prompt in every mode that has a share; its responses are divided by the shares (R-4B, HGPO).

    Raises:
        ConfigError: a share of the responses is not a whole number, or is one, which has nothing to be compared with.
    """

    def __init__(self, shares: Mapping[str, float], num_responses: int) -> None:
        counts = {mode: round(share * num_responses) for mode, share in shares.items()}
        for mode, share in shares.items():
            if abs(counts[mode] - share * num_responses) > 1e-6 or counts[mode] == 1:
                raise ConfigError(
                    f"modes.assign paired divides the {num_responses} responses of a prompt by the shares of the "
                    f"modes, and {share:g} of {num_responses} for mode {mode} is not a whole number of at least 2; "
                    f"change train.responses_per_prompt or the shares"
                )
        self._shares = dict(shares)
        self._counts = {mode: count for mode, count in counts.items() if count}

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]:
        return self._shares

    def assign(self, step: int, prompts: Sequence[Prompt], num_responses: int) -> Counts:
        return [self._counts for _ in prompts]


class FromColumn:
    """The mode that stands in the data row of the prompt."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = list(kinds)

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]:
        return {}

    def assign(self, step: int, prompts: Sequence[Prompt], num_responses: int) -> Counts:
        return [{self._mode_of(prompt): num_responses} for prompt in prompts]

    def _mode_of(self, prompt: Prompt) -> str:
        """The prompt's mode.

        Raises:
            DataError: its row has no column `mode`, or a mode that does not exist.
        """
        where = f"modes.assign column: prompt {prompt.id} of source {prompt.source}"
        if COLUMN not in prompt.columns:
            raise DataError(f"{where} has no column '{COLUMN}'; give every row one of {', '.join(self._kinds)}")
        mode = str(prompt.columns[COLUMN])
        if mode not in self._kinds:
            near = difflib.get_close_matches(mode, self._kinds, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"modes.kinds has {', '.join(self._kinds)}"
            raise DataError(f"{where} has the mode '{mode}', which does not exist; {hint}")
        return mode


def mode_schedule(config: Config) -> ModeSchedule:
    """The dealer that `modes.assign` and the shares of a config ask for.

    Raises:
        ConfigError: the responses of a prompt cannot be divided as `paired` wants, or a source has no ratio.
    """
    modes, ratio = config.modes, config.modes.long_ratio
    kinds = list(modes.kinds)
    if modes.assign == "column":
        return FromColumn(kinds)
    if modes.assign == "paired":
        return Paired(modes.shares, config.train.responses_per_prompt)
    strata: Strata
    if not isinstance(ratio, RatioConfig):
        strata = ConstantShares(modes.shares)
    elif ratio.by_source is not None:
        weights = {name: source.weight for name, source in config.data.sources.items()}
        strata = RatioBySource(kinds, ratio.by_source, weights)
    else:
        strata = ScheduledRatio(kinds, ratio)
    return PerRollout(strata, config.run.seed) if modes.assign == "per_rollout" else PerPrompt(strata)
