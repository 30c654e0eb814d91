"""Every estimator against verl's or TRL's own functions on the same batch, advantages and losses with gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_CONFIG
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybrid_rl.algorithm.estimators import BUILT_IN, load_estimator
from hybrid_rl.algorithm.policy_loss import TokenBatch
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.config import load_config
from hybrid_rl.errors import PluginError

REWARDS = [[1.0, 0.0, 0.5, 1.0], [0.25, 0.25, 2.0, -1.0]]
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.float32)


def advantages(name: str, rewards: list[float], eps: float = 1e-6) -> list[float]:
    return list(load_estimator(name, []).advantages(rewards, eps=eps, min_std=0.0).values)


def verl_advantages(function: str, **options: Any) -> list[list[float]]:
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    flat = torch.tensor([r for rewards in REWARDS for r in rewards])[:, None]
    index = np.array([str(g) for g, rewards in enumerate(REWARDS) for _ in rewards], dtype=object)
    found, _ = getattr(core_algos, function)(flat, torch.ones_like(flat), index, **options)
    return [found[:4, 0].tolist(), found[4:, 0].tolist()]


@pytest.mark.parametrize(
    ("name", "function", "options"),
    [
        ("grpo", "compute_grpo_outcome_advantage", {}),
        ("dapo", "compute_grpo_outcome_advantage", {}),
        ("gspo", "compute_grpo_outcome_advantage", {}),
        ("cispo", "compute_grpo_outcome_advantage", {}),
        ("dr_grpo", "compute_grpo_outcome_advantage", {"norm_adv_by_std_in_grpo": False}),
        ("rloo", "compute_rloo_outcome_advantage", {}),
    ],
)
def test_advantages_equal_verls(name: str, function: str, options: dict[str, Any]) -> None:
    for rewards, theirs in zip(REWARDS, verl_advantages(function, **options), strict=True):
        assert advantages(name, rewards) == pytest.approx(theirs, abs=1e-4)


def test_leave_one_out_by_hand() -> None:
    # 1 against the mean of (0, 0.5, 1) = 0.5; 0 against (1, 0.5, 1); 0.5 against (1, 0, 1)
    assert advantages("rloo", REWARDS[0]) == pytest.approx([0.5, -2.5 / 3, -0.5 / 3, 0.5])
    assert advantages("dr_grpo", REWARDS[0]) == pytest.approx([0.375, -0.625, -0.125, 0.375])


@given(
    st.sampled_from(sorted(BUILT_IN)),
    st.lists(st.one_of(st.none(), st.floats(-5, 5, allow_nan=False)), min_size=2, max_size=12),
)
def test_advantages_of_a_group_sum_to_zero(name: str, rewards: list[float | None]) -> None:
    values = load_estimator(name, []).advantages(rewards, eps=1e-4, min_std=1e-6).values
    assert sum(values) == pytest.approx(0, abs=1e-6)
    assert all(value == 0 for value, reward in zip(values, rewards, strict=True) if reward is None)


# --- losses -------------------------------------------------------------------------------------------------------


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    old = -torch.rand(3, 5) * 3
    new = (old + 0.4 * torch.randn(3, 5)).requires_grad_()
    return old, new, torch.tensor([1.3, -0.7, 0.4])[:, None].expand(3, 5).contiguous()


def our_tokens(name: str, low: float, high: float, old: Tensor, new: Tensor, advantages: Tensor) -> Tensor:
    """Loss of each trained token [N]."""
    on = MASK.bool()
    tokens = TokenBatch(new[on], old[on], advantages[on], on.nonzero()[:, 0])
    return load_estimator(name, []).policy_loss(tokens, clip_low=low, clip_high=high).loss


def averaged(loss_N: Tensor, how: str) -> Tensor:
    if how == "token-mean":
        return loss_N.mean()
    lengths = MASK.sum(-1)
    return (loss_N / lengths[MASK.bool().nonzero()[:, 0]]).sum() / len(lengths)


def same(ours: Tensor, theirs: Tensor, new: Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    (our_gradient,) = torch.autograd.grad(ours, new, retain_graph=True)
    (their_gradient,) = torch.autograd.grad(theirs, new)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-6, rtol=1e-5)
    assert float(our_gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("name", "function", "how", "low", "high"),
    [
        ("grpo", "vanilla", "token-mean", 0.2, 0.28),
        ("dapo", "vanilla", "token-mean", 0.2, 0.28),
        ("dr_grpo", "vanilla", "seq-mean-token-mean", 0.2, 0.2),
        ("rloo", "vanilla", "token-mean", 0.2, 0.2),
        ("gspo", "gspo", "seq-mean-token-mean", 0.05, 0.1),
        ("gspo", "gspo", "token-mean", 3e-4, 4e-4),
        ("cispo", "cispo", "token-mean", 0.2, 0.2),
    ],
)
def test_losses_equal_verls(name: str, function: str, how: str, low: float, high: float) -> None:
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    config_module = pytest.importorskip("verl.workers.config")
    config = config_module.ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio=low, clip_ratio_low=low,
        clip_ratio_high=high, clip_ratio_c=1e9,
    )  # fmt: skip
    old, new, advantages = batch()
    theirs = core_algos.get_policy_loss_fn(function)(old, new, advantages, MASK, how, config)[0]
    same(averaged(our_tokens(name, low, high, old, new, advantages), how), theirs, new)


@pytest.mark.parametrize(
    ("name", "loss_type", "level", "how", "low", "high"),
    [
        ("grpo", "grpo", "token", "sequence", 0.2, 0.28),
        ("dapo", "dapo", "token", "token-mean", 0.2, 0.28),
        ("gspo", "grpo", "sequence", "sequence", 0.05, 0.1),
        # TRL's epsilon_high is the largest weight itself, and it has no lower bound.
        ("cispo", "cispo", "token", "token-mean", 1.0, 0.25),
    ],
)
def test_losses_equal_trls(name: str, loss_type: str, level: str, how: str, low: float, high: float) -> None:
    old, new, advantages = batch()
    theirs = trl_loss(new, old, advantages[:, 0], loss_type, level, low, 1 + high if loss_type == "cispo" else high)
    same(averaged(our_tokens(name, low, high, old, new, advantages), how), theirs, new)


def trl_loss(
    new: Tensor, old: Tensor, advantages: Tensor, loss_type: str, level: str, low: float, high: float
) -> Tensor:
    """`GRPOTrainer._compute_loss` itself, on log-probabilities that are given instead of a model's."""
    trainer_module = pytest.importorskip("trl.trainer.grpo_trainer")
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, 0 * new, None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level=level, beta=0.0, loss_type=loss_type, epsilon_low=low, epsilon_high=high,
        use_vllm=False, max_completion_length=5,
        vllm_importance_sampling_correction=False, model=SimpleNamespace(training=True), num_generations=3,
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False, _metrics=_Metrics(),
        args=SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
    )  # fmt: skip
    ones = torch.ones(3, 2, dtype=torch.long)
    inputs = {
        "prompt_ids": ones, "prompt_mask": ones, "completion_ids": torch.ones(3, 5, dtype=torch.long),
        "completion_mask": MASK, "advantages": advantages, "old_per_token_logps": old,
        "num_items_in_batch": MASK.sum(),
    }  # fmt: skip
    loss: Tensor = trainer_module.GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss


class _Metrics(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        self[key] = _Metrics() if key in ("train", "eval") else []
        return self[key]


def test_the_weight_of_cispo_never_loses_the_gradient() -> None:
    """Where PPO's clip leaves a token without a gradient, CISPO bounds its weight."""
    old, new = torch.tensor([-2.0]), torch.tensor([-0.5], requires_grad=True)
    tokens = TokenBatch(new, old, torch.tensor([1.0]), torch.tensor([0]))
    clipped = load_estimator("grpo", []).policy_loss(tokens, clip_low=0.2, clip_high=0.28)
    assert clipped.clipped.item() and torch.autograd.grad(clipped.loss.sum(), new)[0].item() == 0
    weighted = load_estimator("cispo", []).policy_loss(tokens, clip_low=1.0, clip_high=0.28)
    assert weighted.clipped.item()
    assert torch.autograd.grad(weighted.loss.sum(), new)[0].item() == pytest.approx(-1.28)


# --- the config ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "normalizer", "clip"),
    [
        (["train.estimator=grpo"], "mode_balanced", (0.2, 0.28)),
        (["train.estimator=dapo"], "token_mean", (0.2, 0.28)),
        (["train.estimator=dr_grpo"], "constant", (0.2, 0.2)),
        (["train.estimator=rloo"], "mode_balanced", (0.2, 0.2)),
        (["train.estimator=gspo"], "sequence_mean", (3e-4, 4e-4)),
        (["train.estimator=cispo"], "token_mean", (1.0, 4.0)),
        (["train.estimator=cispo", "train.clip_low=0.2", "train.normalizer=constant"], "constant", (0.2, 4.0)),
    ],
)
def test_an_estimator_brings_what_it_was_published_with(
    overrides: list[str], normalizer: str, clip: tuple[float, float]
) -> None:
    rules = loss_rules(load_config(DEFAULT_CONFIG, overrides))
    assert rules.normalizer.name == normalizer
    assert (rules.clip_low, rules.clip_high) == clip
    assert rules.normalizer.length == 64  # the largest budget of the modes


def test_an_estimator_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from hybrid_rl.algorithm.estimators import GroupEstimator\n"
        "class Mine(GroupEstimator):\n"
        "    def __init__(self):\n"
        "        super().__init__(normalizer='sequence_mean', scale='none')\n"
    )
    rules = loss_rules(load_config(DEFAULT_CONFIG, [f"train.estimator={tmp_path / 'mine.py'}:Mine"]))
    assert rules.normalizer.name == "sequence_mean"
    assert rules.estimator.advantages([0, 1], eps=1e-4, min_std=0).values == (-0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("", "grop", "did you mean 'grpo'"),
        ("x = 1\n", "{file}:x", "has no normalizer"),
        (
            "from hybrid_rl.algorithm.estimators import GroupEstimator\nx = GroupEstimator(normalizer='mean')\n",
            "{file}:x",
            "asks for the normaliser 'mean'",
        ),
    ],
)
def test_what_is_no_estimator_is_refused(tmp_path: Path, text: str, name: str, complaint: str) -> None:
    path = tmp_path / f"plugin{len(text)}.py"
    path.write_text(text)
    with pytest.raises(PluginError, match=complaint):
        loss_rules(load_config(DEFAULT_CONFIG, [f"train.estimator={name.format(file=path)}"]))
