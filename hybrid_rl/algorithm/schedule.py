"""The warmup-stable-decay schedule of the learning rate (WSD, MiniCPM, arXiv 2404.06395, section 4)."""

from __future__ import annotations


def wsd(step: int, *, total: int, warmup: int, decay: int, final_scale: float) -> float:
    """Factor of the learning rate at a step, counted from 1.

    Rises linearly over `warmup` steps, stays at 1, and falls exponentially over the last `decay` steps so that the very
    last step has `final_scale` (linearly, if that is 0).
    """
    rise = min(1.0, step / warmup) if warmup else 1.0
    into_decay = step - (total - decay)
    if decay == 0 or into_decay <= 0:
        return rise
    progress = into_decay / decay
    fall = final_scale**progress if final_scale > 0 else 1 - progress
    return rise * fall
