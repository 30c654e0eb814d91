"""Which rows share a pack: groups stay together, and no pack is over the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.errors import DataError
from hybrid_rl.templates import PromptInputs
from hybrid_rl.updates.forward import check_budget
from hybrid_rl.updates.packed import PackSizes, packed_batches, packed_tokens
from hybrid_rl.updates.padded import micro_batches, padded_tokens
from hybrid_rl.updates.rows import Row

SIZES = PackSizes(joined=1024, part=512)


def test_packs_keep_groups_together_join_small_ones_and_split_large_ones() -> None:
    """Prompts of 10 tokens. Budget 40: a group of 10 + 2 x 20 is split, and those of 10 + 2 and 10 + 3 are joined."""
    prompts = [PromptInputs(tuple(range(10)), {}) for _ in range(3)]
    lengths = [(0, 20), (0, 20), (1, 2), (2, 3)]
    rows = [Row(prompts[u], (1,) * length) for u, length in lengths]
    batches = packed_batches(rows, 40, SIZES)
    assert batches == [[0], [1], [3, 2]]
    assert [packed_tokens(rows, [batch]) for batch in batches] == [30, 30, 25]
    assert packed_batches(rows, 50, SIZES) == [[0, 1], [3, 2]]
    # Padded, a row has its own prompt and the width of the longest: 2 x 30 and 2 x 13 tokens.
    assert padded_tokens(rows, micro_batches(rows, 60)) == 86


def test_a_large_group_is_spread_over_neighbouring_packs_of_like_size() -> None:
    """About 512 tokens of responses at a time: 4 x 256 and 2 x 100, 1,224, make two packs."""
    prompts = [PromptInputs(tuple(range(10)), {}) for _ in range(2)]
    lengths = [(0, 256), (0, 100), (0, 256), (1, 20), (0, 256), (0, 100), (0, 256), (1, 20)]
    rows = [Row(prompts[u], (1,) * length) for u, length in lengths]
    batches = packed_batches(rows, 10_000, SIZES)
    assert batches == [[0, 4, 1], [2, 6, 5], [3, 7]]
    assert packed_tokens(rows, batches) == 10 + 1224 + 10 + 40  # the prompt of the first two counts once
    # No more than two parts of 612: the prompt's own pass would cost more than it saves.
    assert packed_batches(rows, 10_000, PackSizes(joined=1024, part=612)) == [[0, 2, 4, 6, 1, 5], [3, 7]]
    assert packed_batches(rows, 10_000) == [[0, 2, 4, 6, 1, 5, 3, 7]]


def test_responses_without_tokens_make_no_pack_of_their_own() -> None:
    prompt = PromptInputs((1, 2), {})
    rows = [Row(prompt, (1,) * length) for length in (1500, 0, 0, 0)]
    batches = packed_batches(rows, 10_000, SIZES)
    assert all(batches) and sorted(i for batch in batches for i in batch) == [0, 1, 2, 3]


@given(
    lengths=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=1, max_size=5),
    max_tokens=st.integers(40, 200),
)
def test_no_pack_is_over_the_budget_and_no_row_is_lost(lengths: list[list[int]], max_tokens: int) -> None:
    prompts = [PromptInputs(tuple(range(3 + u)), {}) for u in range(len(lengths))]
    rows = [Row(prompts[u], (1,) * n) for u, responses in enumerate(lengths) for n in responses]
    batches = packed_batches(rows, max_tokens, SIZES)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    assert all(packed_tokens(rows, [batch]) <= max_tokens for batch in batches)
    assert packed_tokens(rows, batches) <= padded_tokens(rows, batches)


def test_a_response_over_the_budget_is_named() -> None:
    rows = [Row(PromptInputs((1, 2, 3), {}), (4, 5), name="response 1 to prompt p")]
    check_budget(rows, 5)
    with pytest.raises(DataError, match=r"response 1 to prompt p has 5 tokens .*max_tokens_per_micro_batch \(4\)"):
        check_budget(rows, 4)
