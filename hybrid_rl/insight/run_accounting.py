"""Asks the workers of a run what they did in a step, and accounts for it."""

from __future__ import annotations

from collections.abc import Mapping

from hybrid_rl.build import Run
from hybrid_rl.insight.accounting import forward_work, phase_metrics, sampling_work
from hybrid_rl.updates.grpo import UpdateFigures


def step_accounting(run: Run, figures: UpdateFigures, wall_s: Mapping[str, float]) -> dict[str, float]:
    """The figures of a step's phases; what was done between steps, such as evaluations, was taken by `forget`."""
    work = {
        "generate": sampling_work(run.rollouts.take_figures()),
        "reference": forward_work(run.reference.take_figures()),
        "update": forward_work(figures.forward, trained=True),
    }
    return phase_metrics(work, wall_s, run.yardstick)


def forget(run: Run) -> None:
    """What the workers have done so far belongs to no step."""
    run.rollouts.take_figures()
    run.reference.take_figures()
