"""Checkpoint folders through the Auto classes of transformers: safetensors only, no remote code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hybrid_rl.errors import ConfigError
from hybrid_rl.processors import load_processor


@dataclass(frozen=True, slots=True)
class FolderContent:
    """What a checkpoint folder says without its weights.

    Attributes:
        config: of the model.
        generation_config: None where the folder has none.
        processor: the processor, or the tokenizer of a model of text.
    """

    config: Any
    generation_config: Any
    processor: Any


def describe_folder(folder: str) -> FolderContent:
    """Read everything but the weights.

    Raises:
        ConfigError: the folder is no checkpoint.
    """
    from transformers import AutoConfig, GenerationConfig

    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json, so it is not a checkpoint folder; check model.path")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _check_writes_text(config)
        processor = load_processor(folder, config)
        # Without its files some tokenizers load all the same, with an empty vocabulary.
        if not _tokenizer_of(processor).encode("0", add_special_tokens=False):
            raise ValueError("it has no tokenizer (tokenizer.json), or an empty one")
        if not (getattr(processor, "chat_template", None) or _tokenizer_of(processor).chat_template):
            raise ValueError(
                "it has no chat template, which makes prompts of messages; add a chat_template.jinja, such as that of "
                "the model's instruct version"
            )
        has_generation = (Path(folder) / "generation_config.json").is_file()
        generation_config = GenerationConfig.from_pretrained(folder) if has_generation else None
    except Exception as error:  # transformers raises anything for a damaged file; the user's folder is the suspect
        raise ConfigError(f"{folder} cannot be loaded as a checkpoint: {_reason(error)}") from error
    return FolderContent(config, generation_config, processor)


def load_folder(folder: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and processor.

    Raises:
        ConfigError: the folder is no checkpoint, or its weights do not load.
    """
    from safetensors import SafetensorError

    content = describe_folder(folder)
    try:
        # use_safetensors: pickled weights can run code when they are loaded.
        model, found = _auto_class(content.config).from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
        if found["missing_keys"]:  # transformers would begin them at random
            raise ValueError(f"there is no tensor {min(found['missing_keys'])}")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: the weights cannot be loaded: {_reason(error)}") from error
    # Loaded weights lie where the file has them; CPU kernels sum in another order on memory that is not aligned, and a
    # resumed run would drift from an uninterrupted one.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model, content.processor


def model_without_weights(config: Any) -> Any:
    """The model of a config on the meta device: names and shapes, no memory.

    Raises:
        ConfigError: its sizes make no model.
    """
    try:
        with torch.device("meta"):
            return _auto_class(config).from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes that do not fit fail anywhere in a model
        raise ConfigError(f"{config.name_or_path}/config.json describes no model: {_reason(error)}") from error


def _check_writes_text(config: Any) -> None:
    """Raises a ValueError for models that do not predict each token from those before it."""
    from transformers import AutoModelForCausalLM

    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"models of type {name} have an encoder for the prompt; a policy is a decoder alone")
    # Encoders that may serve as decoders have this key. Some decoders have it too and do not set it.
    is_decoder = getattr(config, "is_decoder", True) or any(
        architecture.endswith("ForCausalLM") for architecture in config.architectures or []
    )
    if not (_has_vision(config) or (is_decoder and type(config) in AutoModelForCausalLM._model_mapping)):
        raise ValueError(f"models of type {name} do not generate text; a policy is a causal language model")


def _auto_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if _has_vision(config) else AutoModelForCausalLM


def _has_vision(config: Any) -> bool:
    from transformers import AutoModelForImageTextToText

    return type(config) in AutoModelForImageTextToText._model_mapping


def _tokenizer_of(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def _reason(error: Exception) -> str:
    """The first line of an error and what it announces; the exception's name where it says nothing."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first
