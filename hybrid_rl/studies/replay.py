"""What a recorded run would have learnt from with other rewards, or another estimator: nothing is sampled anew."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hybrid_rl.algorithm.admission import AdmissionState
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.algorithm.normalizer import Normalizer, SampleWeight, token_weights
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.algorithm.selection import select
from hybrid_rl.config import Config
from hybrid_rl.preflight import Material, prepare
from hybrid_rl.records import Sample
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.studies.recorded_steps import RecordedStep, recorded_steps
from hybrid_rl.workers.reward import RewardWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of the comparison, for a mode, over all steps.

    Attributes:
        reward: mean over scored responses; None where there are none.
        mean_size: mean |advantage| of a token that was trained on.
        with_signal: share of groups with an advantage other than 0.
        gradient_share: the mode's share of sum over tokens of weight x |advantage|.
        parts: mean of each part of the reward.
    """

    reward: float | None
    mean_size: float
    with_signal: float
    gradient_share: float
    parts: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeReplay:
    """A mode, as it was and as it would have been.

    Attributes:
        correlation: Pearson's, between the advantages of the responses; None where one side does not vary.
        turned: share of responses whose advantage has changed its sign.
        largest_difference: of a token's advantage; 0 where everything is reproduced.
    """

    mode: str
    responses: int
    recorded: Side
    replayed: Side
    correlation: float | None
    turned: float
    largest_difference: float


@dataclass(frozen=True, slots=True)
class _Response:
    """A response on both sides: its samples, and the weights of its tokens in the loss."""

    recorded: Sample
    replayed: Sample
    recorded_weight: SampleWeight
    replayed_weight: SampleWeight


def replay(folder: RunFolder, changed: Config | None = None, *, rescore: bool = False) -> list[ModeReplay]:
    """Compare the recorded advantages with those that another config gives to the same responses.

    Args:
        changed: the config with other rewards or another way from rewards to advantages; None: as the run had it.
        rescore: score the responses again, with the rewards of `changed`.

    Raises:
        UserError: nothing is recorded, or the changed config cannot be used.
    """
    own = folder.config()
    config = changed or own
    checkpoint = str(folder.last_checkpoint().path)
    material = prepare(own, checkpoint)
    scorer = RewardWorker(config, prepare(config, checkpoint).wants_thought) if rescore else None
    found: dict[str, list[_Response]] = defaultdict(list)
    groups: dict[str, list[tuple[Group, Group]]] = defaultdict(list)
    for recorded, replayed, normalizers in _sides(folder, own, config, material, scorer):
        weights = [token_weights(side, n) for side, n in zip((recorded, replayed), normalizers, strict=True)]
        for g, (old, new) in enumerate(zip(recorded, replayed, strict=True)):
            groups[old.mode].append((old, new))
            for s, (was, would) in enumerate(zip(old.samples, new.samples, strict=True)):
                found[old.mode].append(_Response(was, would, weights[0][g][s], weights[1][g][s]))
    totals = [sum(_force(responses, side) for responses in found.values()) for side in (0, 1)]
    return [_mode(mode, responses, groups[mode], totals) for mode, responses in found.items()]


def _sides(
    folder: RunFolder, own: Config, config: Config, material: Material, scorer: RewardWorker | None
) -> Iterator[tuple[list[Group], list[Group], tuple[Normalizer, Normalizer]]]:
    """The groups of each step, as recorded and replayed."""
    thoughts = {mode: material.format.thought(mode) for mode in own.modes.kinds}
    normalizers = (loss_rules(own).normalizer, loss_rules(config).normalizer)
    grouping, plain = make_grouping(config, thoughts), make_grouping(own, thoughts)
    admission = AdmissionState()
    for step in recorded_steps(folder, own, material):
        scores = step.scores if scorer is None else scorer.score(step.rollouts)
        replayed, admission = select(step.rollouts, scores, grouping, config.admission, admission, step.step)
        yield _as_recorded(plain.groups(step.rollouts, step.scores, step.step), step), replayed, normalizers


def _as_recorded(groups: Sequence[Group], step: RecordedStep) -> list[Group]:
    """The groups with the advantages that stand in the file."""
    rows = iter(zip(step.advantages, step.trained, strict=True))
    found = []
    for group in groups:
        samples = []
        for sample in group.samples:
            advantages, trained = next(rows)
            samples.append(replace(sample, advantages=advantages, trained=trained))
        found.append(Group(samples=tuple(samples), advantage=group.advantage))
    return found


def _mode(
    mode: str, responses: Sequence[_Response], groups: Sequence[tuple[Group, Group]], totals: Sequence[float]
) -> ModeReplay:
    was = [_mean_of(response.recorded) for response in responses]
    would = [_mean_of(response.replayed) for response in responses]
    return ModeReplay(
        mode=mode,
        responses=len(responses),
        recorded=_side(responses, [old for old, _ in groups], totals, 0),
        replayed=_side(responses, [new for _, new in groups], totals, 1),
        correlation=_correlation(was, would),
        turned=sum(a * b < 0 for a, b in zip(was, would, strict=True)) / len(responses),
        largest_difference=max(
            (abs(a - b) for r in responses for a, b in zip(_seen(r.recorded), _seen(r.replayed), strict=True)),
            default=0.0,
        ),
    )


def _side(responses: Sequence[_Response], groups: Sequence[Group], totals: Sequence[float], side: int) -> Side:
    samples = [response.replayed if side else response.recorded for response in responses]
    sizes = [abs(a) for s in samples for a, kept in zip(s.advantages, s.loss_mask, strict=True) if kept]
    rewards = [s.score.value for s in samples if s.score.outcome == "ok"]
    parts: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        for name, value in sample.score.parts.items():
            parts[name].append(value)
    signal = [any(any(_seen(sample)) for sample in group.samples) for group in groups]
    return Side(
        reward=math.fsum(rewards) / len(rewards) if rewards else None,
        mean_size=math.fsum(sizes) / max(1, len(sizes)),
        with_signal=sum(signal) / max(1, len(signal)),
        gradient_share=_force(responses, side) / totals[side] if totals[side] else 0.0,
        parts={name: math.fsum(values) / len(values) for name, values in parts.items()},
    )


def _force(responses: Sequence[_Response], side: int) -> float:
    """Sum over the trained tokens of weight x |advantage|."""
    total = 0.0
    for response in responses:
        sample, weight = response.recorded, response.recorded_weight
        if side:
            sample, weight = response.replayed, response.replayed_weight
        total += math.fsum(w * abs(a) for w, a in zip(weight.spread(sample), _seen(sample), strict=True))
    return total


def _seen(sample: Sample) -> list[float]:
    """The advantages as the loss sees them: 0 at tokens that it does not."""
    return [a if kept else 0.0 for a, kept in zip(sample.advantages, sample.loss_mask, strict=True)]


def _mean_of(sample: Sample) -> float:
    values = _seen(sample)
    return math.fsum(values) / len(values) if values else 0.0


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    try:
        return statistics.correlation(a, b)
    except statistics.StatisticsError:  # fewer than two, or one side does not vary
        return None


def as_json(found: Sequence[ModeReplay]) -> dict[str, Any]:
    """The comparison as JSON."""
    return {"modes": [asdict(mode) for mode in found]}
