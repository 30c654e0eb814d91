"""Asks the workers of a run what they did in a step, and accounts for it."""

from __future__ import annotations

from collections.abc import Mapping

from hybrid_rl.build import Run
from hybrid_rl.insight.accounting import forward_work, phase_metrics, sampling_work
from hybrid_rl.updates.grpo import UpdateFigures


def step_accounting(
    run: Run, figures: UpdateFigures, wall_s: Mapping[str, float]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The figures of a step's phases, and what the user should be told of them.

    What was done between steps, such as evaluations, was taken by `forget`.
    """
    sampling = run.rollouts.take_figures()
    work = {
        "generate": sampling_work(sampling),
        "reference": forward_work(run.reference.take_figures()),
        "update": forward_work(figures.forward, trained=True),
    }
    return phase_metrics(work, wall_s, run.yardstick), (*sampling.notices, *figures.notices)


def forget(run: Run) -> tuple[str, ...]:
    """What the workers have done so far belongs to no step; returns what the user should be told of it."""
    run.reference.take_figures()
    return run.rollouts.take_figures().notices
