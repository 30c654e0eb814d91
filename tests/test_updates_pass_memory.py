"""Prompts that go before their packs: taught once whatever order packs come in, and nothing of them stays."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_updates_packed import assert_same, learned, loaded, padded, rows_of
from torch import Tensor

from hybrid_rl.policy import Policy
from hybrid_rl.updates.forward import response_logprobs
from hybrid_rl.updates.pass_memory import learning_pass
from hybrid_rl.updates.rows import Row
from hybrid_rl.updates.self_check import packs

LENGTHS = [(9, 3, 3), (4, 2, 5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def gradient_of(
    policy: Policy, rows: Sequence[Row], planned: Sequence[Sequence[int]], taken: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Of the sum of log-probabilities of the batches that were taken, of those that were planned."""
    policy.model.zero_grad(set_to_none=True)
    with learning_pass(rows, planned) as memory:
        for batch in taken:
            response_logprobs(policy, [rows[i] for i in batch], memory).logprobs_BL.sum().backward()
    return {name: p.grad.clone() for name, p in policy.trained_parameters().items() if p.grad is not None}


@pytest.mark.parametrize(
    "taken",
    [
        [[0], [3], [1, 2], [4, 5]],  # in turns
        [[0], [3], [4, 5]],  # one is left out
        [[0], [1, 2], [3], [0], [4, 5]],  # one comes again, when its prompt has gone
        [[0], [1, 2, 3], [4, 5]],  # one shows two prompts
    ],
)
def test_whatever_packs_come_a_prompt_is_taught_by_all_of_them(taken: list[list[int]], folder: Path) -> None:
    policy = loaded(folder, "qwen3")
    rows = rows_of(policy, LENGTHS)
    found = gradient_of(policy, rows, [[0], [1, 2], [3], [4, 5]], taken)
    wanted = gradient_of(padded(policy), rows, [], [[i] for batch in taken for i in batch])
    assert_same(found, wanted)


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_pass_that_fails_leaves_nothing_of_its_prompt(recomputed: bool, folder: Path) -> None:
    """A recomputed layer holds the plan of its attention until it goes backwards, which it never does here."""
    policy = loaded(folder, "qwen3", f"model.gradient_checkpointing={recomputed}")
    policy.model.train()
    rows = rows_of(policy, LENGTHS)
    learned(policy, rows)  # and compared with padded rows

    def fail() -> None:
        with pytest.raises(RuntimeError, match="stop"), learning_pass(rows, [[0], [1, 2], [3], [4, 5]]) as memory:
            response_logprobs(policy, [rows[0]], memory)
            raise RuntimeError("stop")

    fail()
    before = num_tensors()
    for _ in range(3):
        fail()
    assert num_tensors() == before


def num_tensors() -> int:
    gc.collect()
    return sum(isinstance(thing, Tensor) for thing in gc.get_objects())


def test_the_comparison_holds_one_batch_at_a_time(folder: Path) -> None:
    """At the least budget its packs are of one row, and each goes backwards before the next comes."""
    policy = loaded(folder, "qwen3")
    rows = rows_of(policy, [(40, 40)])
    held: list[int] = []
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Any:
        token = _Token(tensor)
        sizes[id(token)] = tensor.nbytes
        return token

    class _Token:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

        def __del__(self) -> None:
            sizes.pop(id(self), None)

    layer = policy.model.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda *_: held.append(sum(sizes.values())))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda token: token.tensor):
        assert packs(policy, rows, max(row.length for row in rows))
    # Padded twice and packed once or twice with nothing held but ids; then the two behind their prompt, which is.
    assert 100 * max(held[:-2]) < held[-1], held
