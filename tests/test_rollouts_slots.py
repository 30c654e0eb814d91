"""Slots are taken as they get free, and neither that nor the kernels change what a response says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_rollouts import requests
from torch import nn

from hybrid_rl.backbones.head_shape import HeadShape
from hybrid_rl.backbones.shared_decoding import SharedDecoding
from hybrid_rl.errors import ConfigError
from hybrid_rl.policy import Policy
from hybrid_rl.records import Generation
from rollouts import room
from rollouts import sharing as sharing_module
from rollouts.prepacked import PackedLinears
from rollouts.room import Demand, choose_rows
from rollouts.slots import Slots
from rollouts.torch_engine import TorchEngine


def same(found: list[Generation], expected: list[Generation]) -> None:
    assert [g.ids for g in found] == [g.ids for g in expected]
    for a, b in zip(found, expected, strict=True):
        assert (a.finish, a.sampled) == (b.finish, b.sampled)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_few_slots_with_refill_say_the_same_as_many(tiny_policy: Policy) -> None:
    """Prompts of different lengths, budgets of 6 and 15 tokens; rows of all ages side by side."""
    wanted = requests()
    many = TorchEngine(tiny_policy)
    expected = many.generate(wanted)
    assert many.figures.slots == 12 and many.figures.prefill_tokens > 0
    for slots in (1, 3, 5):
        few = TorchEngine(tiny_policy, max_rows=slots)
        same(few.generate(wanted), expected)
        figures = few.figures
        assert (figures.slots, figures.row_steps) == (slots, many.figures.row_steps)
        assert figures.prefill_tokens == many.figures.prefill_tokens, "each prompt once, though its rows come in parts"
        assert figures.mean_rows <= slots


def test_a_stream_hands_out_what_generate_returns_and_the_shortest_first(tiny_policy: Policy) -> None:
    wanted = requests()
    engine = TorchEngine(tiny_policy)
    expected = engine.generate(wanted)
    streamed = list(engine.stream(wanted))
    same([g for _, g in sorted(streamed, key=lambda pair: pair[0])], expected)
    lengths = [len(g.ids) for _, g in streamed]
    assert lengths == sorted(lengths)
    stream = engine.stream(wanted)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()  # drops what is in flight
    same(engine.generate(wanted), expected)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=12), st.integers(1, 5))
def test_slots_are_full_while_anything_waits(asked: list[tuple[int, int]], most: int) -> None:
    numbers = {group: u for u, group in enumerate(dict.fromkeys(group for group, _ in asked))}
    groups, budgets = [numbers[group] for group, _ in asked], [budget for _, budget in asked]
    slots = Slots(groups, budgets, most)
    seen: list[int] = []
    finished: list[int] = []
    while True:
        seen += slots.fill()
        assert len(slots.rows) == min(most, len(asked) - len(seen) + len(slots.rows))
        if not slots.rows:
            break
        ended = slots.rows[len(seen) % len(slots.rows)]
        finished += slots.keep([b for b, row in enumerate(slots.rows) if row != ended])
    assert sorted(seen) == list(range(len(asked))) and sorted(finished) == sorted(set(groups))
    longest = [max(b for g, b in zip(groups, budgets, strict=True) if g == groups[row]) for row in seen]
    assert longest == sorted(longest, reverse=True)
    assert len(set(groups)) == 1 + sum(groups[a] != groups[b] for a, b in pairwise(seen))


def test_packed_weights_multiply_alike_and_leave_no_trace(tiny_policy: Policy) -> None:
    wanted = requests()
    same(
        TorchEngine(tiny_policy, prepack_linears=True).generate(wanted),
        TorchEngine(tiny_policy, prepack_linears=False).generate(wanted),
    )
    assert not any("forward" in module.__dict__ for module in tiny_policy.model.modules())


class Decoder(nn.Module):
    """The least that is asked of a model; its second layer has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 4)), nn.Linear(4, 5, bias=False)

    def get_decoder(self) -> nn.Module:
        return self.body

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.body(x))
        return found


def test_packed_weights_leave_the_dtype_to_autocast() -> None:
    """As the trainer, who multiplies float32 weights in bfloat16 there: sampler and trainer must agree."""
    model, x = Decoder(), torch.randn(3, 6)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
        with PackedLinears(model).applied():
            found = model(x)
    assert found.dtype is torch.bfloat16 and found.equal(expected)


def test_changed_weights_are_packed_anew() -> None:
    model, x = Decoder(), torch.randn(3, 6)
    packed = PackedLinears(model)
    assert packed.num_bytes == 4 * (48 + 32 + 20)
    for _ in range(2):
        with torch.inference_mode(), packed.applied():
            found = model(x)
        torch.testing.assert_close(found, model(x).detach())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))


def test_a_shared_memory_that_errs_is_not_used(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = requests()
    expected = TorchEngine(tiny_policy).generate(wanted)
    attend = sharing_module.SharedRowDecoder.decode

    def wrong(self: sharing_module.SharedRowDecoder, tokens_B: torch.Tensor) -> torch.Tensor:
        return attend(self, tokens_B).flip(-1)

    monkeypatch.setattr(sharing_module.SharedRowDecoder, "decode", wrong)
    engine = TorchEngine(tiny_policy)
    same(engine.generate(wanted), expected)
    assert "log-probabilities differ by" in engine.figures.notices[0]
    same(engine.generate(wanted), expected)
    assert not engine.figures.notices  # it is said once


def test_greedy_and_sampled_rows_of_several_temperatures_side_by_side(tiny_policy: Policy) -> None:
    mixed = [replace(r, temperature=(0.0, 0.5, 2.0)[i % 3]) for i, r in enumerate(requests())]
    together = TorchEngine(tiny_policy).generate(mixed)
    same([TorchEngine(tiny_policy).generate([r])[0] for r in mixed], together)


# --- memory ----------------------------------------------------------------------------------------------------------

DEMAND = Demand(HeadShape(2, 4, 16, torch.float32, torch.device("cpu")), [100, 50, 10], columns=60, vocabulary=1000)


def test_memory_by_hand() -> None:
    token = 2 * 2 * 4 * 16 * 4  # keys and values, layers, heads, numbers, bytes
    assert DEMAND.num_bytes(1) == (60 + 100 + 50 + 10) * token + 16000
    assert DEMAND.num_bytes(2) == (120 + 160) * token + 32000


def test_the_memory_of_prompts_is_counted_as_it_is_made() -> None:
    """Prompts of many lengths: every length has room of its own for each row."""
    lengths = [400, 390, 380, 100, 90, 80, 8, 7, 6]
    demand = replace(DEMAND, prompt_lengths=lengths, vocabulary=0)
    for rows in (1, 2, 8):
        made = SharedDecoding(demand.shape, lengths, rows, demand.columns)
        keys = [*made._own._keys, *(k for shelf in made._prefix._shelves for k in shelf.keys)]
        assert 2 * sum(k.nbytes for k in keys) == demand.num_bytes(rows)


def test_files_that_were_read_leave_a_container_its_memory(tmp_path: Path) -> None:
    for name, text in {"max": "1000", "current": "900", "stat": "anon 100\ninactive_file 700\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert room._left_of_limit(tmp_path) == 800
    (tmp_path / "memory.max").write_text("max\n")
    assert room._left_of_limit(tmp_path) is None


def test_what_a_gpu_has_given_back_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"memory_reserved": 70, "memory_allocated": 50, "mem_get_info": (100, 200)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert room.free_bytes(torch.device("cuda"), held=40) == 120
    monkeypatch.setattr(room, "_available", lambda _: 100)
    monkeypatch.setattr(room, "_left_of_limit", lambda _: 60)
    assert room.free_bytes(torch.device("cpu"), held=40) == 100


def test_rows_are_what_fits_and_more_is_refused() -> None:
    free = DEMAND.num_bytes(5)
    assert choose_rows(DEMAND, 5, 100, free) == 5
    assert choose_rows(DEMAND, 400, 5, free) == 5, "no more responses than were asked for"
    assert DEMAND.num_bytes(choose_rows(DEMAND, None, 100, free)) <= 0.8 * free
    assert choose_rows(DEMAND, None, 100, None) == 100
    with pytest.raises(ConfigError, match=r"rollout.args.max_rows is 400; 100 responses .* 5 fit; lower"):
        choose_rows(DEMAND, 400, 100, free)
    with pytest.raises(ConfigError, match=r"one response .* not even one fits"):
        choose_rows(DEMAND, None, 100, 1000)
