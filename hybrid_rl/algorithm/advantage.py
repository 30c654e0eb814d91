"""Group-relative advantages (GRPO, arXiv 2402.03300, eq. 3 of section 4.1.2).

A_i = (r_i - mean) / (std + eps), over the scored responses of one group (one prompt in one mode), with the unbiased
standard deviation (divisor G - 1), as TRL and verl compute it; eps is 1e-4 as in TRL. The other scales are

    none           A_i = r_i - mean                      Dr.GRPO, arXiv 2503.20783
    leave_one_out  A_i = r_i - mean of the others        RLOO, arXiv 2402.14740; = G / (G - 1) (r_i - mean)

What is not obvious: responses without a score leave mean and std and get 0; a group with fewer than two scores, or
whose rewards are all equal, gets 0 everywhere and is counted. verl instead gives a group of one its raw reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hybrid_rl.records import Sample

Signal = Literal["ok", "zero_variance", "few_scored"]
Scale = Literal["std", "none", "leave_one_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAdvantage:
    """Advantages of one group and why they may be zero.

    Attributes:
        values: one per response.
        std: unbiased standard deviation of the scored rewards; 0 with fewer than two.
        signal: `ok`, or the reason for all-zero advantages.
        mode_token_values: added to the advantage of the token that chooses the mode, one per response; empty where
            that token has no advantage of its own.
    """

    values: tuple[float, ...]
    std: float
    signal: Signal
    mode_token_values: tuple[float, ...] = ()


def group_advantages(
    rewards: Sequence[float | None], *, eps: float, min_std: float, scale: Scale = "std"
) -> GroupAdvantage:
    """Advantages of one group.

    Args:
        rewards: reward of each response, None where it has none.
        eps: added to the standard deviation.
        min_std: a smaller standard deviation counts as no variance.
        scale: see above; without `std`, eps has no effect.
    """
    scored = [r for r in rewards if r is not None]
    zeros = (0.0,) * len(rewards)
    if len(scored) < 2:
        return GroupAdvantage(values=zeros, std=0.0, signal="few_scored")
    mean = math.fsum(scored) / len(scored)
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in scored) / (len(scored) - 1))
    if std <= min_std:
        return GroupAdvantage(values=zeros, std=std, signal="zero_variance")
    factor = {"std": 1 / (std + eps), "none": 1.0, "leave_one_out": len(scored) / (len(scored) - 1)}[scale]
    values = tuple(0.0 if r is None else (r - mean) * factor for r in rewards)
    return GroupAdvantage(values=values, std=std, signal="ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The samples of one prompt in one mode, with their advantage statistics.

    Attributes:
        dropped: why admission has left the group out (`hybrid_rl.algorithm.admission`); empty where it is trained on.
    """

    samples: tuple[Sample, ...]
    advantage: GroupAdvantage
    dropped: str = ""

    @property
    def mode(self) -> str:
        return self.samples[0].rollout.request.mode

    @property
    def name(self) -> str:
        """`group` of its requests."""
        return self.samples[0].rollout.request.group

    @property
    def place(self) -> int:
        """Of the draw of its prompt in the step."""
        return self.samples[0].rollout.request.place
