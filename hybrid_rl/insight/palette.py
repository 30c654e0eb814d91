"""Colours of modes and phases, by place and not by name. Told apart with every common colour vision.

Each entry is (on a light page, on a dark page). Modes: Okabe and Ito, darkened where the original is too pale for
a line on white. Phases: Tol's "muted", so that a phase is not taken for a mode.
"""

from __future__ import annotations

MODES = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2ecfa1"),
    ("#b3559a", "#e39ccb"),
    ("#a67c00", "#f0c843"),
    ("#5b5bd6", "#a9a9ff"),
)
PHASES = (
    ("#332288", "#8f80e0"),
    ("#88ccee", "#88ccee"),
    ("#44aa99", "#44aa99"),
    ("#ddcc77", "#ddcc77"),
    ("#cc6677", "#cc6677"),
    ("#999933", "#b8b84d"),
    ("#aa4499", "#c76bb8"),
    ("#882255", "#c9628f"),
    ("#117733", "#5cb87a"),
)
INK = ("#5c6470", "#9aa4b2")
"""Text and ticks of the charts."""
RULE = ("#e3e6eb", "#2c323b")
"""Grid lines."""


def mode_variable(place: int) -> str:
    """CSS variable of the mode at a place; the colours repeat after the last."""
    return f"--mode-{place % len(MODES)}"


def phase_variable(place: int) -> str:
    """CSS variable of the phase at a place."""
    return f"--phase-{place % len(PHASES)}"


def variables(dark: bool) -> dict[str, str]:
    """Every CSS variable and its colour."""
    side = 1 if dark else 0
    values = {f"--mode-{place}": pair[side] for place, pair in enumerate(MODES)}
    values |= {f"--phase-{place}": pair[side] for place, pair in enumerate(PHASES)}
    return values | {"--chart-ink": INK[side], "--chart-rule": RULE[side]}
