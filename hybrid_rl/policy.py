"""A policy: any transformers model with its processor. Knows the Auto classes and no concrete model."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.chat_format import PromptInputs, TemplateChatFormat
from hybrid_rl.config.model import ModelConfig
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.errors import ConfigError
from hybrid_rl.plugins import build
from hybrid_rl.quiet import quiet_transformers


@dataclass(frozen=True, slots=True)
class Policy:
    """A model that answers prompts.

    Attributes:
        model: a transformers causal language model, possibly with vision.
        processor: its processor, or tokenizer.
        format: the chat format of the policy, for all modes.
        device: where the model lives.
        compute_dtype: dtype of the forward pass; weights may be kept in float32 beside it (see `autocast`).
        forbidden_ids: ids that are never sampled, such as image placeholders; they have probability 0 everywhere.
    """

    model: Any
    processor: Any
    format: TemplateChatFormat
    device: torch.device
    compute_dtype: torch.dtype
    forbidden_ids: tuple[int, ...]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Forward in `compute_dtype`, whatever the weights are kept in."""
        enabled = self.compute_dtype is not self.model.dtype
        return torch.autocast(self.device.type, self.compute_dtype, enabled=enabled)

    def embed_prompts(self, inputs: Sequence[PromptInputs]) -> list[Tensor]:
        """Input embeddings of each prompt, image features in place: a list of [P, D].

        All images of the call are encoded once, together. Models with media offer `embed_multimodal(input_ids_BT,
        **media)`, media as lists with one entry a sample.
        """
        table = self.model.get_input_embeddings()
        if not any(item.media for item in inputs):
            return [table(torch.tensor(item.ids, device=self.device)) for item in inputs]
        longest = max(len(item.ids) for item in inputs)
        ids_BT = torch.zeros(len(inputs), longest, dtype=torch.long)
        for row, item in enumerate(inputs):
            ids_BT[row, : len(item.ids)] = torch.tensor(item.ids)
        embeds_BTD = self.model.embed_multimodal(ids_BT.to(self.device), **self._collate([i.media for i in inputs]))
        return [embeds_BTD[row, : len(item.ids)] for row, item in enumerate(inputs)]

    def logprobs(self, logits: Tensor, temperature: Tensor | float) -> Tensor:
        """Log-probabilities [..., V] of the distribution that responses are drawn from, in float32.

        Sampler and trainer both use this one function, so that they agree on temperature and forbidden ids.
        """
        logits = logits.float() / temperature
        if self.forbidden_ids:
            logits[..., list(self.forbidden_ids)] = float("-inf")
        return torch.log_softmax(logits, dim=-1)

    @property
    def context_length(self) -> int:
        """Longest prompt and response together, in tokens."""
        config = self.model.config.get_text_config()
        return int(config.max_position_embeddings)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def _collate(self, media: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        keys = dict.fromkeys(key for item in media for key in item)
        return {key: [_to_device(item.get(key, []), self.device) for item in media] for key in keys}


def load_policy(
    config: ModelConfig,
    modes: ModesConfig,
    *,
    seed: int,
    search: Sequence[str],
    checkpoint: str | None = None,
    trainable: bool = False,
) -> Policy:
    """Load the policy of a config, or build it with random weights.

    Args:
        checkpoint: folder to load instead of `config.path`.
        trainable: keep float32 weights for the optimizer even where the forward pass is bfloat16.
    """
    quiet_transformers()
    device, compute_dtype = _device_and_dtype(config)
    folder = checkpoint or config.path
    _import_modules(config)
    weights_dtype = torch.float32 if trainable else compute_dtype
    model, processor = _from_folder(folder) if folder else _build(config, seed, search)
    model = model.to(device=device, dtype=weights_dtype).eval()
    tokenizer = getattr(processor, "tokenizer", processor)
    return Policy(
        model=model,
        processor=processor,
        format=TemplateChatFormat(
            processor, modes.kinds, config.thought_tags, _stop_ids(model.generation_config, tokenizer)
        ),
        device=device,
        compute_dtype=compute_dtype,
        forbidden_ids=_forbidden_ids(model, processor),
    )


@dataclass(frozen=True, slots=True)
class PolicyOutline:
    """What is known of a policy without its weights.

    Attributes:
        context_length: longest prompt and response together, in tokens.
        full_precision: forward passes are in float32, as far as this process can tell.
    """

    format: TemplateChatFormat
    context_length: int
    full_precision: bool


def outline_policy(
    config: ModelConfig, modes: ModesConfig, *, seed: int, search: Sequence[str], checkpoint: str | None = None
) -> PolicyOutline:
    """Chat format and limits of a policy, without loading the weights of a checkpoint.

    Raises:
        ConfigError: the folder is no checkpoint, or the chat template does not take the modes' arguments.
    """
    quiet_transformers()
    folder = checkpoint or config.path
    _import_modules(config)
    _, compute_dtype = _device_and_dtype(config)
    if folder is None:
        model, processor = _build(config, seed, search)
        model_config, generation_config = model.config, model.generation_config
    else:
        model_config, generation_config, processor = _describe_folder(folder)
    stop_ids = _stop_ids(generation_config, getattr(processor, "tokenizer", processor))
    chat = TemplateChatFormat(processor, modes.kinds, config.thought_tags, stop_ids)
    context_length = int(model_config.get_text_config().max_position_embeddings)
    return PolicyOutline(chat, context_length, compute_dtype is torch.float32)


def _import_modules(config: ModelConfig) -> None:
    for module in config.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"model.modules: '{module}' does not import: {error}") from error


def _build(config: ModelConfig, seed: int, search: Sequence[str]) -> tuple[Any, Any]:
    if "seed" in config.args:
        raise ConfigError("model.args.seed: the seed of the weights is run.seed; set that instead")
    try:
        model, processor = build(config.builder, search, seed=seed, **config.args)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"model.args: {config.builder} cannot be built with them: {reason}") from error
    return model, processor


def _describe_folder(folder: str) -> tuple[Any, Any, Any]:
    """Config, generation config (None without one) and processor of a checkpoint folder."""
    from transformers import AutoConfig, AutoProcessor, GenerationConfig

    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json, so it is not a checkpoint folder; check model.path")
    try:
        model_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{folder} cannot be loaded as a checkpoint: {reason}") from error
    has_generation = (Path(folder) / "generation_config.json").is_file()
    return model_config, GenerationConfig.from_pretrained(folder) if has_generation else None, processor


def _from_folder(folder: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config, _, processor = _describe_folder(folder)
    has_vision = type(config) in AutoModelForImageTextToText._model_mapping
    auto = AutoModelForImageTextToText if has_vision else AutoModelForCausalLM
    try:
        # use_safetensors: pickled weights can run code when they are loaded.
        model = auto.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: the weights cannot be loaded: {str(error).splitlines()[0]}") from error
    # Loaded weights lie where the file has them; CPU kernels sum in another order on memory that is not aligned, and a
    # resumed run would drift from an uninterrupted one.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model, processor


def _device_and_dtype(config: ModelConfig) -> tuple[torch.device, torch.dtype]:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"model.device: '{name}' is not a device; write auto, cpu or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"model.device is '{name}', but there is no GPU; write auto or cpu")
    if config.dtype == "auto":
        return device, torch.float32 if device.type == "cpu" else torch.bfloat16
    return device, {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


def _stop_ids(generation_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's end of turn first, then whatever else the generation config stops at."""
    others = generation_config.eos_token_id if generation_config is not None else None
    others = others if isinstance(others, list) else [others]
    found = dict.fromkeys(i for i in (tokenizer.eos_token_id, *others) if i is not None)
    if not found:
        raise ConfigError("the tokenizer has no end-of-turn token (eos_token); add one to tokenizer_config.json")
    return tuple(found)


def _forbidden_ids(model: Any, processor: Any) -> tuple[int, ...]:
    """Ids whose appearance in a response would be taken for an image."""
    ids = set(getattr(processor, "placeholder_token_ids", ()))
    for name in ("image_token_id", "video_token_id"):
        value = getattr(model.config, name, None)
        if value is not None:
            ids.add(value)
    return tuple(sorted(int(i) for i in ids))


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return [_to_device(item, device) for item in value]
    return value


@contextlib.contextmanager
def training_mode(policy: Policy) -> Iterator[None]:
    """Modules in training mode inside the block (dropout, checkpointing), in evaluation mode outside."""
    policy.model.train()
    try:
        yield
    finally:
        policy.model.eval()
