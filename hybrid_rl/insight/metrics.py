"""The figures of a training step, flat, by the names of `hybrid_rl.insight.names`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hybrid_rl.algorithm.admission import DROP_REASONS
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.mode_choice import Answered, hybrid_accuracy
from hybrid_rl.insight.names import SPLIT_METRICS
from hybrid_rl.insight.part_metrics import part_metrics
from hybrid_rl.protocols import Thought
from hybrid_rl.records import Finish, Outcome, Sample
from hybrid_rl.updates.grpo import UpdateFigures


def step_metrics(
    groups: Sequence[Group],
    figures: UpdateFigures,
    reference: Sequence[Sequence[tuple[float, ...]]] | None,
    wall_s: Mapping[str, float],
    *,
    step: int,
    version: int,
    shares: Mapping[str, float] = MappingProxyType({}),
    thoughts: Mapping[str, Thought] = MappingProxyType({}),
) -> dict[str, float]:
    """All metrics of a step. Modes, parts, tasks and sources that the step did not have are left out, and so are means
    over the trained tokens of a mode that had none.

    Args:
        shares: of each mode, as asked for at this step.
        thoughts: what each mode leaves open.
    """
    samples = [sample for group in groups for sample in group.samples]
    kept = sum(len(group.samples) for group in groups if not group.dropped)
    tokens = sum(sample.rollout.num_sampled_tokens for sample in samples)
    result: dict[str, float] = {
        "step": step,
        "version": version,
        "loss": figures.loss,
        "grad_norm": mean(figures.grad_norms),
        "learning_rate": figures.learning_rate,
        "ratio_deviation": figures.ratio_deviation,
        "tokens_per_s": tokens / max(sum(wall_s.values()), 1e-9),
        **{f"wall_s/{phase}": seconds for phase, seconds in wall_s.items()},
    }
    for mode in dict.fromkeys(group.mode for group in groups):
        chosen = [g for g, group in enumerate(groups) if group.mode == mode]
        mode_groups = [groups[g] for g in chosen]
        values = _mode_metrics(mode_groups, figures, mode)
        values["share"] = values["responses"] / max(kept, 1)
        k3 = _mean_k3(mode_groups, [reference[g] for g in chosen]) if reference is not None else None
        if k3 is not None:
            values["kl"] = k3
        result |= {f"{name}/{mode}": value for name, value in values.items()}
        result |= part_metrics(mode_groups, mode)
        result |= _split_metrics([s for group in mode_groups for s in group.samples], mode)
    for mode, asked in shares.items():  # also where a step has no response in the mode: its share is then 0
        result |= {f"share/{mode}": result.get(f"share/{mode}", 0.0), f"share_asked/{mode}": asked}
    if any(thought == "free" for thought in thoughts.values()):
        found = hybrid_accuracy([_answered(sample) for sample in samples], thoughts)
        result |= {f"hybrid_accuracy/{mode}": value for mode, value in found.items()}
    return result


def _answered(sample: Sample) -> Answered:
    request = sample.rollout.request
    draw = (request.prompt.source, request.prompt.id, request.place)
    return Answered(draw, sample.rollout, sample.score.parts.get("accuracy", 0.0))


def _mode_metrics(groups: Sequence[Group], figures: UpdateFigures, mode: str) -> dict[str, float]:
    samples = [sample for group in groups for sample in group.samples]
    rollouts = [sample.rollout for sample in samples]
    return {
        "prompts": len(groups),
        "responses": sum(len(group.samples) for group in groups if not group.dropped),
        **summarise(samples),
        "reward_std": mean(group.advantage.std for group in groups),
        "well_formed": mean(rollout.well_formed for rollout in rollouts),
        "leaked": mean(rollout.response.leaked for rollout in rollouts),
        "thinks": mean(bool(rollout.response.thought) for rollout in rollouts),
        "truncated": mean(rollout.generation.finish is Finish.LENGTH for rollout in rollouts),
        "zero_variance": mean(group.advantage.signal == "zero_variance" for group in groups),
        "few_scored": mean(group.advantage.signal == "few_scored" for group in groups),
        **{f"dropped/{reason}": sum(group.dropped == reason for group in groups) for reason in DROP_REASONS},
        "unscored": mean(sample.score.outcome is not Outcome.OK for sample in samples),
        **_of_trained_tokens(figures, mode),
        "rollout_tokens": sum(rollout.num_sampled_tokens for rollout in rollouts),
        "update_tokens": sum(sample.rollout.num_sampled_tokens for sample in samples if sample.trained),
    }


def _of_trained_tokens(figures: UpdateFigures, mode: str) -> dict[str, float]:
    """Means over the trained tokens of a mode; without any there is no mean, and a 0 would pass for a collapse."""
    trained = figures.tokens[mode]
    if not trained:
        return {}
    found = {"entropy": figures.entropy[mode] / trained, "clip_fraction": figures.clipped[mode] / trained}
    if mode in figures.importance:
        found["importance_weight"] = figures.importance[mode] / trained
        found["importance_capped"] = figures.capped[mode] / trained
    return found


def _split_metrics(samples: Sequence[Sample], mode: str) -> dict[str, float]:
    """Figures of a mode by task and by source."""
    result: dict[str, float] = {}
    splits: dict[str, Callable[[Sample], str]] = {
        "task": lambda sample: sample.rollout.request.prompt.task,
        "source": lambda sample: sample.rollout.request.prompt.source,
    }
    for kind, value_of in splits.items():
        for value in dict.fromkeys(map(value_of, samples)):
            figures = summarise([sample for sample in samples if value_of(sample) == value])
            result |= {f"{kind}/{value}/{name}/{mode}": figures[name] for name in SPLIT_METRICS}
    return result


def summarise(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean reward, accuracy and length of some samples; samples without a score have no reward."""
    scored = [sample.score for sample in samples if sample.score.outcome is Outcome.OK]
    return {
        "reward": mean(score.value for score in scored),
        "accuracy": mean(sample.score.parts.get("accuracy", 0.0) for sample in samples),
        "tokens": mean(sample.rollout.num_sampled_tokens for sample in samples),
    }


def _mean_k3(groups: Sequence[Group], reference: Sequence[Sequence[tuple[float, ...]]]) -> float | None:
    """Mean of exp(d) - d - 1 with d = log pi_ref - log pi, over trained tokens, pi being the sampler; None of none.

    A mode token that was forced has no probability under the sampler.
    """
    total, count = 0.0, 0
    for group, logprobs in zip(groups, reference, strict=True):
        for sample, values in zip(group.samples, logprobs, strict=True):
            mask = np.asarray(sample.loss_mask, dtype=bool) & np.asarray(sample.rollout.generation.sampled, dtype=bool)
            if not mask.any():  # the reference may not have been asked for it
                continue
            difference = (np.asarray(values) - np.asarray(sample.rollout.generation.logprobs))[mask]
            total += float((np.exp(difference.clip(-20, 20)) - difference - 1).sum())
            count += int(mask.sum())
    return total / count if count else None


def mean(values: Iterable[float]) -> float:
    """Mean, 0 of nothing."""
    items = list(values)
    return float(sum(items)) / len(items) if items else 0.0
