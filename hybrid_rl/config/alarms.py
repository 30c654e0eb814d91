"""`alarms`: what is watched while a run goes on, and what happens when it goes wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hybrid_rl.config.section import Section


class AlarmConfig(Section):
    """When an alarm is raised: the mean of its figure over the last steps is at or beyond a threshold."""

    threshold: float
    """Value at which the alarm is raised."""
    window_steps: int = Field(default=10, ge=1)
    """Steps that the mean is taken over."""
    action: Literal["warn", "stop"] = "warn"
    """`warn`: a sentence on the terminal, in the summary and the report. `stop`: that, and the run ends with a
    checkpoint."""


class LeakedThoughtAlarm(AlarmConfig):
    threshold: float = Field(default=0.2, gt=0, le=1)
    """Share of the responses of a mode without thought that think after all: in a think block, or visibly, with a
    reflection marker in the answer."""


class LengthDriftAlarm(AlarmConfig):
    threshold: float = Field(default=3.0, gt=1)
    """How many times as long as in the mode's first steps the responses of a mode without thought are."""


class EmptyThoughtAlarm(AlarmConfig):
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Share of the responses of a mode with thought whose thought is empty."""


class ReflectionAlarm(AlarmConfig):
    threshold: float = Field(default=40.0, gt=0)
    """Reflection markers per 1,000 sampled tokens of a mode."""


class ModeShareAlarm(AlarmConfig):
    threshold: float = Field(default=0.1, gt=0, le=1)
    """Difference between a mode's share of the responses and the share that is asked for."""


class EntropyAlarm(AlarmConfig):
    threshold: float = Field(default=0.05, gt=0, lt=1)
    """Entropy of a mode against that of its first steps; the alarm is raised at or below it."""


class TruncationAlarm(AlarmConfig):
    threshold: float = Field(default=0.3, gt=0, le=1)
    """Share of the responses of a mode that are cut at their budget."""


class ZeroVarianceAlarm(AlarmConfig):
    threshold: float = Field(default=0.9, gt=0, le=1)
    """Share of the groups of a mode whose rewards are all equal."""


class BlindAccuracyAlarm(AlarmConfig):
    threshold: float = Field(default=0.05, gt=0, le=1)
    """Since the first evaluation, the accuracy with blanked images has risen by as much, and the gap to the accuracy
    with images has closed by as much. Needs `evaluation.blind`."""
    window_steps: int = Field(default=1, ge=1)
    """Steps after which evaluations are looked at."""


class AlarmsConfig(Section):
    """What is watched while a run goes on, in each mode. An alarm that is null is off."""

    leaked_thought: LeakedThoughtAlarm | None = Field(default_factory=LeakedThoughtAlarm)
    """A mode without thought thinks."""
    length_drift: LengthDriftAlarm | None = Field(default_factory=LengthDriftAlarm)
    """The responses of a mode without thought become long."""
    empty_thought: EmptyThoughtAlarm | None = Field(default_factory=EmptyThoughtAlarm)
    """A mode with thought does not think."""
    reflection: ReflectionAlarm | None = Field(default_factory=ReflectionAlarm)
    """Responses doubt themselves without end."""
    mode_share: ModeShareAlarm | None = Field(default_factory=ModeShareAlarm)
    """Modes get other shares than asked for."""
    entropy: EntropyAlarm | None = Field(default_factory=EntropyAlarm)
    """The policy no longer explores."""
    truncation: TruncationAlarm | None = Field(default_factory=TruncationAlarm)
    """Responses do not end within their budget."""
    zero_variance: ZeroVarianceAlarm | None = Field(default_factory=ZeroVarianceAlarm)
    """Groups teach nothing."""
    blind_accuracy: BlindAccuracyAlarm | None = Field(default_factory=BlindAccuracyAlarm)
    """The policy learns to answer without looking."""
    markers: list[str] = Field(
        default=[
            "wait",
            "hmm",
            "hold on",
            "let me check",
            "let me double-check",
            "let me think",
            "let me verify",
            "let me re-examine",
            "let me recalculate",
            "let me reconsider",
            "let's check",
            "let's verify",
            "double-check",
            "on second thought",
            "alternatively",
            "step by step",
            "等等",
            "等一下",
            "让我想想",
            "让我检查",
            "再检查一下",
            "重新检查",
        ],
        min_length=1,
    )
    """Reflection markers: words by which a text shows that it thinks. Case does not matter; whole words count."""
