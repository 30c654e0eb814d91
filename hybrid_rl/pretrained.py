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
        processor = load_processor(folder, config)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{folder} cannot be loaded as a checkpoint: {reason}") from error
    has_generation = (Path(folder) / "generation_config.json").is_file()
    return FolderContent(config, GenerationConfig.from_pretrained(folder) if has_generation else None, processor)


def load_folder(folder: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and processor.

    Raises:
        ConfigError: the folder is no checkpoint, or its weights do not load.
    """
    from safetensors import SafetensorError

    content = describe_folder(folder)
    try:
        # use_safetensors: pickled weights can run code when they are loaded.
        model = _auto_class(content.config).from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: the weights cannot be loaded: {str(error).splitlines()[0]}") from error
    # Loaded weights lie where the file has them; CPU kernels sum in another order on memory that is not aligned, and a
    # resumed run would drift from an uninterrupted one.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model, content.processor


def model_without_weights(config: Any) -> Any:
    """The model of a config on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return _auto_class(config).from_config(config, trust_remote_code=False)


def _auto_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    has_vision = type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if has_vision else AutoModelForCausalLM
