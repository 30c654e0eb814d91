"""The token loss against a hand-worked example, TRL's formula and verl's function; who weighs how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import make_groups
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.loss import token_loss
from hybrid_rl.algorithm.normalizer import NORMALIZERS, Normalizer, token_weights
from hybrid_rl.algorithm.schedule import wsd
from hybrid_rl.config.training import TrainConfig
from hybrid_rl.records import Outcome, Rollout, Score


def test_worked_example() -> None:
    # ratios 1.5, 1.5, 0.5, 0.5 with advantages 1, -1, 1, -1 and clip [0.8, 1.28]:
    # -min(1.5, 1.28) = -1.28 (clipped); -min(-1.5, -1.28) = 1.5;
    # -min(0.5, 0.8) = -0.5; -min(-0.5, -0.8) = 0.8 (clipped)
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    old = torch.tensor([-1.0, -2.0, -1.0, -2.0])
    new = old + ratio.log()
    terms = token_loss(new, old, torch.tensor([1.0, -1.0, 1.0, -1.0]), new, clip_low=0.2, clip_high=0.28)
    assert terms.policy.tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8])
    assert terms.clipped.tolist() == [True, False, False, True]
    assert terms.ratio.tolist() == pytest.approx([1.5, 1.5, 0.5, 0.5])
    assert terms.kl.tolist() == [0, 0, 0, 0]


def test_k3_by_hand() -> None:
    # d = log pi_ref - log pi = 0.5: exp(0.5) - 0.5 - 1
    terms = token_loss(
        torch.tensor([-1.0]),
        torch.tensor([-1.0]),
        torch.tensor([0.0]),
        torch.tensor([-0.5]),
        clip_low=0.2,
        clip_high=0.2,
    )
    assert terms.kl.item() == pytest.approx(math.exp(0.5) - 1.5)


def test_equals_verl() -> None:
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    omegaconf = pytest.importorskip("omegaconf")
    torch.manual_seed(0)
    old = -torch.rand(3, 5) * 3
    new = (old + 0.4 * torch.randn(3, 5)).requires_grad_()
    advantages = torch.randn(3, 1).expand(3, 5).contiguous()
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.float32)
    config = omegaconf.OmegaConf.create(
        {
            "clip_ratio": 0.2,
            "clip_ratio_low": 0.2,
            "clip_ratio_high": 0.28,
            "clip_ratio_c": 1e9,
            "global_batch_info": {},
        }
    )
    theirs = core_algos.compute_policy_loss_vanilla(old, new, advantages, mask, "token-mean", config)[0]
    (theirs_gradient,) = torch.autograd.grad(theirs, new)
    terms = token_loss(
        new[mask.bool()], old[mask.bool()], advantages[mask.bool()], new[mask.bool()], clip_low=0.2, clip_high=0.28
    )
    ours = terms.policy.sum() / mask.sum()
    (ours_gradient,) = torch.autograd.grad(ours, new)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    torch.testing.assert_close(ours_gradient, theirs_gradient, atol=1e-6, rtol=1e-5)


def test_the_gradient_raises_the_probability_of_good_tokens_and_lowers_that_of_bad_ones() -> None:
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    terms = token_loss(
        logprobs, logprobs.detach(), torch.tensor([1.0, -1.0]), logprobs.detach(), clip_low=0.2, clip_high=0.28
    )
    terms.policy.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0] < 0 < logprobs.grad[1]  # descent goes against the gradient


# --- weights ---------------------------------------------------------------------------------------------------


def groups_of(make: Callable[..., Rollout], lengths: dict[str, list[int]]) -> list[Group]:
    """One group of two a length, in each mode."""
    rollouts, scores = [], []
    for mode, values in lengths.items():
        for number, length in enumerate(values):
            for reward in (0.0, 1.0):
                rollouts.append(make(range(length), mode=mode, group=f"{mode}{number}"))
                scores.append(Score(value=reward, parts={}, outcome=Outcome.OK))
    return make_groups(rollouts, scores, eps=1e-4, min_std=1e-6)


def shares(groups: list[Group], name: str, length: int = 1, **loss_weights: float) -> dict[str, float]:
    """What the weights of the trained tokens of each mode add up to."""
    weights = token_weights(groups, Normalizer(name, loss_weights or dict.fromkeys("abc", 1.0), length))
    result: dict[str, float] = {}
    for group, of_samples in zip(groups, weights, strict=True):
        for sample, weight in zip(group.samples, of_samples, strict=True):
            values = [v for v, on in zip(weight.spread(sample), sample.loss_mask, strict=True) if on]
            result[group.mode] = result.get(group.mode, 0.0) + sum(values)
    return result


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mode_balanced", {"a": 1 / 2, "b": 1 / 2}),
        ("token_mean", {"a": 1 / 11, "b": 10 / 11}),  # the short mode drowns
        ("sequence_mean", {"a": 1 / 2, "b": 1 / 2}),
        ("constant", {"a": 10 / 200, "b": 100 / 200}),  # half of the responses each, their length over C = 100
    ],
)
def test_share_of_each_mode_at_a_length_ratio_of_one_to_ten(
    make_rollout: Callable[..., Rollout], name: str, expected: dict[str, float]
) -> None:
    groups = groups_of(make_rollout, {"a": [10, 10], "b": [100, 100]})
    assert shares(groups, name, length=100) == pytest.approx(expected)


def test_inside_a_mode_only_the_sequence_mean_favours_short_responses(make_rollout: Callable[..., Rollout]) -> None:
    groups = groups_of(make_rollout, {"a": [10, 30]})
    token = {}
    for name in NORMALIZERS:
        weights = token_weights(groups, Normalizer(name, {"a": 1.0}, 50))
        token[name] = (weights[0][0].token, weights[1][0].token)
    # 4 responses, 80 tokens
    assert token["mode_balanced"] == token["token_mean"] == pytest.approx((1 / 80, 1 / 80))
    assert token["sequence_mean"] == pytest.approx((1 / 4 / 10, 1 / 4 / 30))
    assert token["constant"] == pytest.approx((1 / 4 / 50, 1 / 4 / 50))


@pytest.mark.parametrize("name", ["mode_balanced", "token_mean", "sequence_mean"])
def test_loss_weight_scales_a_mode(make_rollout: Callable[..., Rollout], name: str) -> None:
    groups = groups_of(make_rollout, {"a": [10], "b": [10]})
    assert shares(groups, name, a=3, b=1) == pytest.approx({"a": 0.75, "b": 0.25})
    assert shares(groups, name, a=0, b=0) == {"a": 0, "b": 0}


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1),
    st.sampled_from(["mode_balanced", "token_mean", "sequence_mean"]),
)
def test_all_weights_add_up_to_one(lengths: dict[str, list[int]], name: str) -> None:
    assert sum(shares(groups_of(_plain_rollout, lengths), name).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("token_mean", "token-mean"),
        ("sequence_mean", "seq-mean-token-mean"),
        ("constant", "seq-mean-token-sum-norm"),
    ],
)
def test_weights_equal_verls_aggregation(make_rollout: Callable[..., Rollout], ours: str, theirs: str) -> None:
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    groups = groups_of(make_rollout, {"a": [3, 7], "b": [5]})
    masked = groups[0].samples[1]
    groups[0] = replace(groups[0], samples=(groups[0].samples[0], replace(masked, trained=False)))
    samples = [sample for group in groups for sample in group.samples]
    torch.manual_seed(0)
    loss = torch.randn(len(samples), 9)
    mask = torch.zeros_like(loss)
    for row, sample in enumerate(samples):
        mask[row, : len(sample.loss_mask)] = torch.tensor(sample.loss_mask, dtype=torch.float32)
    expected = core_algos.agg_loss(loss, mask, theirs, loss_scale_factor=9)
    weights = token_weights(groups, Normalizer(ours, {"a": 1.0, "b": 1.0}, 9))
    found = sum(
        sum(w * float(v) for w, v, on in zip(weight.spread(sample), loss[row], sample.loss_mask, strict=False) if on)
        for row, (sample, weight) in enumerate(zip(samples, [w for ws in weights for w in ws], strict=True))
    )
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_mode_tokens_can_have_a_mean_of_their_own(make_rollout: Callable[..., Rollout]) -> None:
    """Thinkless: alpha times the mean over mode tokens, and the mean over all other tokens; worked by hand."""
    groups = groups_of(make_rollout, {"a": [3, 6]})
    marked = [replace(g, samples=tuple(replace(s, mode_token=True) for s in g.samples)) for g in groups]
    weights = token_weights(marked, Normalizer("token_mean", {"a": 1.0}, mode_token_weight=0.001))
    # 4 mode tokens; 2 x 2 + 2 x 5 = 14 others
    for of_samples in weights:
        for weight in of_samples:
            assert weight.mode_token == pytest.approx(0.001 / 4)
            assert weight.token == pytest.approx(1 / 14)
    assert weights[1][0].spread(marked[1].samples[0]) == pytest.approx([0.001 / 4] + [1 / 14] * 5)


def _plain_rollout(ids: range, *, mode: str, group: str) -> Rollout:
    from hybrid_rl.records import Finish, Generation, Message, Prompt, Request, Response

    prompt = Prompt(id="p", source="s", task="t", messages=(Message(role="user", text="?"),), gold="1")
    return Rollout(
        request=Request(prompt=prompt, mode=mode, group=group, index=0, seed=0, max_new_tokens=99, temperature=1.0),
        generation=Generation(
            ids=tuple(ids), logprobs=(0.0,) * len(ids), sampled=(True,) * len(ids), finish=Finish.STOP
        ),
        response=Response(text="", thought="", answer="", closed=True, leaked=False),
        versions=(0, 0),
    )


# --- schedule --------------------------------------------------------------------------------------------------


def test_wsd_rises_stays_and_falls() -> None:
    values = [wsd(step, 10, TrainConfig(warmup_steps=2, decay_fraction=0.4, final_scale=0.1)) for step in range(1, 11)]
    assert values[:6] == pytest.approx([0.5, 1, 1, 1, 1, 1])
    assert values[6:] == pytest.approx([0.1**0.25, 0.1**0.5, 0.1**0.75, 0.1])
