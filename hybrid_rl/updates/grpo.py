"""One GRPO update: groups of samples in, new weights and figures out.

Micro-batches bound memory only: every token's weight in the loss is fixed by its whole optimizer step beforehand
(`hybrid_rl.algorithm.normalizer`), so gradients add up to the same thing however the rows are split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.loss import token_loss
from hybrid_rl.algorithm.normalizer import SampleWeight, token_weights
from hybrid_rl.algorithm.rules import LossRules
from hybrid_rl.config.training import TrainConfig
from hybrid_rl.policy import Policy
from hybrid_rl.records import Sample
from hybrid_rl.updates.forward import Row, group_logprobs, micro_batches, response_logprobs
from hybrid_rl.updates.optimizer import PartOptimizer


@dataclass(slots=True)
class UpdateFigures:
    """What an update measured. Sums are over trained tokens, by mode.

    Attributes:
        loss: sum over the optimizer steps.
        grad_norms: before clipping, one an optimizer step.
        ratio_deviation: largest |ratio - 1| of a sampled token in the first optimizer step, where policy and sampler
            are the same.
        importance: sum of the importance weights, where there are any.
        capped: tokens whose weight is at its bound.
    """

    loss: float = 0.0
    grad_norms: list[float] = field(default_factory=list)
    ratio_deviation: float = 0.0
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    entropy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    clipped: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    importance: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    capped: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def grpo_update(
    policy: Policy,
    optimizer: PartOptimizer,
    groups: Sequence[Group],
    reference_logprobs: Sequence[Sequence[tuple[float, ...]]] | None,
    config: TrainConfig,
    rules: LossRules,
) -> UpdateFigures:
    """Take `config.mini_batches` optimizer steps on the groups of a training step.

    Args:
        reference_logprobs: for each group and sample, log-probabilities of its tokens under the reference [L]; None
            where no KL term is asked for.
    """
    figures = UpdateFigures()
    if rules.importance_cap is not None and config.mini_batches > 1:
        groups = with_start(groups, group_logprobs(policy, groups, config.max_tokens_per_micro_batch))
    for number, chosen in enumerate(mini_batches(groups, config.mini_batches)):
        step_groups = [groups[i] for i in chosen]
        reference = [reference_logprobs[i] for i in chosen] if reference_logprobs is not None else None
        accumulate_gradient(policy, step_groups, reference, config, rules, figures, on_policy=number == 0)
        figures.grad_norms.append(optimizer.step())
    return figures


def with_start(groups: Sequence[Group], logprobs: Sequence[Sequence[tuple[float, ...]]]) -> list[Group]:
    """The groups with what the policy says of each token at the beginning of the step, nats [L]."""
    return [
        replace(group, samples=tuple(replace(s, start_logprobs=v) for s, v in zip(group.samples, values, strict=True)))
        for group, values in zip(groups, logprobs, strict=True)
    ]


def mini_batches(groups: Sequence[Group], count: int) -> list[list[int]]:
    """Deal the groups of each mode round robin, so that every optimizer step sees every mode in proportion.

    Groups that nothing is trained on take no place.
    """
    batches: list[list[int]] = [[] for _ in range(count)]
    by_mode: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        if any(sample.trained for sample in group.samples):
            by_mode[group.mode].append(index)
    for position, index in enumerate(i for indices in by_mode.values() for i in indices):
        batches[position % count].append(index)
    return [batch for batch in batches if batch]


def accumulate_gradient(
    policy: Policy,
    groups: Sequence[Group],
    reference_logprobs: Sequence[Sequence[tuple[float, ...]]] | None,
    config: TrainConfig,
    rules: LossRules,
    figures: UpdateFigures,
    *,
    on_policy: bool,
) -> None:
    """Add the gradient of one optimizer step's loss to the parameters, and its figures to `figures`."""
    weights = token_weights(groups, rules.normalizer)
    samples, rows, sample_weights, references = _trained_rows(policy, groups, weights, reference_logprobs)
    for batch in micro_batches(rows, config.max_tokens_per_micro_batch):
        members = [samples[i] for i in batch]
        output = response_logprobs(policy, [rows[i] for i in batch])
        mask_BL = torch.zeros_like(output.mask_BL)
        for b, sample in enumerate(members):
            mask_BL[b, : len(sample.loss_mask)] = torch.tensor(sample.loss_mask)

        def tokens_of(values: Sequence[Sequence[float]], mask: torch.Tensor = mask_BL) -> torch.Tensor:
            """Values [L] of each member, at trained tokens, flattened [N]."""
            kept = [
                v
                for row, sample in zip(values, members, strict=True)  # noqa: B023 - used within this turn
                for v, keep in zip(row, sample.loss_mask, strict=True)
                if keep
            ]
            return torch.tensor(kept, dtype=torch.float32, device=mask.device)

        logprobs_N = output.logprobs_BL[mask_BL]
        old_N = tokens_of([s.old_logprobs for s in members])
        reference_N = tokens_of([references[i] for i in batch]) if references else logprobs_N.detach()
        terms = token_loss(
            logprobs_N,
            old_N,
            tokens_of([s.advantages for s in members]),
            reference_N,
            clip_low=rules.clip_low,
            clip_high=rules.clip_high,
            estimator=rules.estimator,
            responses_N=mask_BL.nonzero()[:, 0],
            importance_cap=rules.importance_cap,
            start_logprobs_N=tokens_of(starts) if all(starts := [s.start_logprobs for s in members]) else None,
        )
        modes = [s.rollout.request.mode for s in members]
        weights_N = tokens_of([sample_weights[i].spread(samples[i]) for i in batch])
        loss = (weights_N * (terms.policy + config.kl_coefficient * terms.kl)).sum()
        loss.backward()
        figures.loss += loss.item()
        # A forced mode token has another denominator than the policy, so that its ratio says nothing of the engines.
        sampled_N = tokens_of([s.rollout.generation.sampled for s in members]).bool()
        if on_policy and sampled_N.any():
            deviation_N = ((logprobs_N.detach() - old_N).exp() - 1).abs()
            figures.ratio_deviation = max(figures.ratio_deviation, float(deviation_N[sampled_N].max()))
        clipped_BL = torch.zeros_like(output.entropy_BL)
        clipped_BL[mask_BL] = terms.clipped.float()
        if terms.importance is not None:
            for b, mode in enumerate(modes):
                of_sample_N = mask_BL.nonzero()[:, 0] == b
                figures.importance[mode] += float(terms.importance.weight_N[of_sample_N].sum())
                figures.capped[mode] += int(terms.importance.capped_N[of_sample_N].sum())
        for b, mode in enumerate(modes):
            figures.tokens[mode] += int(mask_BL[b].sum())
            figures.entropy[mode] += float(output.entropy_BL[b][mask_BL[b]].sum())
            figures.clipped[mode] += float(clipped_BL[b].sum())


def _trained_rows(
    policy: Policy,
    groups: Sequence[Group],
    weights: Sequence[Sequence[SampleWeight]],
    reference_logprobs: Sequence[Sequence[tuple[float, ...]]] | None,
) -> tuple[list[Sample], list[Row], list[SampleWeight], list[tuple[float, ...]]]:
    """Samples that have a trained token, their rows, weights, and reference log-probabilities (empty without any)."""
    samples, rows, chosen, references = [], [], [], []
    for g, group in enumerate(groups):
        request = group.samples[0].rollout.request
        inputs = policy.format.inputs(request.prompt, request.mode)
        for s, sample in enumerate(group.samples):
            if any(sample.loss_mask):
                samples.append(sample)
                chosen.append(weights[g][s])
                rows.append(Row(inputs, sample.rollout.generation.ids, sample.rollout.request.temperature))
                if reference_logprobs is not None:
                    references.append(reference_logprobs[g][s])
    return samples, rows, chosen, references
