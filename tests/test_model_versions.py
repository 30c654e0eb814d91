"""Every release of the family by one class, from its own config.json and tensor names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_checkpoints as tiny
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from model import MiniCPMOConfig, MiniCPMVConfig, MiniCPMVForConditionalGeneration

DECODERS: dict[float, tuple[Any, Any, str]] = {
    2.6: (Qwen2Config, Qwen2ForCausalLM, "Qwen2DecoderLayer"),
    4.0: (LlamaConfig, LlamaForCausalLM, "LlamaDecoderLayer"),
    4.5: (Qwen3Config, Qwen3ForCausalLM, "Qwen3DecoderLayer"),
}
OMNI_FIELDS = {
    "init_audio": True,
    "init_tts": True,
    "init_vision": True,
    "audio_pool_step": 2,
    "audio_config": {"model_type": "whisper", "d_model": 8, "encoder_layers": 1},
    "tts_config": {"model_type": "conditional_chattts", "llm_dim": 16},
}
OMNI_TENSORS = {
    "apm.conv1.weight": (8, 4, 3),
    "audio_projection_layer.linear1.weight": (4, 8),
    "audio_avg_pooler.weight": (2,),
    "tts.emb_text.weight": (3, 4),
}


@pytest.mark.parametrize("version", DECODERS)
@pytest.mark.parametrize("written", [float, str])
def test_a_release_loads_with_the_decoder_it_was_trained_with(tmp_path: Path, version: float, written: Any) -> None:
    """On text, the model is the plain transformers decoder with the same weights."""
    tensors = tiny.values(tiny.all_shapes(version))
    config = tiny.config_of(version) | {"version": written(version)}
    model: Any = AutoModelForImageTextToText.from_pretrained(tiny.write(tmp_path, config, tensors))
    assert type(model) is MiniCPMVForConditionalGeneration
    config_class, decoder_class, layer = DECODERS[version]
    fields = {key: value for key, value in tiny.config_of(version).items() if key != "vision_config"}
    plain = decoder_class(config_class(**fields)).eval()
    plain.load_state_dict({k.removeprefix("llm."): v for k, v in tensors.items() if k.startswith("llm.")})
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert set(model._no_split_modules) == {"VisionEncoderLayer", "Resampler", layer}


@pytest.mark.parametrize("version", DECODERS)
def test_saving_keeps_every_name_of_the_release(tmp_path: Path, version: float) -> None:
    tensors = tiny.values(tiny.all_shapes(version))
    model = AutoModel.from_pretrained(tiny.write(tmp_path / "a", tiny.config_of(version), tensors))
    model.save_pretrained(tmp_path / "b")
    saved = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (saved["version"], saved["model_type"], saved["drop_vision_last_layer"]) == (version, "minicpmv", False)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert {name: tuple(t.shape) for name, t in again.state_dict().items()} == tiny.all_shapes(version)
    with torch.no_grad():
        assert torch.equal(again(**tiny.media(version)).logits, model(**tiny.media(version)).logits)


def test_pictures_look_the_same_to_every_release(tmp_path: Path) -> None:
    """Tower and resampler share names and mathematics from 2.6 on; time is added where there is some."""
    tensors = tiny.values(tiny.all_shapes(4.5))
    features = []
    for version in DECODERS:
        shared = {k: v for k, v in tensors.items() if not k.startswith("llm.")}
        decoder = tiny.values(tiny.decoder_shapes(version))
        folder = tiny.write(tmp_path / str(version), tiny.config_of(version), shared | decoder)
        model = AutoModel.from_pretrained(folder)
        inputs = tiny.media(2.6)
        with torch.no_grad():
            features.append(
                model.get_image_features(inputs["pixel_values"], inputs["tgt_sizes"], inputs["temporal_ids"])[0]
            )
    assert features[0].shape == (3, tiny.QUERIES, tiny.D)
    assert torch.equal(features[0], features[1]) and torch.equal(features[1], features[2])


def test_a_release_without_the_last_vision_layer(tmp_path: Path) -> None:
    """Files that do not say otherwise leave the last layer out, and then do not store it."""
    config = tiny.config_of(2.6)
    del config["drop_vision_last_layer"]
    folder = tiny.write(tmp_path, config, tiny.values(tiny.all_shapes(2.6, vision_layers=tiny.V_LAYERS - 1)))
    assert len(AutoModel.from_pretrained(folder).vpm.encoder.layers) == tiny.V_LAYERS - 1


@pytest.mark.parametrize("version", [2.6, 4.5])
def test_an_omni_model_loads_without_ears_and_voice(tmp_path: Path, version: float) -> None:
    config = tiny.config_of(version, "minicpmo", **OMNI_FIELDS)
    tensors = tiny.values(tiny.all_shapes(version))
    folder = tiny.write(tmp_path / "omni", config, tensors | tiny.values(OMNI_TENSORS))
    with pytest.warns(UserWarning, match="4 tensors of apm, audio_avg_pooler, audio_projection_layer, tts are not"):
        model = AutoModelForImageTextToText.from_pretrained(folder)
    assert isinstance(model, MiniCPMVForConditionalGeneration) and isinstance(model.config, MiniCPMOConfig)
    assert model.config.audio_config["d_model"] == 8
    seeing = AutoModel.from_pretrained(tiny.write(tmp_path / "seeing", tiny.config_of(version), tensors))
    with torch.no_grad():
        assert torch.equal(model(**tiny.media(version)).logits, seeing(**tiny.media(version)).logits)
    model.save_pretrained(tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left out of what was saved here
        again = AutoModel.from_pretrained(tmp_path / "again")
    assert again.config.model_type == "minicpmo" and again.config.tts_config["llm_dim"] == 16


@pytest.mark.parametrize("version", [2.5, 4.6, "next", None])
def test_an_unknown_version_is_named_with_the_known_ones(tmp_path: Path, version: Any) -> None:
    config = tiny.config_of(4.5) | {"version": version}
    if version is None:
        del config["version"]  # as in the oldest releases
    folder = tiny.write(tmp_path, config, {})
    for load in (AutoConfig.from_pretrained, MiniCPMVForConditionalGeneration.from_pretrained):
        with pytest.raises(ValueError, match=rf"version {version} is not supported, known are 2\.6, 4\.0, 4\.5"):
            load(folder)


def test_a_config_made_by_hand_is_the_newest_release() -> None:
    assert MiniCPMVConfig().version == 4.5
    assert isinstance(MiniCPMVConfig(version=4).decoder_config(), LlamaConfig)
    with pytest.raises(ValueError, match=r"version 9 is not supported"):
        MiniCPMVConfig(version=9).decoder_config()


def test_a_release_without_time_refuses_frames_with_time(tmp_path: Path) -> None:
    config = tiny.config_of(2.6)
    model = AutoModel.from_pretrained(tiny.write(tmp_path, config, tiny.values(tiny.all_shapes(2.6))))
    inputs = tiny.media(2.6)
    num_slices = len(inputs["pixel_values"][0])
    with torch.inference_mode():
        stills = model(**inputs | {"temporal_ids": [[[-1]] * num_slices]}).logits
        assert torch.equal(stills, model(**inputs | {"temporal_ids": None}).logits)
        for ticks in ([[0]] * num_slices, [[-1] * num_slices]):
            with pytest.raises(ValueError, match=r"temporal_ids hold frames .*, which MiniCPM-V 2\.6 does not know"):
                model(**inputs | {"temporal_ids": [ticks]})
