"""Alarms: notices, while a run goes on, a mode that goes wrong, and says what it is and what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from hybrid_rl.config.alarms import AlarmConfig, AlarmsConfig

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A raised alarm.

    Attributes:
        name: key of `alarms`.
        text: the sentence for people.
    """

    name: str
    mode: str
    text: str
    action: Literal["warn", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What an alarm looks at.

    Attributes:
        figure: of a mode, made of the metrics of its recent steps and of all steps; None where there is none.
        sentence: what is wrong and what to change; knows mode, value, threshold and steps.
        low: raised at or below the threshold instead of at or above it.
        written: how its values are written.
    """

    figure: Callable[[str, Sequence[Metrics], Sequence[Metrics]], float | None]
    sentence: str
    low: bool = False
    written: str = ".0%"


def _mean(key: str) -> Callable[[str, Sequence[Metrics], Sequence[Metrics]], float | None]:
    """The mean of `KEY/MODE` over the recent steps."""
    return lambda mode, recent, steps: _average(recent, f"{key}/{mode}")


def _growth(key: str, beside: str = "") -> Callable[[str, Sequence[Metrics], Sequence[Metrics]], float | None]:
    """The mean of `KEY/MODE` over the recent steps, as a multiple of that over as many, the first that have it; where
    `beside` is there. A mode may come later than the run, by its schedule."""

    def figure(mode: str, recent: Sequence[Metrics], steps: Sequence[Metrics]) -> float | None:
        having = (row for row in steps if f"{key}/{mode}" in row)
        now, then = _average(recent, f"{key}/{mode}"), _average(list(islice(having, len(recent))), f"{key}/{mode}")
        if now is None or not then or (beside and _average(recent, f"{beside}/{mode}") is None):
            return None
        return now / then

    return figure


def _share_off(mode: str, recent: Sequence[Metrics], steps: Sequence[Metrics]) -> float | None:
    # A mode that a step lacks is not in its metrics: it has had a share of 0.
    asked = _average(recent, f"share_asked/{mode}")
    if asked is None:
        return None
    return abs(sum(row.get(f"share/{mode}", 0.0) for row in recent) / len(recent) - asked)


def _average(rows: Sequence[Metrics], key: str) -> float | None:
    values = [row[key] for row in rows if key in row]
    return sum(values) / len(values) if values else None


_RULES: dict[str, _Rule] = {
    "leaked_thought": _Rule(
        figure=_mean("leaked_thought"),
        sentence="mode {mode} asks for no thought, and {value} of its responses over {steps} steps think all the same, "
        "in a think block or visibly in the answer: thinking pays there; make length cost in this mode (a length "
        "reward, a lower max_new_tokens), or give the format reward more weight",
    ),
    "length_drift": _Rule(
        # Only modes without thought have a leak to measure.
        figure=_growth("tokens", beside="leaked_thought"),
        sentence="responses of mode {mode}, which asks for no thought, are {value} times as long as in the first "
        "steps: it drifts into visible thought; lower max_new_tokens of the mode, or make length cost there",
        written=".1f",
    ),
    "empty_thought": _Rule(
        figure=_mean("empty_thought"),
        sentence="mode {mode} asks for a thought, and {value} of its responses over {steps} steps have an empty one: "
        "thinking does not pay there; is max_new_tokens too small, are the prompts too easy, or is there a length "
        "reward that is too strong?",
    ),
    "reflection": _Rule(
        figure=_mean("reflections_per_1k"),
        sentence="mode {mode} has {value} reflection markers per 1,000 tokens over {steps} steps: it doubts itself "
        "instead of going on; raise the repetition penalty, or set a thinking budget (max_think_tokens)",
        written=".1f",
    ),
    "mode_share": _Rule(
        figure=_share_off,
        sentence="the share of mode {mode} in the responses is {value} off what is asked for, over {steps} steps; too "
        "few prompts a step, or groups of one mode that are dropped more often than others?",
    ),
    "entropy": _Rule(
        figure=_growth("entropy"),
        sentence="the entropy of mode {mode} has fallen to {value} of that of the first steps: the policy no longer "
        "explores; raise train.clip_high or the temperature, or lower the learning rate",
        low=True,
    ),
    "truncation": _Rule(
        figure=_mean("truncated"),
        sentence="{value} of the responses of mode {mode} over {steps} steps are cut at their budget: raise "
        "max_new_tokens of the mode, or set a thinking budget (max_think_tokens) that leaves room for the answer",
    ),
    "zero_variance": _Rule(
        figure=_mean("zero_variance"),
        sentence="{value} of the groups of mode {mode} over {steps} steps have rewards that are all equal and teach "
        "nothing: the prompts are too easy or too hard there; change the data, or sample more responses a prompt",
    ),
}


class AlarmWatch:
    """Looks at the metrics of each step and each evaluation. An alarm is raised once a mode.

    Args:
        modes: names of the modes.
        past: metrics of the steps so far, of a resumed run.
        evaluations: step and metrics of its evaluations so far.
        raised: alarms and modes that need not be raised again.
    """

    def __init__(
        self,
        config: AlarmsConfig,
        modes: Sequence[str],
        past: Iterable[Metrics] = (),
        evaluations: Iterable[tuple[int, Metrics]] = (),
        raised: Iterable[tuple[str, str]] = (),
    ) -> None:
        given = {name: getattr(config, name) for name in _RULES}
        self._alarms: dict[str, AlarmConfig] = {name: alarm for name, alarm in given.items() if alarm is not None}
        self._blind = config.blind_accuracy
        self._modes = list(modes)
        self._steps = list(past)
        self._evaluations = list(evaluations)
        self._raised = set(raised)

    def step(self, metrics: Metrics) -> list[Alarm]:
        """New alarms after a step."""
        self._steps.append(metrics)
        found = (self._look_at(name, alarm, mode) for name, alarm in self._alarms.items() for mode in self._modes)
        return self._new(alarm for alarm in found if alarm is not None)

    def evaluation(self, step: int, metrics: Metrics) -> list[Alarm]:
        """New alarms after an evaluation; step 0 is before training."""
        self._evaluations.append((step, metrics))
        if self._blind is None or step < self._blind.window_steps:
            return []
        return self._new(alarm for mode in self._modes for alarm in self._look_blindly(mode, metrics))

    def _look_at(self, name: str, alarm: AlarmConfig, mode: str) -> Alarm | None:
        rule, window = _RULES[name], alarm.window_steps
        if len(self._steps) < window:
            return None
        value = rule.figure(mode, self._steps[-window:], self._steps)
        if value is None or (value > alarm.threshold if rule.low else value < alarm.threshold):
            return None
        shown = format(value, rule.written).replace("%", " %")
        return Alarm(
            name=name,
            mode=mode,
            text=f"alarms.{name}: {rule.sentence.format(mode=mode, value=shown, steps=window)}",
            action=alarm.action,
        )

    def _look_blindly(self, mode: str, last: Metrics) -> list[Alarm]:
        keys = (f"eval/blind_accuracy/{mode}", f"eval/image_gap/{mode}")
        first = next((row for _, row in self._evaluations if keys[0] in row), None)
        if self._blind is None or first is None or keys[0] not in last:
            return []
        risen, closed = last[keys[0]] - first[keys[0]], first[keys[1]] - last[keys[1]]
        # A hair less than the threshold is the threshold, in floating point.
        if min(risen, closed) < self._blind.threshold - 1e-9:
            return []
        text = (
            f"alarms.blind_accuracy: in mode {mode} the accuracy with blanked images has risen by {100 * risen:.0f} "
            f"points since the first evaluation, to {100 * last[keys[0]]:.0f} %, and seeing the images now adds "
            f"{100 * closed:.0f} points less: the policy learns to answer without looking; leave out prompts that can "
            f"be answered without their image"
        )
        return [Alarm(name="blind_accuracy", mode=mode, text=text, action=self._blind.action)]

    def _new(self, alarms: Iterable[Alarm]) -> list[Alarm]:
        new = [alarm for alarm in alarms if (alarm.name, alarm.mode) not in self._raised]
        self._raised.update((alarm.name, alarm.mode) for alarm in new)
        return new
