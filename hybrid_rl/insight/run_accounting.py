"""Asks the workers of a run what they did in a step, and accounts for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hybrid_rl.build import Run
from hybrid_rl.collecting import Collected
from hybrid_rl.insight.accounting import forward_work, phase_metrics, sampling_work
from hybrid_rl.updates.grpo import UpdateFigures


def step_accounting(
    run: Run, collected: Collected, figures: UpdateFigures, wall_s: Mapping[str, float]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The figures of a step's phases, and what the user should be told of them.

    Sampling is that of the rollouts which the step trains on. Where they were sampled ahead of it, its seconds are
    those that the workers worked: the step hardly waited for them.
    """
    work = {
        "generate": sampling_work(collected.sampling),
        "reference": forward_work(run.reference.take_figures()),
        "update": forward_work(figures.forward, trained=True),
    }
    seconds = dict(wall_s)
    if run.config.train.async_steps:
        seconds["generate"] = collected.sampling_s
    return phase_metrics(work, seconds, run.yardstick), (*collected.sampling.notices, *figures.notices)


def forget(run: Run) -> tuple[str, ...]:
    """What the workers have done between steps belongs to none; returns what the user should be told of it."""
    run.reference.take_figures()
    return run.rollouts.take_figures().notices


def untold(notices: Iterable[str], warnings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Those that a run has not been warned of: every worker that meets an obstacle speaks of it, and again when a run
    goes on."""
    told = {warning["text"] for warning in warnings}
    return [notice for notice in dict.fromkeys(notices) if notice not in told]
