"""Mode tokens: forced by the engine, read by the chat format, and demanded by the schemes that train them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL

from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.algorithm.modes import deal_requests
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.algorithm.scheme_check import check_scheme
from hybrid_rl.config import Config, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import ConfigError
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Message, Outcome, Prompt, Rollout, Score
from hybrid_rl.updates.grpo import UpdateFigures, accumulate_gradient
from rollouts.torch_engine import TorchEngine

KINDS = (
    "modes.kinds={short: {max_new_tokens: 6, mode_token: '</think>'}, "
    "long: {max_new_tokens: 12, mode_token: '<think>'}, auto: {max_new_tokens: 12}}"
)
PROMPT = Prompt(id="p", source="s", task="t", messages=(Message(role="user", text="?"),), gold="12", thought="one, two")


def config(*overrides: str) -> Config:
    return load_config(DEFAULT_CONFIG, [*SMALL, "modes.long_ratio=null", KINDS, *overrides])


@pytest.fixture(scope="module")
def policy() -> Policy:
    made = config()
    return load_policy(made.model, made.modes, seed=0, search=made.search)


def test_a_mode_token_says_what_its_mode_asks_for(policy: Policy) -> None:
    assert [policy.format.thought(mode) for mode in ("short", "long", "auto")] == ["closed", "opened", "free"]
    assert len(policy.format.forced_ids("long")) == len(policy.format.forced_ids("short")) == 1
    assert policy.format.forced_ids("auto") == ()


@pytest.mark.parametrize(
    ("mode", "thought", "begins"),
    [
        ("short", "", "</think>12"),
        ("long", "one, two", "<think>\none, two"),
        ("auto", "", "</think>12"),
        ("auto", "one, two", "<think>\none, two"),
    ],
)
def test_targets_begin_with_the_mode_token_and_come_back(policy: Policy, mode: str, thought: str, begins: str) -> None:
    ids = policy.format.response_ids(PROMPT, mode, thought, "12")
    assert policy.processor.tokenizer.decode(ids).startswith(begins)
    response = policy.format.parse(ids, mode)
    assert (response.thought, response.answer, response.leaked) == (thought, "12", False)
    assert response.chosen == ("" if mode != "auto" else "long" if thought else "short")


@pytest.mark.parametrize(
    ("mode", "text", "leaked", "answer"),
    [
        ("short", "</think>12", False, "12"),
        ("short", "</think><think>\nhm</think>12", True, "12"),
        ("long", "<think>\nhm</think>12", False, "12"),
        ("long", "<think>\nhm", True, None),
        ("long", "<think>\nhm</think>12</think>", True, ""),
        ("auto", "12", False, "12"),
        ("auto", "<think>hm</think>12", False, "12"),
        ("auto", "12</think>", True, ""),
    ],
)
def test_what_a_response_with_a_mode_token_is_read_as(
    policy: Policy, mode: str, text: str, leaked: bool, answer: str | None
) -> None:
    ids = policy.processor.tokenizer.encode(text, add_special_tokens=False)
    response = policy.format.parse(ids, mode)
    assert (response.leaked, response.answer) == (leaked, answer)


def rollouts_of(policy: Policy, made: Config, mode: str) -> list[Rollout]:
    source = DigitStrips(name="d", split="train", seed=0, task="sum")
    shares = {"short": 0.25, "long": 0.75, "auto": 1.0}
    requests = deal_requests([source[0]], [{mode: 4}], made.modes, step=1, seed=0, shares=lambda source: shares)
    return [
        Rollout(request=r, generation=g, response=policy.format.parse(g.ids, r.mode), versions=(0, 0))
        for r, g in zip(requests, TorchEngine(policy).generate(requests), strict=True)
    ]


def test_the_engine_forces_the_token_and_samples_the_rest(policy: Policy) -> None:
    forced = rollouts_of(policy, config(), "long")
    token = policy.format.forced_ids("long")[0]
    for rollout in forced:
        generation = rollout.generation
        assert generation.ids[0] == token
        assert generation.sampled == (False, *[True] * (len(generation.ids) - 1))
    # The policy's own probability of the token is recorded: the same in every response to one prompt.
    assert len({r.generation.logprobs[0] for r in forced}) == 1
    assert all(all(r.generation.sampled) for r in rollouts_of(policy, config(), "auto"))


@pytest.mark.parametrize(("forced", "share"), [("mask", None), ("importance", 0.75)])
def test_the_gradient_of_a_forced_token(policy: Policy, forced: str, share: float | None) -> None:
    """Masked: exactly none. Importance: that of pi(token) / share times its advantage, unless clipped."""
    made = config(f"modes.forced_tokens={forced}", "train.normalizer=token_mean", "train.clip_high=9.0",
                  "train.clip_low=1.0")  # fmt: skip
    rollouts = [r for r in rollouts_of(policy, made, "long")][:2]
    scores = [Score(value=float(i), parts={}, outcome=Outcome.OK) for i in range(2)]
    thoughts = {mode: policy.format.thought(mode) for mode in made.modes.kinds}
    groups = make_grouping(made, thoughts).groups(rollouts, scores, 1)
    figures = UpdateFigures()
    accumulate_gradient(policy, groups, None, made.train, loss_rules(made), figures, on_policy=True)
    policy.model.zero_grad(set_to_none=True)
    assert figures.ratio_deviation < 1e-4  # of what was sampled; a forced token has no such ratio
    count = sum(len(r.generation.ids) - 1 for r in rollouts)
    assert figures.tokens["long"] == count + (2 if share else 0)
    advantage = groups[0].samples[0].advantages[0]
    expected = 0.0 if share is None else math.exp(rollouts[0].generation.logprobs[0]) / share
    sign = sum(s.advantages[0] for s in groups[0].samples)  # the two advantages cancel, and so do their ratios
    assert sign == pytest.approx(0, abs=1e-6) and advantage != 0
    lengths = [len(r.generation.ids) - 1 for r in rollouts]
    own = [s.advantages[1] for s in groups[0].samples]
    total = sum(a * (n + expected) for a, n in zip(own, lengths, strict=True))
    assert figures.loss == pytest.approx(-total / figures.tokens["long"], abs=1e-4)
    assert torch.isfinite(torch.tensor(figures.loss))


# --- what does not fit together -----------------------------------------------------------------------------------

Complain = Callable[..., None]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["train.baseline=joint"], "compares responses over modes, but mode short is assigned and not the model's"),
        (["train.baseline=ada_grpo"], "compares responses over modes, but mode short is assigned"),
        (["train.baseline=bpo"], "answers every prompt in both modes; set modes.assign to paired"),
        (
            ["train.baseline=bpo", "modes.assign=paired", "modes.long_ratio=0.25"],
            "compares two modes with equally many responses; here the shares are short 0.75, long 0.25",
        ),
        (
            ["train.baseline=hgpo", "modes.assign=paired"],
            "trains the token by which the model chooses its mode, and the template has none for mode short; give "
            "modes.kinds.short a mode_token, such as <think>",
        ),
        (
            ["train.baseline=hgpo", "modes.assign=paired", "modes.kinds.short.mode_token=<short>",
             "modes.kinds.long.mode_token=<think>"],
            "modes.kinds.short.mode_token '<short>' is 7 tokens of this model; take one that is a single token",
        ),
        (
            ["train.baseline=hgpo", "modes.assign=paired", "modes.kinds.short.mode_token=<think>",
             "modes.kinds.long.mode_token=<think>"],
            "has the same one as another",
        ),
        (
            ["train.baseline=hgpo", "modes.assign=paired", "modes.kinds.short.mode_token=a",
             "modes.kinds.long.mode_token=b"],
            "ends differently from that of mode short, and no token chooses between them",
        ),
        (
            ["modes.forced_tokens=importance", "modes.kinds.long.mode_token=b"],
            "modes.forced_tokens trains the token by which the model chooses its mode, and the template has none for "
            "mode short",
        ),
    ],
)  # fmt: skip
def test_a_scheme_that_the_modes_do_not_carry_is_refused(
    tiny_policy: Policy, overrides: list[str], sentence: str
) -> None:
    made = load_config(DEFAULT_CONFIG, [*SMALL, *overrides])
    chat = load_policy(made.model, made.modes, seed=0, search=made.search).format
    with pytest.raises(ConfigError) as error:
        check_scheme(made, chat)
    assert sentence in str(error.value)


def test_hgpo_needs_its_forced_tokens_in_the_loss(policy: Policy) -> None:
    made = config("train.baseline=hgpo", "modes.assign=paired", "modes.kinds.auto.share=0",
                  "modes.kinds.short.share=0.5", "modes.kinds.long.share=0.5")  # fmt: skip
    with pytest.raises(ConfigError, match=r"forced, which modes\.forced_tokens mask leaves out; set it to importance"):
        check_scheme(made, policy.format)
    importance = made.model_copy(update={"modes": made.modes.model_copy(update={"forced_tokens": "importance"})})
    check_scheme(importance, policy.format)


@pytest.mark.parametrize("name", ["joint", "ada_grpo", "thinkless"])
def test_where_the_model_chooses_modes_are_compared(policy: Policy, name: str) -> None:
    shares = ["modes.kinds.auto.share=1.0", "modes.kinds.short.share=0.0", "modes.kinds.long.share=0.0"]
    check_scheme(config(f"train.baseline={name}", *shares), policy.format)
