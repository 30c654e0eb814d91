"""Thinking budgets: a thought ends at its budget, its answer follows, and nothing is learned from what was forced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL

from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config import Config, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import ConfigError
from hybrid_rl.insight.budgets import budget_curve, check_budgets, limited_modes, read_budgets
from hybrid_rl.policy import Policy
from hybrid_rl.preflight import prepare
from hybrid_rl.records import Finish, Generation, Request, Rollout, Sample, Score
from hybrid_rl.updates.forward import response_logprobs
from hybrid_rl.updates.rows import Row
from rollouts.thinking_budget import Budgets
from rollouts.torch_engine import TorchEngine

CONFIG = load_config(
    DEFAULT_CONFIG, [*SMALL, "modes.kinds.short.max_new_tokens=6", "modes.kinds.long.max_new_tokens=16"]
)
CLOSING = "\n</think>\n\n"


def requests(budgets: list[int | None]) -> list[Request]:
    """Two responses in each of as many prompts, alternately short and long; the long ones with these budgets."""
    source = DigitStrips(name="d", split="train", seed=0, task="sum")
    modes = [mode for _ in budgets for mode in ("short", "long")]
    prompts = [source[i] for i in range(len(modes))]
    made = make_requests(prompts, modes, CONFIG.modes, step=1, num_responses=2, seed=0)
    given = [budget for budget in budgets for _ in range(2)]
    long = iter(given)
    return [replace(r, max_think_tokens=next(long)) if r.mode == "long" else r for r in made]


@pytest.fixture(scope="module")
def generated(tiny_policy: Policy) -> list[tuple[Request, Generation, Generation]]:
    """Request, generation with budgets 0, 3, 5, none and 100 in one batch, and one in a batch without budgets."""
    wanted = requests([0, 3, 5, None, 100])
    engine = TorchEngine(tiny_policy)
    free = engine.generate([replace(r, max_think_tokens=None) for r in wanted])
    return list(zip(wanted, engine.generate(wanted), free, strict=True))


def test_a_thought_is_closed_at_its_budget_by_what_the_template_writes(
    tiny_policy: Policy, generated: list[tuple[Request, Generation, Generation]]
) -> None:
    chat = tiny_policy.format
    closing = chat.encode(CLOSING)
    assert chat.closing_text("long") == CLOSING
    for request, generation, free in generated:
        budget = request.max_think_tokens
        if budget is None or budget > 16:
            continue
        # The policy has random weights, and these thoughts do not end by themselves.
        assert generation.ids[:budget] == free.ids[:budget]
        assert generation.ids[budget : budget + len(closing)] == closing
        forced = [not s for s in generation.sampled]
        assert [i for i, f in enumerate(forced) if f] == list(range(budget, budget + len(closing)))
        assert all(generation.logprobs[i] == 0.0 for i, f in enumerate(forced) if f)
        assert chat.parse(generation.ids, "long").thought == chat.decode(free.ids[:budget]).strip()
        assert chat.parse(generation.ids, "long").answer is not None
        assert generation.finish in (Finish.BUDGET, Finish.LENGTH)
        assert (generation.finish is Finish.LENGTH) == (len(generation.ids) == request.max_new_tokens)


def test_other_rows_of_the_batch_are_as_without_it(generated: list[tuple[Request, Generation, Generation]]) -> None:
    others = [(g, free) for r, g, free in generated if r.max_think_tokens in (None, 100)]
    assert len(others) == 14
    for g, free in others:
        assert (g.ids, g.sampled, g.finish) == (free.ids, free.sampled, free.finish)
        assert g.logprobs == pytest.approx(free.logprobs, abs=1e-5)


def test_sampled_tokens_have_the_trainers_logprobs_behind_forced_ones(
    tiny_policy: Policy, generated: list[tuple[Request, Generation, Generation]]
) -> None:
    rows = [Row(tiny_policy.format.inputs(r.prompt, r.mode), g.ids, r.temperature) for r, g, _ in generated]
    with torch.no_grad():
        found = response_logprobs(tiny_policy, rows).logprobs_BL
    for row, (_, generation, _) in zip(found, generated, strict=True):
        sampled = torch.tensor(generation.sampled)
        expected = torch.tensor(generation.logprobs)[sampled]
        torch.testing.assert_close(row[: len(sampled)][sampled], expected, atol=1e-5, rtol=0)


def test_at_budget_0_the_model_reads_the_prompt_of_the_mode_without_thought(tiny_policy: Policy) -> None:
    prompt = requests([0])[0].prompt
    chat = tiny_policy.format
    turn = chat.decode(chat.prompt_ids(prompt, "long") + chat.encode(chat.closing_text("long")))
    assert turn == chat.decode(chat.prompt_ids(prompt, "short"))


def follow(policy: Policy, budget: int, text_pieces: list[str]) -> list[str]:
    """What a response becomes whose sampled tokens are these; forced ones come between."""
    (request,) = [r for r in requests([budget]) if r.mode == "long"][:1]
    watched = Budgets(policy.format).of(request)
    assert watched is not None
    said: list[str] = []
    ids = iter([token for piece in text_pieces for token in policy.format.encode(piece)])
    while True:
        forced = watched.forced()
        token = forced if forced is not None else next(ids, None)
        if token is None:
            return said
        watched.add(token)
        said.append(policy.format.decode([token]) + ("*" if forced is not None else ""))


def test_a_thought_that_ends_in_time_is_left_alone(tiny_policy: Policy) -> None:
    expected = ["1", "2", "\n", "</think>", "\n\n", *"3456789"]
    assert follow(tiny_policy, 4, ["12\n</think>\n\n3456789"]) == expected


def test_a_closing_that_the_thought_has_begun_is_finished(tiny_policy: Policy) -> None:
    assert follow(tiny_policy, 3, ["12\n", "7"]) == ["1", "2", "\n", "</think>*", "\n\n*", "7"]


def test_a_tag_in_pieces_is_seen(tiny_policy: Policy) -> None:
    spelled = list("</think>")
    assert [c for c in follow(tiny_policy, 12, ["1", *spelled, "999999999999"]) if c.endswith("*")] == []


def test_a_mode_without_thought_has_no_budget(tiny_policy: Policy) -> None:
    short = replace(requests([0])[0], max_think_tokens=2)
    with pytest.raises(ConfigError, match="mode short has no thought"):
        TorchEngine(tiny_policy).generate([short])


def test_nothing_is_learned_from_forced_tokens(make_rollout: Callable[..., Rollout]) -> None:
    rollout = make_rollout(ids=(5, 6, 7, 8), sampled=(True, False, False, True), finish=Finish.BUDGET)
    sample = Sample(rollout=rollout, score=Score(value=1.0), advantages=(1.0,) * 4, trained=True)
    assert sample.loss_mask == (True, False, False, True)
    assert rollout.num_sampled_tokens == 2
    assert rollout.well_formed and rollout.closed_by_budget


def test_temperature_0_takes_the_most_likely_token(tiny_policy: Policy) -> None:
    first, second = (replace(r, temperature=0.0) for r in requests([None])[:2])
    engine = TorchEngine(tiny_policy)
    greedy = engine.generate([first, second])
    assert greedy[0].ids == greedy[1].ids, "whatever the seed"
    assert engine.generate([replace(first, temperature=1e-3)])[0].ids == greedy[0].ids


# --- config and command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("modes.kinds.short.max_think_tokens=2", "modes.kinds.short.max_think_tokens: the mode has no thought"),
        ("modes.kinds.long.max_think_tokens=60", "leaves no answer within max_new_tokens"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(small_config: Callable[..., Config], override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        prepare(small_config(override))


@pytest.mark.parametrize("text", ["", "16,", "a", "-1", "1.5", "16;32"])
def test_budgets_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="write whole numbers of tokens from 0 up"):
        read_budgets(text)
    assert read_budgets("64, 0,16,16") == [0, 16, 64]


def test_a_budget_beyond_the_context_names_the_largest_that_fits(tiny_policy: Policy) -> None:
    source = DigitStrips(name="d", split="eval", seed=0, task="sum")
    prompts, chat = [source[0]], tiny_policy.format
    limit = tiny_policy.context_length
    expected = r"more than the model's context of 1024; the largest budget that fits is \d+"
    with pytest.raises(ConfigError, match=expected) as error:
        check_budgets([0, 2000], CONFIG.modes, chat, ["long"], prompts, limit)
    fits = int(str(error.value).rpartition(" ")[2])
    check_budgets([fits], CONFIG.modes, chat, ["long"], prompts, limit)
    with pytest.raises(ConfigError):
        check_budgets([fits + 1], CONFIG.modes, chat, ["long"], prompts, limit)
    with pytest.raises(ConfigError, match="no mode of the run has a thought"):
        check_budgets([1], CONFIG.modes, chat, [], prompts, limit)


def test_the_curve_has_a_point_a_budget_and_one_without(tiny_policy: Policy) -> None:
    seen = []

    def evaluate(modes: object) -> dict[str, dict[str, float]]:
        seen.append({name: (k.max_think_tokens, k.max_new_tokens) for name, k in modes.kinds.items()})  # type: ignore[attr-defined]
        return {"long": {"accuracy": 0.5}}

    curve = budget_curve([0, 8], CONFIG.modes, tiny_policy.format, ["long"], evaluate)
    assert [point["max_think_tokens"] for point in curve["long"]] == [0, 8, None]
    # The answer has all of the mode's tokens behind the budget and the three that close the thought.
    assert seen == [{"long": (0, 19)}, {"long": (8, 27)}, {"long": (None, 16)}]
    assert limited_modes(CONFIG.modes, tiny_policy.format, ["long"], 8).shares == {"long": 1.0}
