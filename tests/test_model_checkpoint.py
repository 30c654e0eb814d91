"""Checkpoints: what is refused, and what comes back as it was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_checkpoints as tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from model import CheckpointError, MiniCPMVConfig, MiniCPMVForConditionalGeneration

Change = Callable[[dict[str, Tensor]], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "given", tiny.config_of(4.5), tiny.values(tiny.all_shapes(4.5)))


def load(folder: Path, **options: Any) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, **options)


def test_a_model_built_from_a_config_has_one_type() -> None:
    """The type in config.json is that of the weights; without weights all parts have torch's default."""
    config = MiniCPMVConfig.from_dict({**tiny.config_of(4.5), "dtype": "bfloat16"})
    built = MiniCPMVForConditionalGeneration(config)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    from_config: Any = AutoModelForImageTextToText.from_config(config)
    assert {parameter.dtype for parameter in from_config.parameters()} == {torch.bfloat16}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    out: Tensor = model(**tiny.media()).logits
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("resampler.query"),
            r"model\.safetensors lacks the tensor resampler\.query of shape \[4, 128\]\.",
        ),
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("vpm.encoder.layers.1.mlp.fc")],
            r"lacks the tensor vpm\.encoder\.layers\.1\.mlp\.fc1\.bias of shape \[48\] \(and 3 more\)",
        ),
        (
            lambda t: t.update({"vpm.head.weight": torch.zeros(2)}),
            r"model\.safetensors has a tensor vpm\.head\.weight that the model of its config\.json has no place for\.",
        ),
        (
            lambda t: t.update({"resampler.proj": torch.zeros(128, 64)}),
            r"model\.safetensors has resampler\.proj of shape \[128, 64\], but config\.json asks for \[128, 128\]\.",
        ),
        (lambda t: t.pop("llm.lm_head.weight"), r"lacks the tensor llm\.lm_head\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, change: Change, message: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for load_it in (load, MiniCPMVForConditionalGeneration.from_pretrained):
        with pytest.raises(CheckpointError, match=message):
            load_it(folder)


def test_a_shard_that_is_missing_or_cut_short_is_named(folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    shard = sorted((tmp_path / "shards").glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=f"{shard.name} cannot be read, it may be cut short"):
        load(tmp_path / "shards", dtype=torch.float32)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing, though the checkpoint's index names it"):
        load(tmp_path / "shards", dtype=torch.float32)


def test_pickled_weights_are_refused_unopened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle: nobody looks")
    for options in ({}, {"use_safetensors": False}):
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds pickled weights"):
            load(folder, **options)


def test_wrong_shapes_load_where_the_caller_says_so(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors") | {"resampler.proj": torch.zeros(128, 64)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model, info = load(folder, ignore_mismatched_sizes=True, output_loading_info=True)
    assert model.resampler.proj.shape == (128, 128)
    assert {key[0] for key in info["mismatched_keys"]} == {"resampler.proj"}


@pytest.mark.parametrize("options", [{"max_shard_size": "200KB"}, {}])
@pytest.mark.parametrize("tied", [False, True])
def test_saved_model_gives_identical_logits(tmp_path: Path, options: dict[str, str], tied: bool) -> None:
    config = tiny.config_of(4.5, tie_word_embeddings=tied)
    given = tiny.write(tmp_path / "given", config, tiny.values(tiny.all_shapes(4.5, tied=tied)))
    model = load(given)
    model.save_pretrained(tmp_path / "saved", **options)
    index = tmp_path / "saved" / "model.safetensors.index.json"
    assert index.exists() == bool(options)
    if options:
        names = json.loads(index.read_text())["weight_map"].keys()
        assert names == tiny.all_shapes(4.5, tied=tied).keys()  # upstream's names, and a tied head is stored once
    again = load(tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied


def test_half_precision_comes_back_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    half = load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    half.save_pretrained(tmp_path / "half")
    again = load(tmp_path / "half")
    assert again.dtype == torch.bfloat16
    assert torch.equal(logits(again), logits(half))
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_maps_load_the_same_model(folder: Path, device_map: Any) -> None:
    assert torch.equal(logits(load(folder, device_map=device_map)), logits(load(folder)))


def test_gradient_checkpointing_changes_no_gradient(folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.llm.model.gradient_checkpointing
            assert all(layer.gradient_checkpointing for layer in model.vpm.encoder.layers)
        inputs = tiny.media()
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    assert gradients[0]["vpm.encoder.layers.0.mlp.fc1.weight"].abs().max() > 0


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_is_chosen_for_tower_and_decoder(folder: Path, implementation: str) -> None:
    model = load(folder, attn_implementation=implementation)
    parts = (model.llm.config, model.vpm.encoder.layers[0].self_attn.config)
    assert {part._attn_implementation for part in parts} == {implementation}
    torch.testing.assert_close(logits(model), logits(load(folder)), atol=1e-5, rtol=0)


def adapted(folder: Path) -> PeftModel:
    """The model under LoRA, whose second matrices are not zero as they are at the start."""
    targets = r"(llm|vpm)\..*\.(q_proj|v_proj|fc1)|resampler\.kv_proj"
    model: Any = get_peft_model(load(folder), LoraConfig(r=2, target_modules=targets))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model.eval()


def test_lora_reaches_every_part_and_trains_nothing_else(folder: Path) -> None:
    model = adapted(folder).train()
    inputs = tiny.media()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert {name.split("base_model.model.")[1].split(".")[0] for name in trained} == {"llm", "vpm", "resampler"}


def test_the_adapter_off_is_the_base_and_merged_is_the_adapter_on(folder: Path) -> None:
    base, model = logits(load(folder)), adapted(folder)
    on = logits(model)
    assert (on - base).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), on)
    merged = model.merge_and_unload()
    assert isinstance(merged, MiniCPMVForConditionalGeneration)
    torch.testing.assert_close(logits(merged), on, atol=1e-4, rtol=0)


def test_the_adapter_alone_is_saved_and_a_merged_model_keeps_its_names(folder: Path, tmp_path: Path) -> None:
    model = adapted(folder)
    on = logits(model)
    model.save_pretrained(str(tmp_path / "adapter"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert saved and all("lora_" in name for name in saved)
    assert torch.equal(logits(PeftModel.from_pretrained(load(folder), tmp_path / "adapter")), on)
    merged: Any = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == tiny.all_shapes(4.5).keys()
    torch.testing.assert_close(logits(load(tmp_path / "merged")), on, atol=1e-4, rtol=0)
