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
from hybrid_rl.updates.forward import (
    batches_of,
    check_budget,
    forms_of,
    group_logprobs,
    group_rows,
    response_logprobs,
)
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.updates.optimizer import PartOptimizer
from hybrid_rl.updates.pass_memory import learning_pass
from hybrid_rl.updates.rows import ResponseLogprobs, Row
from hybrid_rl.updates.trained_only import of_trained


@dataclass(slots=True)
class UpdateFigures:
    """What an update measured. Sums are over trained tokens, by mode.

    Attributes:
        learning_rate: the base one of this update.
        loss: sum over the optimizer steps.
        grad_norms: before clipping, one an optimizer step.
        ratio_deviation: largest |ratio - 1| of a sampled token in the first optimizer step, where policy and sampler
            are the same.
        forward: what went through the model.
        importance: sum of the importance weights, where there are any.
        capped: tokens whose weight is at its bound.
        notices: what the user should be told of how responses were forwarded.
    """

    learning_rate: float = 0.0
    loss: float = 0.0
    grad_norms: list[float] = field(default_factory=list)
    ratio_deviation: float = 0.0
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    entropy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    clipped: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    forward: ForwardFigures = field(default_factory=ForwardFigures)
    importance: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    capped: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    notices: list[str] = field(default_factory=list)


def grpo_update(
    policy: Policy,
    optimizer: PartOptimizer,
    groups: Sequence[Group],
    reference_logprobs: Sequence[Sequence[tuple[float, ...]]] | None,
    config: TrainConfig,
    rules: LossRules,
    schedule: float = 1.0,
) -> UpdateFigures:
    """Take `config.mini_batches` optimizer steps on the groups of a training step.

    Args:
        reference_logprobs: for each group and sample, log-probabilities of its tokens under the reference [L], empty
            where nothing is trained; None where no KL term is asked for.
        schedule: factor of the learning rate.
    """
    figures = UpdateFigures(learning_rate=config.optimizer.learning_rate * schedule)
    if rules.importance_cap is not None and config.mini_batches > 1:
        budget = config.max_tokens_per_micro_batch
        groups = with_start(groups, of_trained(groups, lambda trained: group_logprobs(policy, trained, budget)))
    for number, chosen in enumerate(mini_batches(groups, config.mini_batches)):
        step_groups = [groups[i] for i in chosen]
        reference = [reference_logprobs[i] for i in chosen] if reference_logprobs is not None else None
        accumulate_gradient(policy, step_groups, reference, config, rules, figures, on_policy=number == 0)
        figures.grad_norms.append(optimizer.step(schedule))
    return figures


def with_start(groups: Sequence[Group], logprobs: Sequence[Sequence[tuple[float, ...]]]) -> list[Group]:
    """The groups with what the policy says of each trained sample's tokens at the beginning of the step, nats [L]."""
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
    """Add the gradient of one optimizer step's loss to the parameters, and its figures to `figures`.

    Raises:
        DataError: a prompt and its response are longer than a micro-batch may be.
    """
    trained = _trained(policy, groups, token_weights(groups, rules.normalizer), reference_logprobs)
    if not trained:
        return
    rows = [member.row for member in trained]
    check_budget(rows, config.max_tokens_per_micro_batch)
    batches = batches_of(policy, rows, config.max_tokens_per_micro_batch)
    with learning_pass(rows, batches) as memory:
        for batch in batches:
            output = response_logprobs(policy, [rows[i] for i in batch], memory)
            _add_gradient([trained[i] for i in batch], output, config, rules, figures, on_policy=on_policy)
    figures.forward.add(rows, batches, memory.vision, packed=forms_of(policy, rows, batches))
    figures.notices += policy.packing.take_notices()


@dataclass(frozen=True, slots=True)
class _Trained:
    """A response that has a trained token.

    Attributes:
        weight: of its tokens in the loss.
        reference: log-probabilities of its tokens under the reference [L]; None where no KL term is asked for.
    """

    sample: Sample
    row: Row
    weight: SampleWeight
    reference: tuple[float, ...] | None


def _trained(
    policy: Policy,
    groups: Sequence[Group],
    weights: Sequence[Sequence[SampleWeight]],
    reference_logprobs: Sequence[Sequence[tuple[float, ...]]] | None,
) -> list[_Trained]:
    return [
        _Trained(sample, row, weights[g][s], reference_logprobs[g][s] if reference_logprobs is not None else None)
        for g, group in enumerate(groups)
        for s, (sample, row) in enumerate(zip(group.samples, group_rows(policy, group), strict=True))
        if any(sample.loss_mask)
    ]


def _add_gradient(
    members: Sequence[_Trained],
    output: ResponseLogprobs,
    config: TrainConfig,
    rules: LossRules,
    figures: UpdateFigures,
    *,
    on_policy: bool,
) -> None:
    """The loss of the responses of a micro-batch and its gradient. N = trained tokens of all of them."""
    mask_BL = torch.zeros_like(output.mask_BL)
    for b, member in enumerate(members):
        mask_BL[b, : len(member.sample.loss_mask)] = torch.tensor(member.sample.loss_mask)

    def tokens_of(values: Sequence[Sequence[float]]) -> torch.Tensor:
        """Values [L] of each member, at trained tokens, flattened [N]."""
        kept = [
            v
            for row, member in zip(values, members, strict=True)
            for v, keep in zip(row, member.sample.loss_mask, strict=True)
            if keep
        ]
        return torch.tensor(kept, dtype=torch.float32, device=mask_BL.device)

    logprobs_N = output.logprobs_BL[mask_BL]
    old_N = tokens_of([m.sample.old_logprobs for m in members])
    references = [m.reference for m in members if m.reference is not None]
    terms = token_loss(
        logprobs_N,
        old_N,
        tokens_of([m.sample.advantages for m in members]),
        tokens_of(references) if references else logprobs_N.detach(),
        clip_low=rules.clip_low,
        clip_high=rules.clip_high,
        estimator=rules.estimator,
        responses_N=mask_BL.nonzero()[:, 0],
        importance_cap=rules.importance_cap,
        start_logprobs_N=tokens_of(starts) if all(starts := [m.sample.start_logprobs for m in members]) else None,
    )
    weights_N = tokens_of([m.weight.spread(m.sample) for m in members])
    loss = (weights_N * (terms.policy + config.kl_coefficient * terms.kl)).sum()
    loss.backward()
    figures.loss += loss.item()
    # A forced mode token has another denominator than the policy, so that its ratio says nothing of the engines.
    sampled_N = tokens_of([m.sample.rollout.generation.sampled for m in members]).bool()
    if on_policy and sampled_N.any():
        deviation_N = ((logprobs_N.detach() - old_N).exp() - 1).abs()
        figures.ratio_deviation = max(figures.ratio_deviation, float(deviation_N[sampled_N].max()))
    if terms.importance is not None:
        for b, member in enumerate(members):
            mode, of_sample_N = member.sample.rollout.request.mode, mask_BL.nonzero()[:, 0] == b
            figures.importance[mode] += float(terms.importance.weight_N[of_sample_N].sum())
            figures.capped[mode] += int(terms.importance.capped_N[of_sample_N].sum())
    clipped_BL = torch.zeros_like(output.entropy_BL)
    clipped_BL[mask_BL] = terms.clipped.float()
    for b, member in enumerate(members):
        mode = member.sample.rollout.request.mode
        figures.tokens[mode] += int(mask_BL[b].sum())
        figures.entropy[mode] += float(output.entropy_BL[b][mask_BL[b]].sum())
        figures.clipped[mode] += float(clipped_BL[b].sum())
