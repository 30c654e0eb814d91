"""Packed rows teach exactly what padded ones do: same log-probabilities, same gradients, whatever the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL
from other_models import save
from test_backbones import picture
from torch import Tensor

from hybrid_rl.backbones.packing import Packing
from hybrid_rl.config import load_config
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Message, Prompt
from hybrid_rl.updates.forward import batches_of, response_logprobs
from hybrid_rl.updates.rows import Row
from hybrid_rl.updates.vision_once import vision_once

LENGTHS = [(5, 1, 9), (3, 3, 3, 3), (1,), (7, 2)]
"""Of the responses to each prompt: ragged, equal, alone, and one of a single token."""
SHOWN = [(0,), (1, 2), (), (0,)]
"""Pictures of each prompt: two show the same one, one shows two, one none."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def loaded(folders: Path, name: str, *overrides: str) -> Policy:
    model = [] if name == "tiny" else [f"model.path={save(name, folders / name)}"]
    config = load_config(DEFAULT_CONFIG, [*SMALL, *model, *overrides])
    return load_policy(config.model, config.modes, seed=0, search=config.search, trainable=True)


def rows_of(policy: Policy, lengths: Sequence[Sequence[int]] = LENGTHS, temperature: float = 0.8) -> list[Row]:
    """Responses of random tokens; prompts of different lengths, in two modes."""
    generator = torch.Generator().manual_seed(0)
    sees = hasattr(policy.processor, "image_processor")
    rows = []
    for u, responses in enumerate(lengths):
        prompt = Prompt(
            id=str(u),
            source="s",
            task="t",
            messages=(Message(role="user", text="What is it?"[: 4 + 2 * u]),),
            gold="",
            images=tuple(map(picture, SHOWN[u])) if sees else (),
        )
        inputs = policy.format.inputs(prompt, ("short", "long")[u % 2])
        ids = [torch.randint(30, 90, (length,), generator=generator).tolist() for length in responses]
        rows += [Row(inputs, tuple(response), temperature) for response in ids]
    return rows


def padded(policy: Policy) -> Policy:
    return replace(policy, packing=Packing(None))


def learned(policy: Policy, rows: Sequence[Row], max_tokens: int = 10_000) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities of all rows end to end, and the gradient of a weighted sum, over micro-batches."""
    policy.model.zero_grad(set_to_none=True)
    found: dict[int, Tensor] = {}
    batches = batches_of(policy, rows, max_tokens)
    with vision_once() as vision:
        for batch in batches:
            output = response_logprobs(policy, [rows[i] for i in batch], vision)
            weights_B1 = torch.tensor([1.0 + i for i in batch])[:, None]
            (output.logprobs_BL * weights_B1).sum().backward()
            found |= {i: output.logprobs_BL[b][output.mask_BL[b]].detach() for b, i in enumerate(batch)}
    gradient = {name: p.grad.clone() for name, p in policy.trained_parameters().items() if p.grad is not None}
    return torch.cat([found[i] for i in range(len(rows))]), gradient


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    a, b = (torch.cat([g[name].flatten().double() for name in sorted(theirs)]) for g in (ours, theirs))
    assert float((a - b).norm() / b.norm()) < 1e-5
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.999999


FREEZE_TOWER = "train.optimizer.learning_rate_scale={vision_tower: 0, resampler: 0}"
CASES = {
    "text": ("qwen3",),
    "text, a head of its own": ("llama",),
    "recomputed": ("qwen3", "model.gradient_checkpointing=true"),
    "adapter": ("qwen3", "model.lora={rank: 2}"),
    "adapter on the head": (
        "llama",
        "model.lora={rank: 2, parts: [all]}",
        "model.parts={all: [model., lm_head.]}",
    ),
    "pictures": ("tiny",),
    "pictures, recomputed": ("tiny", "model.gradient_checkpointing=true"),
    "positions in three axes": ("qwen2_5_vl",),
    "features for several layers": ("qwen3_vl",),
}


@pytest.mark.parametrize("case", CASES)
def test_packed_and_shared_is_padded_and_unshared(case: str, folders: Path) -> None:
    policy = loaded(folders, *CASES[case])
    for parameter in policy.trained_parameters().values():  # a fresh adapter's B is zero, and so would be A's gradient
        if policy.lora is not None:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    policy.model.train()
    rows = rows_of(policy)
    assert policy.packing.backbone is not None
    logprobs, gradient = learned(policy, rows, max_tokens=60)
    expected, wanted = learned(padded(policy), rows)
    assert policy.packing.notices == [] and all(policy.packing.trusted.values())
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=1e-5)
    assert gradient.keys() == wanted.keys()
    assert_same(gradient, wanted)
