"""Baselines on examples worked by hand from their formulas, GDPO against TRL and verl, truncation and abstention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL, make_groups
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.algorithm.normalizer import token_weights
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.config import Config, load_config
from hybrid_rl.errors import ConfigError, PluginError
from hybrid_rl.protocols import Thought
from hybrid_rl.records import Finish, Generation, Message, Outcome, Prompt, Request, Response, Rollout, Score

ASSIGNED: dict[str, Thought] = {"short": "closed", "long": "opened"}
AUTO = (
    "modes.kinds={short: {share: 0, max_new_tokens: 9, mode_token: '</think>'}, "
    "long: {share: 0, max_new_tokens: 9, mode_token: '<think>'}, auto: {share: 1, max_new_tokens: 9}}"
)
FREE: dict[str, Thought] = {**ASSIGNED, "auto": "free"}
FORCED = "modes.kinds={short: {max_new_tokens: 9, mode_token: x}, long: {max_new_tokens: 9, mode_token: y}}"
EPS = 1e-4


def config(*overrides: str) -> Config:
    return load_config(DEFAULT_CONFIG, [*SMALL, *overrides])


def response(
    mode: str,
    *,
    thought: str = "",
    length: int = 3,
    truncated: bool = False,
    forced: bool = False,
    prompt: str = "p",
    share: float = 1.0,
) -> Rollout:
    """A response to the prompt `p`, in the group of its mode."""
    asked = Prompt(id=prompt, source="s", task="t", messages=(Message(role="user", text="?"),), gold="1")
    return Rollout(
        request=Request(
            prompt=asked, mode=mode, group=f"{prompt}/{mode}", index=0, seed=0, max_new_tokens=9, temperature=1.0,
            mode_share=share,
        ),
        generation=Generation(
            ids=tuple(range(length)), logprobs=(-1.0,) * length, sampled=(not forced, *[True] * (length - 1)),
            finish=Finish.LENGTH if truncated else Finish.STOP,
        ),
        response=Response(text="", thought=thought, answer="1", closed=True, leaked=False),
        versions=(0, 0),
    )  # fmt: skip


def score(value: float | None, **parts: float) -> Score:
    return Score(value=value or 0.0, parts=parts, outcome=Outcome.ABSTAIN if value is None else Outcome.OK)


def groups_of(
    made: Config, thoughts: dict[str, Thought], rollouts: Sequence[Rollout], scores: Sequence[Score], step: int = 1
) -> list[Group]:
    return make_grouping(made, thoughts).groups(rollouts, scores, step)


def values(groups: list[Group]) -> list[float]:
    """The advantage of the last token of each response."""
    return [sample.advantages[-1] for group in groups for sample in group.samples]


def choices(groups: list[Group]) -> list[float]:
    """What the first token has beyond the others."""
    return [sample.advantages[0] - sample.advantages[-1] for group in groups for sample in group.samples]


# --- within the mode, and over modes ------------------------------------------------------------------------------

TWO_BY_THREE = [response(mode) for mode in ("short", "long") for _ in range(3)]
REWARDS = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_within_mode_is_grpo_of_each_mode() -> None:
    scores = [score(r) for r in REWARDS]
    ours = groups_of(config(), ASSIGNED, TWO_BY_THREE, scores)
    plain = make_groups(TWO_BY_THREE, scores, eps=EPS, min_std=1e-6)
    assert ours == plain
    # mean 1/3, unbiased variance (4/9 + 2/9) / 2 = 1/3
    std = math.sqrt(1 / 3) + EPS
    assert values(ours)[:3] == pytest.approx([-1 / 3 / std, -1 / 3 / std, 2 / 3 / std])


def test_bpo_merges_both_modes_of_a_prompt() -> None:
    """R-4B: one mean and one standard deviation over the 2 g responses."""
    made = config("train.baseline=bpo", "modes.assign=paired")
    groups = groups_of(made, ASSIGNED, TWO_BY_THREE, [score(r) for r in REWARDS])
    # mean 1/2, unbiased variance 6 * 1/4 / 5 = 0.3
    unit = 0.5 / (math.sqrt(0.3) + EPS)
    assert values(groups) == pytest.approx([-unit, -unit, unit, unit, unit, -unit])
    assert [group.mode for group in groups] == ["short", "long"]
    assert [group.advantage.std for group in groups] == pytest.approx([math.sqrt(0.3)] * 2)


def test_bpo_keeps_prompts_apart() -> None:
    made = config("train.baseline=bpo", "modes.assign=paired")
    both = [*TWO_BY_THREE, *(response(m, prompt="q") for m in ("short", "long") for _ in range(3))]
    groups = groups_of(made, ASSIGNED, both, [score(r) for r in [*REWARDS, *[1.0] * 6]])
    assert values(groups)[6:] == [0.0] * 6
    assert groups[2].advantage.signal == "zero_variance"


def test_hgpo_by_hand() -> None:
    """Means: short 1/3 + delta 0.2, long 2/3: long wins. Best of each mode: the third, and the fourth and fifth."""
    made = config("train.baseline=hgpo", "modes.assign=paired", "modes.forced_tokens=importance", FORCED,
                  "modes.long_ratio=null")  # fmt: skip
    rollouts = [response(mode, forced=True, share=0.5) for mode in ("short", "long") for _ in range(3)]
    groups = groups_of(made, ASSIGNED, rollouts, [score(r) for r in REWARDS])
    std = math.sqrt(1 / 3) + EPS
    intra = [-1 / 3 / std, -1 / 3 / std, 2 / 3 / std, 1 / 3 / std, 1 / 3 / std, -2 / 3 / std]
    assert values(groups) == pytest.approx(intra)
    unit = 0.5 / (math.sqrt(0.3) + EPS)
    assert choices(groups) == pytest.approx([-unit] * 3 + [unit] * 3)
    # delta 0.5 turns it round: a thought has to be worth more than half a reward.
    wary = config("train.baseline=hgpo", "modes.assign=paired", "modes.forced_tokens=importance", FORCED,
                  "modes.long_ratio=null", "train.baseline_args={delta: 0.5, alpha: 2.0}")  # fmt: skip
    assert choices(groups_of(wary, ASSIGNED, rollouts, [score(r) for r in REWARDS])) == pytest.approx(
        [2 * unit] * 3 + [-2 * unit] * 3
    )


def test_a_forced_mode_token_is_trained_as_if_drawn_with_its_share() -> None:
    made = config("modes.forced_tokens=importance", FORCED, "modes.long_ratio=0.25")
    rollouts = [response("short", forced=True, share=0.75) for _ in range(2)]
    (group,) = groups_of(made, ASSIGNED, rollouts, [score(1), score(0)])
    for sample in group.samples:
        assert sample.loss_mask == (True, True, True)
        assert sample.old_logprobs == pytest.approx((math.log(0.75), -1.0, -1.0))
    # Masked, as it is by default, it is in no numerator and no denominator.
    (masked,) = groups_of(config(FORCED, "modes.long_ratio=0.25"), ASSIGNED, rollouts, [score(1), score(0)])
    assert masked.samples[0].loss_mask == (False, True, True)
    assert masked.samples[0].old_logprobs == (-1.0, -1.0, -1.0)


@pytest.mark.parametrize(("step", "rare", "common"), [(50, 2.5, 7 / 6), (100, 1.0, 1.0)])
def test_ada_grpo_raises_rare_formats_and_lets_go(step: int, rare: float, common: float) -> None:
    """ARM: 4 responses, one thinks. At half time the factor is 1 + (4/1 - 1)/2 = 2.5 and 1 + (4/3 - 1)/2 = 7/6."""
    made = config("train.baseline=ada_grpo", AUTO, "run.steps=100", "modes.long_ratio=null", "train.estimator=dr_grpo")
    rollouts = [response("auto", thought="hm"), *(response("auto") for _ in range(3))]
    rewards = [1.0, 1.0, 0.0, 1.0]
    groups = groups_of(made, FREE, rollouts, [score(r) for r in rewards], step=step)
    scaled = [rare, common, 0.0, common]
    assert values(groups) == pytest.approx([r - sum(scaled) / 4 for r in scaled])


def test_thinkless_gives_the_choice_a_loss_of_its_own() -> None:
    made = config("train.baseline=thinkless", AUTO, "modes.long_ratio=null", "train.estimator=dr_grpo")
    rollouts = [response("auto", thought="hm", length=9), response("auto", length=3)]
    groups = groups_of(made, FREE, rollouts, [score(0.5), score(1.0)])
    assert values(groups) == pytest.approx([-0.25, 0.25]) and choices(groups) == [0, 0]
    assert all(sample.mode_token for sample in groups[0].samples)
    assert groups[0].samples[0].old_logprobs == (-1.0,) * 9  # the model drew it: nothing to correct
    (weights,) = token_weights(groups, loss_rules(made).normalizer)
    # Two mode tokens share alpha. The rest has Dr.GRPO's constant: 2 responses, C = 9.
    assert [w.mode_token for w in weights] == pytest.approx([0.001 / 2] * 2)
    assert [w.token for w in weights] == pytest.approx([1 / 2 / 9] * 2)


@given(
    st.sampled_from(["within_mode", "joint", "bpo"]),
    st.lists(st.one_of(st.none(), st.floats(-3, 3, allow_nan=False)), min_size=4, max_size=8),
    st.integers(1, 7),
)
def test_advantages_of_what_is_compared_sum_to_zero(name: str, rewards: list[float | None], cut: int) -> None:
    modes = ["short" if i < min(cut, len(rewards)) else "long" for i in range(len(rewards))]
    groups = groups_of(
        config(f"train.baseline={name}"), ASSIGNED, [response(m) for m in modes], [score(r) for r in rewards]
    )
    sums = [sum(group.advantage.values) for group in groups]
    for total in sums if name == "within_mode" else [sum(sums)]:
        assert total == pytest.approx(0, abs=1e-6)


# --- GDPO -----------------------------------------------------------------------------------------------------------

PARTS = {"accuracy": [1.0, 0.0, 1.0, 0.0, 1.0, 1.0], "format": [0.2, 0.9, 0.1, 0.5, 0.5, 0.5], "repetition": [0.0] * 6}
GDPO = ("train.aggregate=normalize_then_sum", "rewards.format.weight=0.5")


def parts_of(i: int) -> Score:
    parts = {name: column[i] for name, column in PARTS.items()}
    return score(parts["accuracy"] + 0.5 * parts["format"] + 0.2 * parts["repetition"], **parts)


def six_responses(lengths: Sequence[int] = (3,) * 6) -> list[Rollout]:
    return [response("short", prompt="p" if i < 3 else "q", length=n) for i, n in enumerate(lengths)]


def test_gdpo_equals_trl() -> None:
    """The lines of TRL's `GRPOTrainer._generate_and_score_completions` under normalize_then_sum, with its `nanstd`."""
    nanstd = pytest.importorskip("trl.trainer.utils").nanstd
    ours = values(groups_of(config(*GDPO), ASSIGNED, six_responses(), [parts_of(i) for i in range(6)]))
    grouped = torch.tensor(list(PARTS.values()), dtype=torch.float64).T.reshape(2, 3, 3)
    each = (grouped - grouped.nanmean(dim=1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
    summed = (each.view(-1, 3) * torch.tensor([1.0, 0.5, 0.2])).nansum(dim=1)
    theirs = (summed - torch.nanmean(summed)) / (nanstd(summed) + 1e-4)
    assert ours == pytest.approx(theirs.tolist(), abs=1e-6)


def test_gdpo_equals_verl_where_all_responses_are_equally_long() -> None:
    """verl whitens over tokens; with equal lengths that is the same but for its biased count of them."""
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    ours = values(groups_of(config(*GDPO, "train.advantage_eps=1e-6"), ASSIGNED, six_responses(),
                            [parts_of(i) for i in range(6)]))  # fmt: skip
    mask = torch.ones(6, 3)
    theirs, _ = core_algos.compute_gdpo_outcome_advantage(
        torch.zeros(6, 3),
        mask,
        np.array(["p"] * 3 + ["q"] * 3, dtype=object),
        config=_Settings({"gdpo_reward_keys": list(PARTS), "gdpo_reward_weights": [1.0, 0.5, 0.2]}),
        non_tensor_batch={name: np.array(column) for name, column in PARTS.items()},
        batch={"prompts": torch.zeros(6, 1), "attention_mask": torch.ones(6, 4, dtype=torch.long)},
    )
    # Bessel's correction over 6 responses here, over 18 tokens there.
    scale = math.sqrt((6 - 1) / 6 * 18 / (18 - 1))
    assert ours == pytest.approx((theirs[:, 0] * scale).tolist(), abs=1e-4)


class _Settings(dict[str, Any]):
    pass


def test_gdpo_hears_a_part_that_the_sum_drowns() -> None:
    """Accuracy 1 and format 0.01 apart: in the sum, format is nothing; by itself it orders the equal ones."""
    columns = [(1.0, 0.0), (1.0, 0.01), (0.0, 0.0), (0.0, 0.01)]
    scores = [score(a + f, accuracy=a, format=f) for a, f in columns]
    rollouts = [response("short") for _ in columns]
    drowned = values(groups_of(config(), ASSIGNED, rollouts, scores))
    heard = values(groups_of(config(GDPO[0]), ASSIGNED, rollouts, scores))
    assert drowned[1] - drowned[0] < 0.02 < 1 < heard[1] - heard[0]


def test_gdpo_gives_nothing_to_a_group_without_signal_or_score() -> None:
    scores = [score(1.0, accuracy=1.0, format=1.0)] * 3 + [score(1, accuracy=1), score(0, accuracy=0), score(None)]
    groups = groups_of(config(GDPO[0]), ASSIGNED, six_responses(), scores)
    assert groups[0].advantage.signal == "zero_variance" and values(groups)[:3] == [0, 0, 0]
    assert values(groups)[5] == 0 and values(groups)[3] > 0 > values(groups)[4]


@pytest.mark.parametrize("name", ["hgpo", "ada_grpo"])
def test_schemes_on_the_sum_refuse_gdpo(name: str) -> None:
    with pytest.raises(ConfigError, match="normalises each part of the reward by itself"):
        make_grouping(config(GDPO[0], f"train.baseline={name}"), ASSIGNED)


# --- truncation and abstention --------------------------------------------------------------------------------------

CUT = [response("short", truncated=i == 1, length=4) for i in range(4)]
CUT_SCORES = [score(r) for r in (1.0, 0.5, 0.0, 1.0)]


def cut(policy: str, *overrides: str) -> Group:
    (group,) = groups_of(config(f"modes.kinds.short.truncation={policy}", *overrides), ASSIGNED, CUT, CUT_SCORES)
    return group


def test_masking_a_truncation_changes_no_advantage_and_leaves_every_denominator() -> None:
    kept, masked = cut("keep"), cut("mask")
    assert masked.advantage == kept.advantage
    assert [sample.trained for sample in masked.samples] == [True, False, True, True]
    assert sum(sum(sample.loss_mask) for sample in kept.samples) == 16
    assert sum(sum(sample.loss_mask) for sample in masked.samples) == 12
    for name, denominator in (("token_mean", 12), ("sequence_mean", 3 * 4), ("constant", 3 * 64)):
        rules = loss_rules(config(f"train.normalizer={name}")).normalizer
        (weights,) = token_weights([masked], rules)
        assert [w.token for w in weights] == pytest.approx([1 / denominator, 0, 1 / denominator, 1 / denominator])


def test_penalising_a_truncation_is_a_lower_reward() -> None:
    penalised = cut("penalise", "modes.kinds.short.truncation_penalty=2.0")
    assert all(sample.trained for sample in penalised.samples)
    expected = make_groups(CUT, [score(r) for r in (1.0, -1.5, 0.0, 1.0)], eps=EPS, min_std=1e-6)
    assert penalised.advantage == expected[0].advantage
    assert penalised.samples[1].score.value == 0.5  # what the reward said stays on record


def test_a_penalty_is_a_part_of_its_own_in_gdpo() -> None:
    scores = [score(1.0, accuracy=1.0) for _ in CUT]
    made = config("modes.kinds.short.truncation=penalise", GDPO[0])
    found = values(groups_of(made, ASSIGNED, CUT, scores))
    assert found[1] < 0 < found[0] == found[2] == found[3]


def test_the_policy_is_that_of_the_responses_mode() -> None:
    made = config("modes.kinds.short.truncation=mask")
    rollouts = [response(m, truncated=True) for m in ("short", "short", "long", "long")]
    groups = groups_of(made, ASSIGNED, rollouts, [score(r) for r in (1, 0, 1, 0)])
    assert [sample.trained for group in groups for sample in group.samples] == [False, False, True, True]


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(-3, 3, allow_nan=False)), st.booleans()), min_size=3, max_size=8),
    st.sampled_from(["keep", "mask"]),
)
def test_abstentions_and_truncations_change_only_what_they_should(
    drawn: list[tuple[float | None, bool]], policy: str
) -> None:
    rollouts = [response("short", truncated=truncated) for _, truncated in drawn]
    scores = [score(reward) for reward, _ in drawn]
    made = config(f"modes.kinds.short.truncation={policy}")
    (group,) = groups_of(made, ASSIGNED, rollouts, scores)
    # The scored responses alone, none of them truncated, have the same advantages.
    rest = [s for s in scores if s.outcome is Outcome.OK]
    if rest:
        (alone,) = groups_of(made, ASSIGNED, [response("short") for _ in rest], rest)
        kept = [v for v, s in zip(group.advantage.values, scores, strict=True) if s.outcome is Outcome.OK]
        assert kept == pytest.approx(list(alone.advantage.values))
    for sample, (reward, truncated) in zip(group.samples, drawn, strict=True):
        assert sample.trained == (reward is not None and not (truncated and policy == "mask"))
        if reward is None:
            assert set(sample.advantages) == {0.0}


# --- plug-ins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.baseline=bop", "did you mean 'bpo'"),
        ("train.baseline=collections:Counter", "has no joint"),
        ("train.baseline_args={alpha: 1}", "cannot be called with alpha"),
    ],
)
def test_what_is_no_baseline_is_refused(override: str, complaint: str) -> None:
    with pytest.raises(PluginError, match=complaint):
        make_grouping(config(override), ASSIGNED)


@pytest.mark.parametrize(
    ("baseline", "arguments", "complaint"),
    [
        ("hgpo", "{alpha: strong}", "alpha is 'strong'; give a finite number from 0 up"),
        ("hgpo", "{alpha: -1}", "alpha is -1; give a finite number from 0 up"),
        ("hgpo", "{delta: [0.2]}", r"delta is \[0.2\]; give a finite number"),
        ("hgpo", "{delta: .nan}", "delta is nan"),
        ("thinkless", "{alpha: true}", "alpha is True"),
    ],
)
def test_an_argument_that_is_no_number_is_refused(baseline: str, arguments: str, complaint: str) -> None:
    made = config(f"train.baseline={baseline}", f"train.baseline_args={arguments}")
    with pytest.raises(ConfigError, match=f"train.baseline_args: {complaint}"):
        make_grouping(made, ASSIGNED)


def test_a_baseline_of_ones_own(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "from hybrid_rl.algorithm.baselines import WithinMode\n"
        "class Half(WithinMode):\n"
        "    def __init__(self, factor): self.factor = factor\n"
        "    def advantages(self, groups, estimate, progress):\n"
        "        return [estimate([self.factor * m.reward for m in group]) for group in groups]\n"
    )
    made = config(f"train.baseline={tmp_path / 'mine.py'}:Half", "train.baseline_args={factor: 0.5}",
                  "train.estimator=dr_grpo")  # fmt: skip
    assert values(groups_of(made, ASSIGNED, TWO_BY_THREE[:2], [score(1), score(0)])) == [0.25, -0.25]
