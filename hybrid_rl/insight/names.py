"""Every metric of `metrics.jsonl`, once, with its unit. Full names are `name`, `name/MODE` or deeper, as below."""

from __future__ import annotations

from collections.abc import Iterable

from hybrid_rl.algorithm.admission import DROP_REASONS
from hybrid_rl.records import Outcome

RUN_METRICS: dict[str, str] = {
    "step": "number of the training step, from 1",
    "version": "policy version after the step",
    "loss": "GRPO loss of the step, nats",
    "grad_norm": "norm of the gradient before clipping (mean over the optimizer steps of the step)",
    "learning_rate": "base learning rate",
    "ratio_deviation": "largest |ratio - 1| of a sampled token in the first mini-batch, which is on-policy but for "
    "`train.async_steps`",
    "lag_mean": "with `train.async_steps`: updates that the weights of the step are ahead of those that sampled, mean",
    "lag_max": "the largest of these",
    "scoring_hidden_s": "seconds of scoring that were hidden behind the generation of other rollouts",
    "refill_rounds": "with dynamic sampling: how often the step sampled again for dropped groups",
    "tokens_per_s": "sampled response tokens per second of the whole step",
}
"""Keys without a mode."""

PHASES = ("generate", "score", "reference", "update", "sync")
"""`wall_s/PHASE`: seconds of the step spent in the phase."""

PHASE_FIGURES: dict[str, str] = {
    "forwarded_per_s": "tokens that went through the model a second, prompts as often as they did; with "
    "`train.async_steps`, of sampling: a second that its workers worked",
    "padding": "share of the positions that went through the model without a token",
    "peak_share": "matrix products of the decoder a second, as a share of the best rate that the machine was measured "
    "to reach; without attention and vision tower",
    "bandwidth_share": "weights read a second in sampling, as a share of the measured copy bandwidth; without keys and "
    "values",
    "encodes_per_image": "images, slices or packages of frames through the vision tower, for each different one",
}
"""`FIGURE/PHASE` of the phases `WORKING_PHASES`, where it is known (docs/performance.md)."""

WORKING_PHASES = ("generate", "reference", "update")
"""Phases that send tokens through a model."""

MODE_METRICS: dict[str, str] = {
    "prompts": "prompts answered in the mode",
    "responses": "responses in the mode, but for those of dropped groups",
    "share": "their share of the responses of the step",
    "share_asked": "the same, as the ratio or schedule asks for it; not where the data decide",
    "thinks": "share of responses with a thought; where the model chooses the mode, its choice",
    "hybrid_accuracy": "where the model chooses and its prompts are answered in assigned modes too: share of responses "
    "in the better of those",
    "reward": "mean reward",
    "reward_std": "mean over groups of the standard deviation of the reward inside the group",
    "accuracy": "mean of the accuracy part, in [0, 1]; a response without a score counts 0",
    "tokens": "mean number of sampled tokens of a response",
    "well_formed": "share of responses that ended by themselves with exactly the mode's think block",
    "leaked": "share of responses with other think blocks than the mode asks for",
    "leaked_thought": "in a mode without thought: share of responses that think in a think block or visibly",
    "visible_thought": "share of responses with a reflection marker (`alarms.markers`) outside of the think block",
    "empty_thought": "in a mode with thought: share of responses without one",
    "reflections_per_1k": "reflection markers per 1,000 sampled tokens, thought and answer",
    "closed_by_budget": "share of responses whose thought was closed at `max_think_tokens` and whose answer ended",
    "truncated": "share of responses cut at their budget",
    "zero_variance": "share of groups whose rewards are all equal (advantage 0)",
    "unscored": "share of responses without a score",
    "few_scored": "share of groups with fewer than two scored responses (advantage 0)",
    "entropy": "mean entropy of the policy at trained tokens, nats",
    "kl": "mean k3 estimate of KL(policy || reference) at trained tokens, nats; not where a step "
    "trains nothing in the mode",
    "clip_fraction": "share of trained tokens where the clip is active",
    "importance_weight": "with `train.async_steps`: mean importance weight of trained tokens",
    "importance_capped": "share of trained tokens whose importance weight is at its bound",
    "rollout_tokens": "sampled response tokens",
    "dropped_tokens": "those of them in groups that admission dropped",
    "missing": "with dynamic sampling: dropped groups that nothing has replaced within the rounds",
    "update_tokens": "sampled response tokens that the loss was computed on",
}
"""`NAME/MODE`."""

SPLIT_METRICS = ("reward", "accuracy", "tokens")
"""Also as `task/TASK/NAME/MODE` and `source/SOURCE/NAME/MODE`."""


PART_FIGURES: dict[str, str] = {
    "part": "mean of a reward part, unweighted",
    "part_std": "standard deviation of a reward part over the responses",
    "part_share": "share of |advantage| that a reward part makes up",
    "part_ms": "mean time of a reward part for a response, ms",
    "part_ms_max": "longest time of a reward part for a response, ms",
}
"""`FIGURE/PART/MODE`, and where there are several sources `source/SOURCE/FIGURE/PART/MODE`."""

PART_OUTCOMES = (Outcome.ABSTAIN, Outcome.TIMEOUT, Outcome.ERROR)
"""`outcome/PART/OUTCOME/MODE`: responses on which the reward had this outcome instead of a value."""


def metric_names(modes: Iterable[str], parts: Iterable[str], tasks: Iterable[str], sources: Iterable[str]) -> list[str]:
    """All names that a run with these modes, reward parts, tasks and sources writes."""
    modes, parts = list(modes), list(parts)
    names = [*RUN_METRICS, *(f"wall_s/{phase}" for phase in PHASES)]
    names += [f"{figure}/{phase}" for figure in PHASE_FIGURES for phase in WORKING_PHASES]
    names += [f"{name}/{mode}" for name in MODE_METRICS for mode in modes]
    names += [f"{figure}/{part}/{mode}" for figure in PART_FIGURES for part in parts for mode in modes]
    names += [f"dropped/{reason}/{mode}" for reason in DROP_REASONS for mode in modes]
    names += [f"outcome/{part}/{outcome.value}/{mode}" for part in parts for outcome in PART_OUTCOMES for mode in modes]
    for kind, values in (("task", tasks), ("source", sources)):
        names += [f"{kind}/{v}/{name}/{mode}" for v in values for name in SPLIT_METRICS for mode in modes]
    return names
