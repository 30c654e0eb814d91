"""The warmup-stable-decay schedule of the learning rate (WSD, MiniCPM, arXiv 2404.06395, section 4)."""

from __future__ import annotations

from typing import Protocol


class Schedule(Protocol):
    """What the sections of a config that have a learning rate say of it.

    Attributes:
        warmup_steps: steps of linear rise.
        decay_fraction: last fraction of all steps, in which the rate falls.
        final_scale: factor that the decay ends at.
    """

    @property
    def warmup_steps(self) -> int: ...

    @property
    def decay_fraction(self) -> float: ...

    @property
    def final_scale(self) -> float: ...


def wsd(step: int, total: int, schedule: Schedule) -> float:
    """Factor of the learning rate at a step, counted from 1 to `total`.

    Rises linearly, stays at 1, and falls exponentially so that the very last step has `final_scale` (linearly, if that
    is 0).
    """
    rise = min(1.0, step / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    decay = round(schedule.decay_fraction * total)
    into_decay = step - (total - decay)
    if decay == 0 or into_decay <= 0:
        return rise
    progress = into_decay / decay
    fall = schedule.final_scale**progress if schedule.final_scale > 0 else 1 - progress
    return rise * fall
