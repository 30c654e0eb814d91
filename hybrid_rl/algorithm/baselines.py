"""Baselines by name: which responses are compared with which.

| name        | compares                                                          | modes                    |
| ----------- | ----------------------------------------------------------------- | ------------------------ |
| within_mode | the responses of a prompt in one mode                             | any                      |
| joint       | all responses of a prompt                                         | chosen by the model only |
| bpo         | all responses of a prompt, as many in each of two modes           | `assign: paired`         |
| hgpo        | each mode's best with the rest, and the modes with each other     | `assign: paired`         |
| ada_grpo    | all responses of a prompt, rewards of rare formats raised         | chosen by the model only |
| thinkless   | the responses of a prompt; the mode token has a loss of its own   | chosen by the model only |

A joint baseline over assigned modes pushes down correct short responses wherever the long mode is better, which teaches
nothing, for the mode was not theirs to choose; so it is refused unless the scheme is built on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from hybrid_rl.algorithm.advantage import GroupAdvantage
from hybrid_rl.config import Config
from hybrid_rl.errors import ConfigError, PluginError
from hybrid_rl.plugins import build
from hybrid_rl.protocols import Baseline, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A response as a baseline sees it.

    Attributes:
        mode: the mode that was asked for.
        format: the mode that it is in: the same, or where the model chooses, what it chose.
        thinks: its mode asks for a thought, or where the model chooses, it has one.
        reward: None where it has none.
    """

    mode: str
    format: str
    thinks: bool
    reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the run is: step from 1, of `total` steps."""

    step: int
    total: int


class WithinMode:
    """A_i from the responses of the same prompt in the same mode."""

    joint = False
    paired = False
    additive = True
    needs_mode_token = False
    mode_token_weight: float | None = None

    def advantages(
        self, groups: Sequence[Sequence[Member]], estimate: Estimate, progress: Progress
    ) -> list[GroupAdvantage]:
        return [estimate([member.reward for member in group]) for group in groups]


class Joint(WithinMode):
    """A_i from all responses of the same prompt."""

    joint = True

    def advantages(
        self, groups: Sequence[Sequence[Member]], estimate: Estimate, progress: Progress
    ) -> list[GroupAdvantage]:
        return divided(groups, estimate([member.reward for member in chain(*groups)]))


class BiMode(Joint):
    """R-4B's BPO (arXiv 2508.21113, section 3.3): g responses forced to think and g forced not to, merged into one
    group of 2 g, and advantages over that group."""

    paired = True


def divided(groups: Sequence[Sequence[Member]], merged: GroupAdvantage) -> list[GroupAdvantage]:
    """The advantages of a merged group, given back to the groups that it was merged from."""
    values = iter(merged.values)
    return [
        GroupAdvantage(values=tuple(islice(values, len(group))), std=merged.std, signal=merged.signal)
        for group in groups
    ]


_SCHEMES = "hybrid_rl.algorithm.mode_schemes"
BUILT_IN = {
    "within_mode": f"{__name__}:WithinMode",
    "joint": f"{__name__}:Joint",
    "bpo": f"{__name__}:BiMode",
    "hgpo": f"{_SCHEMES}:HybridGroups",
    "ada_grpo": f"{_SCHEMES}:FormatScaling",
    "thinkless": f"{_SCHEMES}:DecoupledChoice",
}
_PARTS = ("joint", "paired", "additive", "needs_mode_token", "mode_token_weight", "advantages")


def load_baseline(config: Config) -> Baseline:
    """The baseline that `train.baseline` names: a short name above, `module:Class` or `file.py:Class`.

    Raises:
        PluginError: it does not load, its arguments do not fit, or it lacks a part of the Protocol.
    """
    name, arguments = config.train.baseline, config.train.baseline_args
    if name not in BUILT_IN and ":" not in name:
        near = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"built in are {', '.join(BUILT_IN)}."
        raise PluginError(f"train.baseline: there is no '{name}'; {hint} Or write module:Class or file.py:Class")
    baseline: Any = build(BUILT_IN.get(name, name), config.search, **arguments)
    missing = [part for part in _PARTS if not hasattr(baseline, part)]
    if missing:
        raise PluginError(
            f"train.baseline '{name}' has no {missing[0]}; a baseline has {', '.join(_PARTS)} "
            f"(hybrid_rl.protocols.Baseline)"
        )
    found: Baseline = baseline
    if config.train.aggregate == "normalize_then_sum" and not found.additive:
        raise ConfigError(
            f"train.aggregate normalize_then_sum normalises each part of the reward by itself, and train.baseline "
            f"{name} works on their sum; choose sum_then_normalize or another baseline"
        )
    return found
