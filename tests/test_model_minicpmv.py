"""The whole model: equal to the released code, to itself after saving, and to itself with a cache."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from model import MiniCPMVConfig, MiniCPMVForConditionalGeneration, MiniCPMVProcessor, tiny_minicpmv

plain_tiny = partial(tiny_minicpmv, query_num=8, words=())
"""Eight queries and bytes alone: the numbers in these tests are those of this size."""

SHARED = Path(__file__).parents[2] / "shared" / "fixtures"
GOLDEN = SHARED / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")

SCENARIOS = [
    "text_only",
    "one_image_slices",
    "two_images_thinking",
    "video_packages",
    "video_sliced",
    "batch_mixed_leftpad",
    "batch_video_last",
]


@pytest.fixture(scope="module")
def tiny() -> tuple[MiniCPMVForConditionalGeneration, MiniCPMVProcessor]:
    return plain_tiny(0)


def batch(processor: MiniCPMVProcessor) -> Any:
    """Two samples of different length, one without an image, left-padded, with their position ids."""
    image = {"type": "image", "image": Image.linear_gradient("L").resize((90, 60))}
    conversations = [
        [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}],
        [{"role": "user", "content": "Hi"}],
    ]
    out = processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    out["position_ids"] = (out["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return out


def test_tiny_model_is_small_and_tied(tiny: Any) -> None:
    model, processor = tiny
    assert 1_000_000 <= sum(p.numel() for p in model.parameters()) <= 3_000_000
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"llm", "vpm", "resampler"}
    assert model.config.image_token_id == processor.image_token_id
    assert processor.tokenizer.decode([model.config.image_token_id]) == "<unk>"
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_seed_decides_the_weights_and_global_state_stays() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one, other, third = (plain_tiny(seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["resampler.proj"], third["resampler.proj"])


def test_initial_weights_have_their_scale(tiny: Any) -> None:
    state = tiny[0].state_dict()
    assert state["llm.model.embed_tokens.weight"].std() == pytest.approx(0.06, rel=0.05)
    assert state["resampler.proj"].std() == pytest.approx(128**-0.5, rel=0.05)
    # Positions as strong as patches; the released scale, a tenth of it, does not learn to read from nothing.
    assert state["vpm.embeddings.position_embedding.weight"].std() == pytest.approx(1, rel=0.05)
    assert torch.equal(state["vpm.post_layernorm.weight"], torch.ones(96))
    assert all(torch.isfinite(value).all() for value in state.values())


def test_queries_start_out_looking_at_places_of_their_own() -> None:
    """In a blank strip of 9 columns, the column a query attends to most moves from the left end to the right end."""
    model, _ = plain_tiny(0)
    resampler, columns = model.resampler, torch.arange(9)
    omega = 1.0 / 10000 ** (torch.arange(32) / 32)

    def code(places: torch.Tensor) -> torch.Tensor:
        angles = places[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    keys = torch.cat([code(columns), code(torch.zeros(9))], dim=-1)
    weight_q, weight_k = resampler.attn.in_proj_weight[:128], resampler.attn.in_proj_weight[128:256]
    with torch.no_grad():
        scores = (resampler.ln_q(resampler.query) @ weight_q.T) @ (keys @ weight_k.T).T
    looked_at = scores.argmax(-1).tolist()
    assert looked_at == sorted(looked_at)
    assert (looked_at[0], looked_at[-1]) == (0, 8)


def test_unknown_size_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        plain_tiny(0, hiden_size=128)  # type: ignore[call-arg]


@torch.no_grad()
def test_saved_model_loads_with_identical_logits(tiny: Any, tmp_path: Path) -> None:
    model, processor = tiny
    inputs = batch(processor)
    model.save_pretrained(tmp_path, max_shard_size="2MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for auto_class in (AutoModelForImageTextToText, AutoModelForCausalLM):
        loaded = auto_class.from_pretrained(tmp_path).eval()
        assert isinstance(loaded, MiniCPMVForConditionalGeneration)
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
        assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


@torch.no_grad()
def test_untied_head_survives_saving(tmp_path: Path) -> None:
    model, processor = plain_tiny(0, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    loaded = MiniCPMVForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.get_output_embeddings().weight is not loaded.get_input_embeddings().weight
    assert torch.equal(loaded(**batch(processor)).logits, model(**batch(processor)).logits)


@torch.no_grad()
def test_decoding_with_cache_equals_full_forward(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    full = model(**inputs).logits
    keep = inputs["input_ids"].shape[1] - 3
    head = {**inputs, "input_ids": inputs["input_ids"][:, :keep], "position_ids": inputs["position_ids"][:, :keep]}
    head["attention_mask"] = inputs["attention_mask"][:, :keep]
    out = model(**head, use_cache=True)
    for t in range(keep, keep + 3):
        out = model(
            input_ids=inputs["input_ids"][:, t : t + 1],
            attention_mask=inputs["attention_mask"][:, : t + 1],
            position_ids=inputs["position_ids"][:, t : t + 1],
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        torch.testing.assert_close(out.logits[:, -1], full[:, t], atol=1e-5, rtol=0)


@torch.no_grad()
def test_generate_is_greedy_over_full_forwards(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    position_ids = inputs.pop("position_ids")
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(4):
        logits = model(**{**inputs, "input_ids": ids, "attention_mask": mask}, position_ids=position_ids).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, mask[:, :1] * 0 + 1], dim=1)
        position_ids = torch.cat([position_ids, position_ids[:, -1:] + 1], dim=1)
    assert torch.equal(tokens, ids)


@torch.no_grad()
def test_several_answers_per_prompt_see_their_own_image(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    inputs.pop("position_ids")
    one = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    beams = model.generate(**inputs, max_new_tokens=3, num_beams=2, num_return_sequences=2, do_sample=False)
    assert beams.shape[0] == 2 * one.shape[0]
    assert torch.equal(beams[::2, : inputs["input_ids"].shape[1]], inputs["input_ids"])


@torch.no_grad()
def test_generate_from_embeddings_equals_generate_from_media(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    inputs.pop("position_ids")
    media = [inputs.pop(name) for name in ("pixel_values", "tgt_sizes", "image_bound", "temporal_ids")]
    embeds = model.embed_multimodal(inputs["input_ids"], *media)
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": -1}
    from_embeds = model.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], **options)
    names = ("pixel_values", "tgt_sizes", "image_bound", "temporal_ids")
    from_media = model.generate(**inputs, **dict(zip(names, media, strict=True)), **options)
    assert torch.equal(from_embeds, from_media[:, inputs["input_ids"].shape[1] :])


def test_image_changes_only_what_comes_after_it(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    start = inputs["image_bound"][0][0, 0].item()
    with torch.no_grad():
        before = model(**inputs).logits
        inputs["pixel_values"] = [[-slice_ for slice_ in sample] for sample in inputs["pixel_values"]]
        after = model(**inputs).logits
    torch.testing.assert_close(before[:, :start], after[:, :start])
    torch.testing.assert_close(before[1], after[1])
    assert (before[0, start:] - after[0, start:]).abs().max() > 1e-4


def test_gradients_reach_every_part() -> None:
    model, processor = plain_tiny(0)
    inputs = batch(processor)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    model.train()
    model.gradient_checkpointing_enable()
    model(**inputs, labels=labels, use_cache=False).loss.backward()
    for name in ("vpm.embeddings.patch_embedding.weight", "resampler.query", "llm.model.embed_tokens.weight"):
        assert model.get_parameter(name).grad.abs().max() > 0, name


def test_training_works_after_inference_mode_filled_the_caches() -> None:
    model, processor = plain_tiny(0)
    inputs = batch(processor)
    with torch.inference_mode():
        expected = model(**inputs).logits.clone()
    model.train()
    out = model(**inputs, labels=inputs["input_ids"])
    out.loss.backward()
    torch.testing.assert_close(out.logits, expected.clone(), atol=1e-6, rtol=0)


def test_half_precision_runs_in_half_precision() -> None:
    model, processor = plain_tiny(0)
    with torch.no_grad():
        expected = model(**batch(processor)).logits
        got = model.to(torch.bfloat16)(**batch(processor)).logits
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=0.05)


def test_text_alone_gives_zero_and_not_missing_vision_gradients() -> None:
    model, processor = plain_tiny(0)
    ids = torch.tensor([processor.tokenizer.encode("only text")])
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    used = [p for name, p in model.named_parameters() if not name.startswith("llm.")]
    assert all(p.grad is not None and not p.grad.any() for p in used)


@torch.no_grad()
def test_masks_of_four_axes_pass_through(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    length = inputs["input_ids"].shape[1]
    seen = torch.ones(length, length).tril().bool() & inputs["attention_mask"].bool()[:, None, None, :]
    expected = model(**inputs).logits
    out = model(**{**inputs, "attention_mask": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}).logits
    attended = inputs["attention_mask"].bool()
    torch.testing.assert_close(out[attended], expected[attended], atol=1e-5, rtol=0)


@torch.no_grad()
def test_embeddings_outside_spans_are_the_tokens(tiny: Any) -> None:
    model, processor = tiny
    inputs = batch(processor)
    media = [inputs[name] for name in ("pixel_values", "tgt_sizes", "image_bound", "temporal_ids")]
    embeds = model.embed_multimodal(inputs["input_ids"], *media)
    features = model.get_image_features(media[0], media[1], media[3])
    assert [tuple(f.shape) for f in features] == [(1, 8, 128), (0, 8, 128)]
    start, stop = inputs["image_bound"][0][0].tolist()
    assert torch.equal(embeds[0, start:stop], features[0][0])
    plain = model.get_input_embeddings()(inputs["input_ids"])
    plain[0, start:stop] = embeds[0, start:stop]
    assert torch.equal(embeds, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_bound": [torch.empty(0, 2), torch.empty(0, 2)]}, "0 placeholder spans for 1 image features"),
        ({"image_bound": [torch.tensor([[3, 7]]), torch.empty(0, 2)]}, "cannot hold 8 features"),
        ({"tgt_sizes": [torch.tensor([[3, 5], [1, 1]]), torch.empty(0, 2)]}, "1 slices, 2 sizes"),
        ({"temporal_ids": [[[1, 2]], []]}, "temporal ids for 2 slices"),
        ({"image_bound": None}, "need input_ids, tgt_sizes and image_bound"),
    ],
)
def test_media_that_disagree_are_refused(tiny: Any, change: dict[str, Any], message: str) -> None:
    model, processor = tiny
    with pytest.raises(ValueError, match=message):
        model(**{**batch(processor), **change})


@torch.no_grad()
def test_resized_vocabulary_still_gives_a_loss() -> None:
    model, processor = plain_tiny(0)
    model.resize_token_embeddings(400, mean_resizing=False)
    inputs = batch(processor)
    out = model(**inputs, labels=inputs["input_ids"])
    assert out.logits.shape[-1] == 400 and out.loss.isfinite()


def golden_batch(tensors: dict[str, torch.Tensor], scenario: dict[str, Any], part: str) -> dict[str, Any]:
    """Model inputs of a golden scenario; upstream stores pixels as bytes."""
    ids = tensors[f"{part}.input_ids"].long()
    counts = scenario["n_pixel_tensors"]
    return {
        "input_ids": ids,
        "attention_mask": tensors[f"{part}.attention_mask"].long(),
        "pixel_values": [
            [(tensors[f"pixel_u8.{b}.{i}"].float() / 255 - 0.5) / 0.5 for i in range(n)] for b, n in enumerate(counts)
        ],
        "tgt_sizes": [tensors.get(f"tgt_sizes.{b}", torch.empty(0, 2)) for b in range(len(counts))],
        "image_bound": [tensors[f"{part}.image_bound.{b}"] for b in range(len(counts))],
        "temporal_ids": scenario["temporal_ids"],
    }


@pytest.fixture(scope="module")
def golden_model() -> MiniCPMVForConditionalGeneration:
    return MiniCPMVForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32).eval()


@needs_golden
@pytest.mark.parametrize("name", SCENARIOS)
def test_released_logits_loss_and_gradients(golden_model: MiniCPMVForConditionalGeneration, name: str) -> None:
    tensors = load_file(GOLDEN / f"full_{name}.safetensors")
    scenario = json.loads((GOLDEN / "index.json").read_text())["files"][f"full_{name}.safetensors"]["scenario"]
    inputs = golden_batch(tensors, scenario, "full")
    features = golden_model.get_image_features(*(inputs[k] for k in ("pixel_values", "tgt_sizes", "temporal_ids")))
    for b, feature in enumerate(features):
        if len(feature):
            torch.testing.assert_close(feature, tensors[f"vision_hidden_states.{b}"], atol=3e-5, rtol=0)
    golden_model.train()  # no dropout here; a batch without images must still touch the vision parameters
    golden_model.zero_grad()
    out = golden_model(**inputs, position_ids=tensors["full.position_ids"].long(), labels=tensors["full.labels"].long())
    out.loss.backward()
    golden_model.eval()
    b, t = tensors["full.logits_positions"].long().T
    torch.testing.assert_close(out.logits[b, t], tensors["full.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(out.loss.reshape(1), tensors["loss"], atol=1e-5, rtol=0)
    for parameter, norm in scenario["grad_norm_per_parameter"].items():
        got = golden_model.get_parameter(parameter).grad.norm().item()
        assert got == pytest.approx(norm, rel=1e-4, abs=1e-4), parameter


@needs_golden
@pytest.mark.parametrize("name", ["two_images_thinking", "batch_mixed_leftpad", "batch_video_last"])
def test_released_greedy_tokens(golden_model: MiniCPMVForConditionalGeneration, name: str) -> None:
    tensors = load_file(GOLDEN / f"full_{name}.safetensors")
    scenario = json.loads((GOLDEN / "index.json").read_text())["files"][f"full_{name}.safetensors"]["scenario"]
    inputs = golden_batch(tensors, scenario, "prompt")
    out = golden_model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=[259, 257], pad_token_id=0)
    assert out[:, inputs["input_ids"].shape[1] :].tolist() == tensors["greedy.tokens"].tolist()


@needs_golden
def test_released_config_and_parameter_names() -> None:
    config = AutoConfig.from_pretrained(SHARED / "real_tokenizer")
    assert isinstance(config, MiniCPMVConfig)
    assert config.decoder_config().rope_parameters["rope_theta"] == 1000000
    assert (config.image_token_id, config.resampler_heads, config.num_vision_layers) == (128244, 32, 27)
    with torch.device("meta"):
        model = MiniCPMVForConditionalGeneration(config)
    manifest = json.loads((SHARED / "minicpmv" / "param_manifest.json").read_text())["parameters"]
    shapes = {name: list(parameter.shape) for name, parameter in model.state_dict().items()}
    assert shapes == {name: tensor["shape"] for name, tensor in manifest.items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_695_895_280
    # Nothing of size beside the parameters: no table of positions or of times (1.2 GB where it is built ahead).
    assert all(buffer.numel() < 1000 for buffer in model.buffers())
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
