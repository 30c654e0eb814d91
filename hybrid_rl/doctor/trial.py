"""A trial with the policy of the first step: do responses end, do their rewards differ, what does it cost?"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config import Config
from hybrid_rl.doctor.findings import Finding, Grade
from hybrid_rl.preflight import Material
from hybrid_rl.records import Finish, Outcome, Prompt, Request, Rollout, Score
from hybrid_rl.scoring import limits_s
from hybrid_rl.workers.cluster import InProcess
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.reward import RewardWorker
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.served_policy import ServedPolicy
from hybrid_rl.workers.setup import WorkerSetup

_GROUPS = 8
_ALL_CUT, _MANY_CUT = 0.95, 0.3
_MANY_ALIKE = 0.7
_SLOW_SHARE = 0.5
_UPDATE_PASSES = 3.0
"""A backward pass costs about two forward passes."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial measured.

    Attributes:
        tokens: mean sampled tokens of a response, by mode.
        seconds_per_token: of sampling, scoring and updating, by phase.
    """

    findings: list[Finding]
    tokens: Mapping[str, float]
    seconds_per_token: Mapping[str, float]


def run_trial(config: Config, material: Material, checkpoint: str | None, prompts: Sequence[Prompt]) -> Trial:
    """One response to each prompt in each mode, and a few whole groups in each mode.

    Args:
        checkpoint: folder of the weights; None for `model.path`.
    """
    setup = WorkerSetup(config=config, checkpoint=checkpoint)
    worker, trainer = RolloutWorker(setup), ReferenceWorker(setup)
    # Before the first step the policy that samples is the initial one.
    policy = ServedPolicy(setup, [InProcess(lambda: worker)], InProcess(lambda: trainer))
    scorer = RewardWorker(config, material.wants_thought, policy)
    modes = list(config.modes.kinds)
    size = config.train.responses_per_prompt
    singles = [request for mode in modes for request in _requests(config, prompts, mode, 1)]
    whole = [request for mode in modes for request in _requests(config, prompts[:_GROUPS], mode, size)]
    scorer.score(worker.generate(whole[:1]))  # the first call of a process is no measure
    answered, generate_s = _timed(lambda: worker.generate([*singles, *whole]))
    scores, score_s = _timed(lambda: scorer.score(answered))
    thoughts = {mode: material.format.thought(mode) for mode in modes}
    groups = make_grouping(config, thoughts).groups(answered[len(singles) :], scores[len(singles) :], step=1)
    logprobs, forward_s = _timed(lambda: trainer.logprobs(groups))
    sampled = max(1, sum(rollout.num_sampled_tokens for rollout in answered))
    in_groups = max(1, sum(sample.rollout.num_sampled_tokens for group in groups for sample in group.samples))
    findings = [f for mode in modes for f in _mode(config, mode, answered[: len(singles)], groups)]
    findings += [_consistency(config, material, groups, logprobs), *_latencies(config, scores)]
    return Trial(
        findings,
        {mode: statistics.fmean(r.num_sampled_tokens for r in answered if r.request.mode == mode) for mode in modes},
        {
            "generate": generate_s / sampled,
            "score": score_s / sampled,
            "update": _UPDATE_PASSES * forward_s / in_groups,
        },
    )


def _requests(config: Config, prompts: Sequence[Prompt], mode: str, count: int) -> list[Request]:
    seed = config.run.seed + count
    return make_requests(prompts, [mode] * len(prompts), config.modes, step=0, num_responses=count, seed=seed)


def _timed(action: Callable[[], _Value]) -> tuple[_Value, float]:
    began = time.monotonic()
    result = action()
    return result, time.monotonic() - began


def _mode(config: Config, mode: str, singles: Sequence[Rollout], groups: Sequence[Group]) -> list[Finding]:
    """How often the mode's responses are cut, and how often a group's rewards are all alike."""
    kind = config.modes.kinds[mode]
    own = [rollout for rollout in singles if rollout.request.mode == mode]
    cut = statistics.fmean(rollout.generation.finish is Finish.LENGTH for rollout in own)
    sentence = f"{cut:.0%} of {len(own)} responses are cut at {kind.max_new_tokens:,} tokens"
    grade = Grade.OK
    if cut >= _ALL_CUT:
        grade = Grade.REFUSE
        sentence += (
            f": nothing that ends can be rewarded, so the run would learn nothing in this mode; raise "
            f"modes.kinds.{mode}.max_new_tokens, or teach the policy to end with a warm-up"
        )
    elif cut > _MANY_CUT:
        grade = Grade.WARN
        sentence += f": raise modes.kinds.{mode}.max_new_tokens, or expect the first steps to teach mostly brevity"
    signals = [group.advantage.signal for group in groups if group.mode == mode]
    alike = sum(signal != "ok" for signal in signals) / max(1, len(signals))
    accuracy = [
        sample.score.parts.get("accuracy", 0.0) for group in groups if group.mode == mode for sample in group.samples
    ]
    level = statistics.fmean(accuracy) if accuracy else 0.0
    forecast = f"{alike:.0%} of {len(signals)} groups have no two rewards that differ; accuracy {level:.0%}"
    few = Grade.WARN if alike > _MANY_ALIKE else Grade.OK
    if few is Grade.WARN:
        advice = "easier prompts, or a better start" if level < 0.5 else "harder prompts"
        forecast += f": most of the sampling would teach nothing; take {advice}, or raise train.responses_per_prompt"
    return [
        Finding(topic=f"truncation {mode}", sentence=sentence, grade=grade, figures={"share": cut}),
        Finding(topic=f"signal {mode}", sentence=forecast, grade=few, figures={"alike": alike, "accuracy": level}),
    ]


def _consistency(
    config: Config, material: Material, groups: Sequence[Group], logprobs: Sequence[Sequence[Sequence[float]]]
) -> Finding:
    """Sampler and trainer on the same tokens with the same weights."""
    deviation = 0.0
    for group, rows in zip(groups, logprobs, strict=True):
        for sample, values in zip(group.samples, rows, strict=True):
            generation = sample.rollout.generation
            for old, new, sampled in zip(generation.logprobs, values, generation.sampled, strict=True):
                if sampled:
                    deviation = max(deviation, abs(math.expm1(min(new - old, 20.0))))
    tolerance = config.train.on_policy_tolerance or (1e-3 if material.full_precision else 0.3)
    sentence = f"sampler and trainer agree on the probability of every token within a factor of 1 + {deviation:.1e}"
    if deviation <= tolerance:
        return Finding(topic="consistency", sentence=sentence, figures={"ratio_deviation": deviation})
    sentence = (
        f"sampler and trainer differ by a factor of up to 1 + {deviation:.2g}, more than {tolerance:g}: the rollout "
        f"engine does not compute what the actor computes, and every importance ratio would be wrong"
    )
    return Finding(topic="consistency", sentence=sentence, grade=Grade.REFUSE, figures={"ratio_deviation": deviation})


def _latencies(config: Config, scores: Sequence[Score]) -> list[Finding]:
    found = []
    for name, limit_s in limits_s(config).items():
        ms = sorted(1e3 * score.seconds[name] for score in scores if name in score.seconds)
        late = sum(score.outcomes.get(name) is Outcome.TIMEOUT for score in scores)
        if not ms:
            continue
        median, most, limit = ms[len(ms) // 2], ms[-1], 1e3 * limit_s
        sentence = f"{median:.3g} ms a response, at most {most:.3g}"
        grade = Grade.OK
        if late:
            grade = Grade.WARN
            sentence += f"; {late} of {len(ms)} were over the limit: raise rewards.{name}.timeout_s"
        elif most > _SLOW_SHARE * limit:
            grade = Grade.WARN
            sentence += f", near its limit of {limit:g} ms: raise rewards.{name}.timeout_s"
        figures: dict[str, float | int | None] = {"median_ms": median, "most_ms": most, "over_limit": late}
        found.append(Finding(topic=f"reward {name}", sentence=sentence, grade=grade, figures=figures))
    return found
