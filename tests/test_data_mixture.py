"""Quotas and mixtures: exact proportions, whole epochs, and the same draws after a resume."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid_rl.algorithm.quota import quotas
from hybrid_rl.data.mixture import Mixture
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.records import Message, Prompt

whole_shares = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any)
any_shares = st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=5).filter(lambda s: max(s) > 0.01)


class Numbered:
    """A source whose prompts are told apart by number."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Prompt:
        if not 0 <= index < self.size:
            raise IndexError(index)
        message = Message(role="user", text="?")
        return Prompt(id=str(index), source=self.name, task=self.name, messages=(message,), gold=str(index))


def mixture(sizes: dict[str, int], weights: dict[str, float], seed: int = 0) -> Mixture:
    return Mixture({name: Numbered(name, size) for name, size in sizes.items()}, weights, seed)


def keys(prompts: list[Prompt]) -> list[tuple[str, str]]:
    return [(prompt.source, prompt.id) for prompt in prompts]


@pytest.mark.parametrize(
    ("shares", "before", "after", "counts"),
    [
        ((0.5, 0.5), 0, 128, [64, 64]),
        ((0.5, 0.5), 128 * 999, 128 * 1000, [64, 64]),
        ((0.1, 0.2, 0.7), 30, 40, [1, 2, 7]),
        ((1 / 3, 2 / 3), 0, 99, [33, 66]),
        ((3, 1), 0, 8, [6, 2]),
        ((1, 0), 0, 5, [5, 0]),
        ((0.1, 0.1, 0.1, 0.1, 0.1, 0.5), 0, 4, [1, 1, 0, 0, 0, 2]),
        ((0.3, 0.7), 7, 7, [0, 0]),
    ],
)
def test_quotas_of_familiar_shares(shares: tuple[float, ...], before: int, after: int, counts: list[int]) -> None:
    assert quotas(shares, before, after) == counts


@settings(max_examples=150, deadline=None)
@given(shares=st.one_of(whole_shares, any_shares), before=st.integers(0, 4000), size=st.integers(0, 300))
def test_quotas_are_never_negative_and_sum_to_the_items(shares: list[float], before: int, size: int) -> None:
    counts = quotas(shares, before, before + size)
    assert sum(counts) == size
    assert min(counts) >= 0


@settings(max_examples=100, deadline=None)
@given(shares=whole_shares, step=st.integers(0, 60), size=st.integers(1, 60), scale=st.sampled_from([1, 0.1, 1 / 3, 7]))
def test_totals_stay_within_one_item_and_are_exact_where_whole(
    shares: list[int], step: int, size: int, scale: float
) -> None:
    items = step * size
    for share, total in zip(shares, quotas([s * scale for s in shares], 0, items), strict=True):
        product, whole = items * share, sum(shares)
        assert abs(total * whole - product) < whole
        if product % whole == 0:
            assert total * whole == product


@settings(max_examples=60, deadline=None)
@given(shares=any_shares, cuts=st.lists(st.integers(0, 5000), min_size=3, max_size=3))
def test_quotas_of_adjoining_ranges_add_up_in_any_order_of_asking(shares: list[float], cuts: list[int]) -> None:
    a, b, c = sorted(cuts)
    late, early = quotas(shares, b, c), quotas(shares, a, b)
    assert [x + y for x, y in zip(early, late, strict=True)] == quotas(shares, a, c)


@pytest.mark.parametrize("shares", [(), (0.0, 0.0), (1.0, -0.1), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_unusable_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        quotas(shares, 0, 1)


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ConfigError, match="run forwards"):
        quotas((1.0,), 5, 4)


def test_every_step_holds_exact_counts_source_by_source() -> None:
    mixed = mixture({"a": 50, "b": 7}, {"a": 3, "b": 1})
    for step in range(1, 6):
        sources = [prompt.source for prompt in mixed.draw(step, 8)]
        assert sources == ["a"] * 6 + ["b"] * 2


def test_counts_that_cannot_be_whole_even_out_over_the_steps() -> None:
    mixed = mixture({"a": 5, "b": 5, "c": 5}, {"a": 1, "b": 1, "c": 1})
    total: Counter[str] = Counter()
    for step in range(1, 4):
        drawn = mixed.draw(step, 10)
        assert len(drawn) == 10
        total.update(prompt.source for prompt in drawn)
    assert total == {"a": 10, "b": 10, "c": 10}


def test_every_epoch_holds_each_prompt_once_in_a_new_order() -> None:
    mixed = mixture({"a": 12}, {"a": 1})
    drawn = [prompt.id for step in range(1, 10) for prompt in mixed.draw(step, 8)]
    epochs = [drawn[start : start + 12] for start in range(0, 72, 12)]
    assert all(sorted(map(int, epoch)) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_one_step_can_span_several_epochs() -> None:
    drawn = mixture({"a": 3}, {"a": 1}).draw(1, 9)
    assert Counter(prompt.id for prompt in drawn) == {"0": 3, "1": 3, "2": 3}


@settings(max_examples=25, deadline=None)
@given(step=st.integers(2, 40), seed=st.integers(0, 3))
def test_a_resumed_run_draws_what_the_uninterrupted_one_would_have(step: int, seed: int) -> None:
    sizes, weights = {"a": 11, "b": 5}, {"a": 0.7, "b": 0.3}
    through, resumed = mixture(sizes, weights, seed), mixture(sizes, weights, seed)
    expected = [keys(through.draw(s, 7)) for s in range(1, step + 1)]
    assert keys(resumed.draw(step, 7)) == expected[-1]
    assert keys(resumed.draw(step - 1, 7)) == expected[-2]


def test_seed_and_source_name_give_other_orders() -> None:
    def ids(name: str, seed: int) -> list[str]:
        return [prompt.id for prompt in mixture({name: 30}, {name: 1}, seed).draw(1, 30)]

    assert len({tuple(order) for order in (ids("a", 0), ids("a", 1), ids("b", 0))}) == 3


def test_evaluation_takes_the_first_prompts_by_weight_and_no_more_than_there_are() -> None:
    mixed = mixture({"a": 100, "b": 2}, {"a": 1, "b": 1})
    assert keys(mixed.first(8)) == [("a", "0"), ("a", "1"), ("a", "2"), ("a", "3"), ("b", "0"), ("b", "1")]
    assert mixed.first(0) == []


@pytest.mark.parametrize(
    ("sizes", "weights", "error", "message"),
    [
        ({}, {}, ConfigError, "no data source"),
        ({"a": 1}, {}, ConfigError, "'a' has no weight"),
        ({"a": 1}, {"a": 1, "b": 1}, ConfigError, "weight for 'b' but no such data source"),
        ({"a": 1}, {"a": 0}, ConfigError, "weight of data source 'a' is 0"),
        ({"a": 1, "b": 1}, {"a": 1, "b": -2}, ConfigError, "weight of data source 'b' is -2"),
        ({"a": 1, "b": 0}, {"a": 1, "b": 1}, DataError, "'b' has no prompts"),
    ],
)
def test_unusable_mixtures_are_refused(
    sizes: dict[str, int], weights: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mixture(sizes, weights)


def test_steps_count_from_one() -> None:
    with pytest.raises(ConfigError, match="count from 1"):
        mixture({"a": 1}, {"a": 1}).draw(0, 4)
