"""From a step's prompts to the groups it trains on: draw -> generate -> score -> admit, and again for the dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hybrid_rl.algorithm.admission import AdmissionState
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.refill import vacancies
from hybrid_rl.algorithm.selection import select
from hybrid_rl.records import Rollout, Score
from hybrid_rl.rollout_figures import RolloutFigures

if TYPE_CHECKING:
    from hybrid_rl.build import Run
    from hybrid_rl.insight.phase_clock import PhaseClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The groups of a step.

    Attributes:
        groups: kept and dropped ones, in the order that they were asked for in.
        admission: what admission remembers after them.
        rounds: how often the step has sampled again.
        hidden_s: seconds of scoring that were over before anybody waited for them, because rollouts were scored as they
            finished.
        sampling: what the rollout engines did for the groups, whenever that was.
        sampling_s: seconds that they worked: of the busiest worker, over all rounds.
        missing: groups by mode that were dropped in the last round, so that nothing has replaced them.
    """

    groups: list[Group]
    admission: AdmissionState
    rounds: int
    hidden_s: float
    sampling: RolloutFigures
    sampling_s: float
    missing: Mapping[str, int]


def collect(run: Run, step: int, clock: PhaseClock) -> Collected:
    """Sample and score the groups of a step.

    Changes nothing of the run: what admission has learnt comes back with the groups.
    """
    rules = run.config.admission
    most = rules.dynamic_sampling.max_rounds if rules.dynamic_sampling is not None else 0
    rollouts: list[Rollout] = []
    scores: list[Score] = []
    spare_used, places, rounds = run.admission.spare_used, run.config.train.prompts_per_step, 0
    sampling: list[RolloutFigures] = []
    hidden_s = sampling_s = 0.0
    with clock("generate"):
        flight = run.ahead.take(step)
    while True:
        with clock("generate"):
            new, figures = flight.rollouts(), flight.figures()
        sampling += figures
        sampling_s += max((of_worker.seconds for of_worker in figures), default=0.0)
        with clock("score"):
            rollouts += new
            scores += flight.scores()
            hidden_s += flight.hidden_s
            groups, admission = select(rollouts, scores, run.grouping, rules, run.admission, step)
        lost = {group.name for group in groups if group.dropped}
        wanted = vacancies([rollout.request for rollout in new], lost)
        if not wanted or rounds == most:
            break
        requests, spare_used = run.dealer.again(step, wanted, spare_used, places)
        flight = run.rollouts.launch(requests, run.rewards)
        places += len(wanted)
        rounds += 1
    last = {rollout.request.group for rollout in new}
    return Collected(
        groups=groups,
        admission=replace(admission, spare_used=spare_used),
        rounds=rounds,
        hidden_s=hidden_s,
        sampling=RolloutFigures.total(sampling),
        sampling_s=sampling_s,
        missing=Counter(group.mode for group in groups if group.dropped and group.name in last),
    )
