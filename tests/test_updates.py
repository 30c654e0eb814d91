"""The update: exact however it is split, blind to what was not sampled, and it learns in the right direction."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL, make_groups

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.algorithm.rules import LossRules, loss_rules
from hybrid_rl.backbones.packing import Packing
from hybrid_rl.config import Config, OptimizerConfig, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import ConfigError
from hybrid_rl.parts import part_of
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Outcome, Rollout, Score
from hybrid_rl.updates.grpo import UpdateFigures, accumulate_gradient, grpo_update, mini_batches
from hybrid_rl.updates.optimizer import PartOptimizer
from hybrid_rl.updates.padded import micro_batches
from hybrid_rl.updates.rows import Row
from rollouts.torch_engine import TorchEngine

CONFIG = load_config(
    DEFAULT_CONFIG, [*SMALL, "modes.kinds.short.max_new_tokens=6", "modes.kinds.long.max_new_tokens=20"]
)
RULES = loss_rules(CONFIG)
Reward = Callable[[tuple[int, ...]], float]


@pytest.fixture
def policy() -> Policy:
    return load_policy(CONFIG.model, CONFIG.modes, seed=0, search=CONFIG.search)


def even_share(ids: tuple[int, ...]) -> float:
    """A reward that any policy can learn at once: the share of even token ids."""
    return sum(i % 2 == 0 for i in ids) / len(ids)


def rollouts_of(policy: Policy, *, step: int = 1, num_prompts: int = 4, num_responses: int = 4) -> list[Rollout]:
    source = DigitStrips(name="d", split="train", seed=0, task="sum")
    modes = ["short", "long"] * (num_prompts // 2)
    requests = make_requests(
        [source[i] for i in range(num_prompts)], modes, CONFIG.modes, step=step, num_responses=num_responses, seed=0
    )
    return [
        Rollout(request=r, generation=g, response=policy.format.parse(g.ids, r.mode), versions=(0, 0))
        for r, g in zip(requests, TorchEngine(policy).generate(requests), strict=True)
    ]


def groups_of(rollouts: list[Rollout], reward: Reward = even_share, sign: float = 1.0) -> list[Group]:
    scores = [Score(value=sign * reward(r.generation.ids), parts={}, outcome=Outcome.OK) for r in rollouts]
    return make_groups(rollouts, scores, eps=1e-4, min_std=1e-6)


def gradients(
    policy: Policy, groups: list[Group], config: Config = CONFIG, rules: LossRules = RULES
) -> dict[str, torch.Tensor]:
    policy.model.zero_grad(set_to_none=True)
    accumulate_gradient(policy, groups, None, config.train, rules, UpdateFigures(), on_policy=True)
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def with_micro_batch(tokens: int) -> Config:
    return CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"max_tokens_per_micro_batch": tokens})})


def test_micro_batches_change_nothing(policy: Policy) -> None:
    groups = groups_of(rollouts_of(policy))
    whole = gradients(policy, groups, with_micro_batch(100_000))
    split = gradients(policy, groups, with_micro_batch(60))
    assert whole.keys() == split.keys()
    scale = max(float(g.abs().max()) for g in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-5 * scale, rtol=1e-4)


def test_the_gradient_is_that_of_the_formula(policy: Policy) -> None:
    """Row by row through the model itself, the loss written out as in the paper."""
    groups = groups_of(rollouts_of(policy, num_prompts=2, num_responses=2))
    ours = gradients(policy, groups)
    policy.model.zero_grad(set_to_none=True)
    tokens = {g.mode: sum(len(s.advantages) for s in g.samples) for g in groups}
    for group in groups:
        for sample in group.samples:
            request, ids = sample.rollout.request, sample.rollout.generation.ids
            inputs = policy.format.inputs(request.prompt, request.mode)
            media = {key: [value] for key, value in inputs.media.items()}
            logits = policy.model(input_ids=torch.tensor([[*inputs.ids, *ids]]), **media).logits[0]
            logits = logits[len(inputs.ids) - 1 : -1].clone()
            logits[:, list(policy.forbidden_ids)] = float("-inf")
            logprobs = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
            ratio = (logprobs - logprobs.detach()).exp()
            # One group a mode: each mode weighs 1/2, each of its tokens alike.
            (-(ratio * sample.advantages[0]).sum() / tokens[group.mode] / 2).backward()
    for name, parameter in policy.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_a_token_that_was_not_sampled_has_exactly_no_gradient(policy: Policy) -> None:
    """Perturb what the loss says of forced tokens (their advantage): not a bit of any gradient may change."""
    rollouts = rollouts_of(policy, num_prompts=2, num_responses=3)
    forced = [
        replace(r, generation=replace(r.generation, sampled=(*r.generation.sampled[:-2], False, False)))
        for r in rollouts
        if len(r.generation.ids) > 2
    ]
    groups = groups_of(forced)
    before = gradients(policy, groups)
    changed = [
        replace(
            g,
            samples=tuple(replace(s, advantages=(*s.advantages[:-2], 1e6, -1e6)) for s in g.samples),
        )
        for g in groups
    ]
    after = gradients(policy, changed)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Control: the same perturbation on sampled tokens does change it.
    sampled = groups_of([r for r in rollouts if len(r.generation.ids) > 2])
    base = gradients(policy, sampled)
    shifted = [
        replace(g, samples=tuple(replace(s, advantages=(*s.advantages[:-2], 1e6, -1e6)) for s in g.samples))
        for g in sampled
    ]
    assert any(not torch.equal(base[name], gradient) for name, gradient in gradients(policy, shifted).items())


def test_only_forced_tokens_give_no_gradient_at_all(policy: Policy) -> None:
    rollouts = [
        replace(r, generation=replace(r.generation, sampled=(False,) * len(r.generation.ids)))
        for r in rollouts_of(policy, num_prompts=2, num_responses=2)
    ]
    assert gradients(policy, groups_of(rollouts)) == {}


def train(policy: Policy, sign: float, reward: Reward = even_share) -> tuple[float, float]:
    """Expected reward before and after a few steps, on the same prompts."""
    optimizer = PartOptimizer(policy.model, OptimizerConfig(learning_rate=2e-3), CONFIG.model.parts)
    first = last = 0.0
    for step in range(1, 9):
        rollouts = rollouts_of(policy, step=step, num_responses=8)
        value = sum(reward(r.generation.ids) for r in rollouts) / len(rollouts)
        first, last = (value if step == 1 else first), value
        grpo_update(policy, optimizer, groups_of(rollouts, reward, sign), None, CONFIG.train, RULES)
    return first, last


def test_learning_raises_the_expected_reward_and_the_flipped_sign_lowers_it(policy: Policy) -> None:
    flipped = replace(policy, model=copy.deepcopy(policy.model))
    before, after = train(policy, 1.0)
    assert after > before + 0.1
    before, after = train(flipped, -1.0)
    assert after < before - 0.1


def test_the_kl_term_holds_the_policy_back(policy: Policy) -> None:
    """With a reference far away in one token, the KL term moves its log-probability towards the reference."""
    groups = groups_of(rollouts_of(policy, num_prompts=2, num_responses=2), lambda ids: 0.0)
    train_config = CONFIG.train.model_copy(update={"kl_coefficient": 1.0})
    reference = [[tuple(lp + 0.5 for lp in s.rollout.generation.logprobs) for s in g.samples] for g in groups]
    optimizer = PartOptimizer(policy.model, OptimizerConfig(learning_rate=1e-3), CONFIG.model.parts)
    grpo_update(policy, optimizer, groups, reference, train_config, RULES)
    from hybrid_rl.updates.forward import response_logprobs

    rows = [
        Row(policy.format.inputs(s.rollout.request.prompt, s.rollout.request.mode), s.rollout.generation.ids)
        for g in groups
        for s in g.samples
    ]
    with torch.no_grad():
        new = response_logprobs(policy, rows).logprobs_BL.sum().item()
    old = sum(sum(s.rollout.generation.logprobs) for g in groups for s in g.samples)
    assert new > old


def test_first_mini_batch_is_on_policy(policy: Policy) -> None:
    optimizer = PartOptimizer(policy.model, OptimizerConfig(learning_rate=1e-3), CONFIG.model.parts)
    config = CONFIG.train.model_copy(update={"mini_batches": 2})
    figures = grpo_update(policy, optimizer, groups_of(rollouts_of(policy)), None, config, RULES)
    assert figures.ratio_deviation < 1e-4
    assert len(figures.grad_norms) == 2


def test_mini_batches_are_stratified_by_mode(policy: Policy) -> None:
    groups = groups_of(rollouts_of(policy, num_prompts=8, num_responses=2))
    dealt = mini_batches(groups, 2)
    assert sorted(i for batch in dealt for i in batch) == list(range(8))
    for batch in dealt:
        assert sorted(groups[i].mode for i in batch) == ["long", "long", "short", "short"]


def test_micro_batches_respect_the_limit_and_lose_no_row(policy: Policy) -> None:
    rollouts = rollouts_of(policy)
    rows = [Row(policy.format.inputs(r.request.prompt, r.request.mode), r.generation.ids) for r in rollouts]
    batches = micro_batches(rows, 120)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        width = max(len(rows[i].inputs.ids) for i in batch) + max(len(rows[i].response) for i in batch)
        assert len(batch) == 1 or len(batch) * width <= 120


# --- parts ------------------------------------------------------------------------------------------------------


def test_frozen_parts_stay_and_scaled_parts_move_less(policy: Policy) -> None:
    config = OptimizerConfig(learning_rate=1e-3, learning_rate_scale={"vision_tower": 0.0, "resampler": 0.1})
    optimizer = PartOptimizer(policy.model, config, CONFIG.model.parts)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    grpo_update(policy, optimizer, groups_of(rollouts_of(policy)), None, CONFIG.train, RULES)
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in policy.model.named_parameters()}
    assert max(v for n, v in moved.items() if n.startswith("vpm.")) == 0
    # AdamW's first step is the learning rate itself.
    assert moved["resampler.query"] == pytest.approx(1e-4, rel=0.05)
    assert moved["llm.model.layers.0.mlp.up_proj.weight"] == pytest.approx(1e-3, rel=0.05)


def test_the_longest_prefix_names_the_part() -> None:
    parts = CONFIG.model.parts
    assert part_of("llm.model.embed_tokens.weight", parts) == "embeddings"
    assert part_of("llm.model.layers.0.mlp.up_proj.weight", parts) == "decoder"
    assert part_of("vpm.post_layernorm.weight", parts) == "vision_tower"
    assert part_of("other.weight", parts) is None


def test_freezing_everything_is_refused(policy: Policy) -> None:
    config = OptimizerConfig(learning_rate_scale=dict.fromkeys(CONFIG.model.parts, 0.0))
    with pytest.raises(ConfigError, match="freezes every part"):
        PartOptimizer(policy.model, config, CONFIG.model.parts)


def test_a_gradient_that_is_not_finite_changes_nothing(policy: Policy) -> None:
    optimizer = PartOptimizer(policy.model, OptimizerConfig(), CONFIG.model.parts)
    parameter = next(policy.model.parameters())
    before = parameter.detach().clone()
    parameter.grad = torch.full_like(parameter, float("nan"))
    with pytest.raises(FloatingPointError):
        optimizer.step()
    assert torch.equal(parameter, before)


def test_optimizer_state_survives_a_file(policy: Policy, tmp_path: Path) -> None:
    groups = groups_of(rollouts_of(policy))
    twin = replace(policy, model=copy.deepcopy(policy.model))
    first = PartOptimizer(policy.model, OptimizerConfig(learning_rate=1e-3), CONFIG.model.parts)
    grpo_update(policy, first, groups, None, CONFIG.train, RULES)
    first.save(tmp_path / "o.safetensors")
    twin.model.load_state_dict(policy.model.state_dict())
    second = PartOptimizer(twin.model, OptimizerConfig(learning_rate=1e-3), CONFIG.model.parts)
    second.load(tmp_path / "o.safetensors")
    grpo_update(policy, first, groups, None, CONFIG.train, RULES)
    grpo_update(twin, second, groups, None, CONFIG.train, RULES)
    for (name, ours), theirs in zip(policy.model.named_parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_large_vocabulary_is_taken_in_pieces_with_the_same_result(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hybrid_rl.updates import padded

    policy = replace(policy, packing=Packing(None))
    groups = groups_of(rollouts_of(policy, num_prompts=2, num_responses=3))
    whole = gradients(policy, groups)
    split: list[int] = []
    recomputed = padded.checkpoint

    def count(*args: Any, **kwargs: Any) -> Any:
        split.append(1)
        return recomputed(*args, **kwargs)

    monkeypatch.setattr(padded, "checkpoint", count)
    monkeypatch.setattr(padded, "_LOGITS_AT_ONCE", 6000)
    pieces = gradients(policy, groups)
    assert len(split) > 2
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, atol=1e-6, rtol=1e-5)
