"""The ratio of the second mode at a step, and how many prompts it comes to: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hybrid_rl.config.ratio import ScheduleConfig


def ratios(config: float | ScheduleConfig, num_steps: int) -> npt.NDArray[np.float64]:
    """The ratio at steps 1 to `num_steps` [num_steps].

    `linear` and `cosine` have `start` at step 1 and `end` at step `over_steps`:

        linear  start + (end - start) p,  cosine  end + (start - end) (1 + cos(pi p)) / 2,  p = (step - 1) / (over - 1)
    """
    steps = np.arange(1, num_steps + 1)
    if not isinstance(config, ScheduleConfig):
        return np.full(num_steps, float(config))
    if config.schedule == "steps":
        assert config.milestones is not None and config.values is not None
        return np.asarray(config.values)[np.searchsorted(config.milestones, steps, side="right")]
    assert config.start is not None and config.end is not None and config.over_steps is not None
    whole = config.over_steps - 1
    progress = np.clip((steps - 1) / whole, 0, 1) if whole else np.ones(num_steps)
    if config.schedule == "cosine":
        return config.end + (config.start - config.end) * (1 + np.cos(np.pi * progress)) / 2
    return config.start + (config.end - config.start) * progress


def scheduled_count(config: float | ScheduleConfig, step: int, num_prompts: int | Sequence[int]) -> int:
    """How many of the prompts of a step are in the second mode.

    The total over the run follows the sum of the ratios, each times its step's prompts, to within half a prompt.

    Args:
        num_prompts: of every step, or of each of the steps 1 to `step`.
    """
    # Rounded off, so that a sum that should be whole, or half of it, is not thrown to the wrong side by its last bits.
    totals = np.round(np.cumsum(np.asarray(num_prompts) * ratios(config, step)), 6)
    before = totals[-2] if step > 1 else 0.0
    return math.floor(totals[-1] + 0.5) - math.floor(before + 0.5)
