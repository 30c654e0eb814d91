"""Rows that share their prompt's memory attend as if each had it alone, however they come and go."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hybrid_rl.backbones.head_shape import HeadShape, alike
from hybrid_rl.backbones.prefix_memory import shelves_of
from hybrid_rl.backbones.shared_decoding import SharedDecoding

H, K, D, LAYERS = 4, 2, 8, 2
SHAPE = HeadShape(LAYERS, K, D, torch.float32, torch.device("cpu"))


class Row:
    """What a row has in front of it: the keys and values of its prompt and its own, by layer [K, T, D]."""

    def __init__(self, prompt: int, length: int, seen: list[tuple[Tensor, Tensor]]) -> None:
        self.prompt, self.position, self.seen = prompt, length, seen

    def attend(self, layer: int, q_HD: Tensor, k_KD: Tensor, v_KD: Tensor) -> Tensor:
        keys, values = self.seen[layer]
        keys, values = torch.cat([keys, k_KD[:, None]], 1), torch.cat([values, v_KD[:, None]], 1)
        self.seen[layer] = keys, values
        return scaled_dot_product_attention(q_HD[None, :, None], keys[None], values[None], enable_gqa=True)[0, :, 0]


class Simulation:
    """`SharedDecoding` beside rows that remember everything themselves."""

    def __init__(self, lengths: list[int], rows: int, columns: int) -> None:
        self.lengths = lengths
        self.shared = SharedDecoding(SHAPE, lengths, rows, columns)
        self.rows: list[Row] = []
        self.prompts: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def begin(self, prompts: list[int]) -> None:
        new = [p for p in dict.fromkeys(prompts) if p not in self.prompts]
        if new:
            plan, N = self.shared.prefill(new), sum(self.lengths[p] for p in new)
            for layer in range(LAYERS):
                q, k, v = torch.randn(1, H, N, D), torch.randn(1, K, N, D), torch.randn(1, K, N, D)
                found = plan.attend(layer, q, k, v, D**-0.5)
                start = 0
                for p in new:
                    part = slice(start, start := start + self.lengths[p])
                    expected = scaled_dot_product_attention(
                        q[:, :, part], k[:, :, part], v[:, :, part], is_causal=True, enable_gqa=True
                    )
                    torch.testing.assert_close(found[:, part], expected.transpose(1, 2), atol=1e-5, rtol=1e-4)
                    self.prompts.setdefault(p, []).append((k[0, :, part], v[0, :, part]))
        self.rows += [Row(p, self.lengths[p], list(self.prompts[p])) for p in prompts]
        self.shared.join(prompts, [self.lengths[p] for p in prompts])

    def step(self) -> None:
        assert self.shared.advance().tolist() == [row.position for row in self.rows]
        B = len(self.rows)
        for layer in range(LAYERS):
            q, k, v = torch.randn(B, H, 1, D), torch.randn(B, K, 1, D), torch.randn(B, K, 1, D)
            found = self.shared.attend(layer, q, k, v, D**-0.5)
            expected = [r.attend(layer, q[b, :, 0], k[b, :, 0], v[b, :, 0]) for b, r in enumerate(self.rows)]
            torch.testing.assert_close(found[:, 0], torch.stack(expected), atol=1e-5, rtol=1e-4)
        for row in self.rows:
            row.position += 1

    def leave(self, staying: list[int]) -> None:
        before = {row.prompt for row in self.rows}
        self.rows = [self.rows[b] for b in staying]
        done = sorted(before - {row.prompt for row in self.rows})
        self.shared.keep(staying, done)
        for prompt in done:
            del self.prompts[prompt]


@settings(max_examples=15)
@given(st.lists(st.sampled_from([1, 3, 40, 41, 90]), min_size=2, max_size=5), st.integers(0, 2**20))
def test_rows_come_and_go_in_any_order(lengths: list[int], seed: int) -> None:
    """Prompts of all lengths, several on a shelf; groups end from the middle, and come again in freed places."""
    torch.manual_seed(seed)
    choice = random.Random(seed)
    simulation = Simulation(lengths, rows=9, columns=120)
    simulation.begin([p for p in range(len(lengths)) for _ in range(choice.randint(1, 9 // len(lengths)))])
    for _ in range(6):
        for _ in range(choice.choice([1, 2, 14])):
            simulation.step()
        staying = [b for b in range(len(simulation.rows)) if choice.random() < 0.6]
        simulation.leave(staying)
        room = 9 - len(staying)
        if room and choice.random() < 0.8:
            simulation.begin(sorted(choice.choices(range(len(lengths)), k=choice.randint(1, room))))
        if not simulation.rows:
            return


def test_what_a_mask_hides_may_be_anything() -> None:
    """Memory that was never written may hold NaN, which no weight of 0 takes away."""
    simulation = Simulation([40, 30], rows=4, columns=70)
    own, prefix = simulation.shared._own, simulation.shared._prefix
    for buffers in (own._keys, own._values, *((s.keys, s.values) for s in prefix._shelves)):
        for buffer in buffers if isinstance(buffers, list) else (*buffers[0], *buffers[1]):
            buffer.fill_(torch.nan)
    simulation.begin([0, 0])
    for _ in range(3):
        simulation.step()
    simulation.begin([1])
    for _ in range(66):
        simulation.step()


@pytest.mark.parametrize(("length", "longest", "together"), [(75, 100, True), (67, 100, False), (1, 33, True)])
def test_what_is_read_together(length: int, longest: int, together: bool) -> None:
    assert alike(length, longest) is together


def test_shelves_hold_prompts_of_like_lengths() -> None:
    assert shelves_of([10, 500, 20, 400, 1000]) == [[4], [1, 3], [2, 0]]
