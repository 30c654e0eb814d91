"""Layers whose gradient is a formula compute what transformers' own do, forwards and backwards, and keep less."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from hybrid_rl.backbones.lean_layers import lean_layers

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "tie_word_embeddings": True,
}  # fmt: skip


def build(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # which begin as ones
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return model


@pytest.fixture(params=[Qwen3Config, LlamaConfig], ids=["qwen3", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param(**SIZES))


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    model.zero_grad()
    ids = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids).logits.square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: PreTrainedModel) -> int:
    """Of different tensors that a forward pass keeps for its backward pass, without the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        output = model(input_ids=torch.zeros(1, 64, dtype=torch.long))  # alive, so that no address is used twice
    del output
    return sum(kept.values())


def test_the_gradients_are_those_of_the_plain_layers(model: PreTrainedModel) -> None:
    expected = gradients(model)
    changed = lean_layers(model)
    norms = sum("norm" in name for name, _ in model.named_parameters())
    assert changed == norms + 2  # and an MLP a layer
    for name, found in gradients(model).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deep copy", "pickle"]
)
def test_a_copy_of_a_model_learns_with_its_own_weights(
    model: PreTrainedModel, duplicate: Callable[[PreTrainedModel], PreTrainedModel]
) -> None:
    lean_layers(model)
    expected = gradients(model)
    twin = duplicate(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.zero_grad()
    found = gradients(twin)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_less_is_kept_for_the_backward_pass(model: PreTrainedModel) -> None:
    before = kept_bytes(model)
    lean_layers(model)
    assert kept_bytes(model) < 0.85 * before


def test_a_norm_that_adds_one_to_its_weight_is_left_alone() -> None:
    model = build(Gemma2Config(**SIZES))
    assert lean_layers(model) == 0


def test_an_mlp_with_another_activation_is_left_alone() -> None:
    model = build(LlamaConfig(**SIZES, hidden_act="gelu"))
    assert lean_layers(model) == 5  # the norms


@pytest.mark.parametrize(
    "run",
    [
        lambda model, x: model.to(torch.bfloat16)(input_ids=x).logits,
        lambda model, x: torch.no_grad()(model)(input_ids=x).logits,
    ],
    ids=["half precision", "no gradient"],
)
def test_elsewhere_layers_go_on_as_they_were(
    model: PreTrainedModel, run: Callable[[PreTrainedModel, Tensor], Tensor]
) -> None:
    ids = torch.arange(12)[None]
    with torch.no_grad():
        copy = build(model.config)
        copy.load_state_dict(model.state_dict())
    expected = run(copy, ids)
    lean_layers(model)
    assert torch.equal(run(model, ids), expected)
