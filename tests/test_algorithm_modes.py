"""Modes are dealt in exact proportion, stratified with the sources, and independent of who asks."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import DEFAULT_CONFIG
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.algorithm.modes import StratifiedModes, make_requests, spread
from hybrid_rl.config import load_config
from hybrid_rl.data.sources import make_mixture


def test_half_of_128_prompts_are_exactly_64() -> None:
    modes = StratifiedModes({"short": 0.5, "long": 0.5})
    for step in (1, 2, 17):
        assert Counter(modes.assign(step, 128)) == {"short": 64, "long": 64}


@given(st.floats(0, 1), st.integers(1, 60), st.integers(1, 20))
def test_counts_follow_the_ratio_over_the_run(ratio: float, num_prompts: int, steps: int) -> None:
    modes = StratifiedModes({"short": 1 - ratio, "long": ratio})
    counts: Counter[str] = Counter()
    for step in range(1, steps + 1):
        assigned = modes.assign(step, num_prompts)
        assert len(assigned) == num_prompts
        counts.update(assigned)
        assert abs(counts["long"] - ratio * step * num_prompts) <= 1


@pytest.mark.parametrize(("ratio", "only"), [(0.0, "short"), (1.0, "long")])
def test_a_ratio_of_zero_or_one_leaves_one_mode(ratio: float, only: str) -> None:
    assert set(StratifiedModes({"short": 1 - ratio, "long": ratio}).assign(3, 10)) == {only}


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 20), min_size=1))
def test_spread_keeps_counts_and_stays_close_to_proportion(counts: dict[str, int]) -> None:
    result = spread(counts)
    assert Counter(result) == {name: n for name, n in counts.items() if n}
    total = len(result)
    for end in range(total + 1):
        seen = Counter(result[:end])
        for name, n in counts.items():
            assert abs(seen[name] - n * end / total if total else 0) <= len(counts)


def test_spread_by_hand() -> None:
    assert spread({"a": 1, "b": 3}) == ["b", "a", "b", "b"]
    assert spread({"a": 2, "b": 2}) == ["a", "b", "a", "b"]


def test_every_source_gets_its_share_of_each_mode() -> None:
    config = load_config(DEFAULT_CONFIG)
    mixture = make_mixture(config.data.sources, "train", 0, config.search)
    modes = StratifiedModes(config.modes.shares)
    for step in (1, 2, 3):
        prompts = mixture.draw(step, 16)
        cells = Counter(zip((p.source for p in prompts), modes.assign(step, 16), strict=True))
        assert cells == {(s, m): 4 for s in ("read", "sum") for m in ("short", "long")}


@pytest.mark.parametrize(("num_prompts", "first"), [(2, 1), (6, 3), (8, 7)])
def test_no_source_is_tied_to_a_mode(num_prompts: int, first: int) -> None:
    """The first places of a step always belong to one source; over the run it meets both modes alike."""
    modes = StratifiedModes({"short": 0.5, "long": 0.5})
    counts = Counter(mode for step in range(1, 241) for mode in modes.assign(step, num_prompts)[:first])
    assert counts["short"] == counts["long"]


def test_requests_share_a_group_exactly_where_they_share_prompt_and_mode() -> None:
    config = load_config(DEFAULT_CONFIG)
    prompts = make_mixture(config.data.sources, "train", 0, config.search).draw(1, 4)
    requests = make_requests(prompts, ["short", "long", "short", "long"], config.modes, step=1, num_responses=3, seed=0)
    assert [r.group for r in requests] == [g for g in dict.fromkeys(r.group for r in requests) for _ in range(3)]
    assert [r.mode for r in requests[::3]] == ["short", "long", "short", "long"]
    assert requests[0].max_new_tokens == config.modes.kinds["short"].max_new_tokens
    assert len({r.seed for r in requests}) == len(requests)


def test_seeds_depend_on_run_step_prompt_and_response_alone() -> None:
    config = load_config(DEFAULT_CONFIG)
    prompts = make_mixture(config.data.sources, "train", 0, config.search).draw(1, 2)
    modes = ["short", "long"]

    def seeds(step: int, seed: int) -> list[int]:
        made = make_requests(prompts, modes, config.modes, step=step, num_responses=2, seed=seed)
        return [r.seed for r in made]

    assert seeds(1, 0) == seeds(1, 0)
    assert not set(seeds(1, 0)) & set(seeds(2, 0))
    assert not set(seeds(1, 0)) & set(seeds(1, 1))
