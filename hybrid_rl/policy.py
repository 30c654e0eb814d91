"""A policy: any transformers model with its processor. Knows the Auto classes and no concrete model."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from hybrid_rl.backbones.choice import choose_backbone
from hybrid_rl.backbones.for_training import prepare_for_training
from hybrid_rl.backbones.layout import Decoding
from hybrid_rl.backbones.packing import Packing
from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.config.model import ModelConfig
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.errors import ConfigError
from hybrid_rl.lora import Lora, adapter_sizes, target_layers
from hybrid_rl.plugins import build
from hybrid_rl.pretrained import describe_folder, load_folder, model_without_weights
from hybrid_rl.processors import set_video_options
from hybrid_rl.protocols import Backbone
from hybrid_rl.quiet import quiet_transformers
from hybrid_rl.templates import PromptInputs


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
        backbone: how the model is called.
        packing: whether responses are forwarded packed in training.
        lora: the adapter that is trained; None where all weights are.
    """

    model: Any
    processor: Any
    format: TemplateChatFormat
    device: torch.device
    compute_dtype: torch.dtype
    forbidden_ids: tuple[int, ...]
    backbone: Backbone
    packing: Packing
    lora: Lora | None = None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Forward in `compute_dtype`, whatever the weights are kept in."""
        enabled = self.compute_dtype is not self.model.dtype
        return torch.autocast(self.device.type, self.compute_dtype, enabled=enabled)

    def prefill(self, inputs: Sequence[PromptInputs], vision: VisionMemory | None = None) -> tuple[Tensor, Decoding]:
        """See `Backbone.prefill`."""
        with self.autocast():
            return self.backbone.prefill(self.model, inputs, vision or VisionMemory())

    def decode(self, tokens_B: Tensor, decoding: Decoding) -> Tensor:
        """See `Backbone.decode`."""
        with self.autocast():
            return self.backbone.decode(self.model, tokens_B, decoding)

    def response_logits(
        self,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        vision: VisionMemory | None = None,
    ) -> Tensor:
        """See `Backbone.response_logits`."""
        with self.autocast():
            memory = vision or VisionMemory()
            return self.backbone.response_logits(self.model, inputs, prompt_of_row, responses, memory)

    def logprobs(self, logits: Tensor, temperature: Tensor | float) -> Tensor:
        """Log-probabilities [..., V] of the distribution that responses are drawn from, in float32.

        Sampler and trainer both use this one function, so that they agree on temperature and forbidden ids.
        """
        logits = logits.float() if isinstance(temperature, float) and temperature == 1 else logits.float() / temperature
        if self.forbidden_ids:
            logits = logits.index_fill(-1, torch.tensor(self.forbidden_ids, device=logits.device), float("-inf"))
        return torch.log_softmax(logits, dim=-1)

    @property
    def context_length(self) -> int:
        """Longest prompt and response together, in tokens."""
        config = self.model.config.get_text_config()
        return int(config.max_position_embeddings)

    def trained_parameters(self) -> dict[str, Parameter]:
        """What training may change, rollout workers are sent and checkpoints hold: the adapter, or all weights."""
        return self.lora.parameters() if self.lora is not None else dict(self.model.named_parameters())


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
    device, compute_dtype = device_and_dtype(config)
    _import_modules(config)
    # An adapter is trained in float32 whatever its base is kept in.
    weights_dtype = torch.float32 if trainable and config.lora is None else compute_dtype
    folder = _weights_folder(config, checkpoint)
    model, processor = load_folder(folder, weights_dtype) if folder else _build(config, seed, search)
    set_video_options(processor, config.video)
    model = model.to(device=device, dtype=weights_dtype).eval()
    if trainable:
        prepare_for_training(model, gradient_checkpointing=config.gradient_checkpointing)
    lora = None
    if config.lora is not None:
        lora = Lora(model, config.lora, config.parts, seed=seed, base=config.path or "")
        if checkpoint is not None:
            lora.load(Path(checkpoint))
    tokenizer = getattr(processor, "tokenizer", processor)
    backbone = build(config.backbone, search) if config.backbone else choose_backbone(model)
    return Policy(
        model=model,
        processor=processor,
        format=TemplateChatFormat(
            processor, modes.kinds, config.thought_tags, _stop_ids(model.generation_config, tokenizer)
        ),
        device=device,
        compute_dtype=compute_dtype,
        forbidden_ids=_forbidden_ids(model, processor),
        backbone=backbone,
        packing=Packing.of(model, backbone, config.packing, trainable=trainable),
        lora=lora,
    )


@dataclass(frozen=True, slots=True)
class PolicyOutline:
    """What is known of a policy without its weights.

    Attributes:
        context_length: longest prompt and response together, in tokens.
        full_precision: forward passes are in float32, as far as this process can tell.
        num_parameters: of the model, without an adapter.
        trainable: by name, the size of every parameter that may be trained: of the adapter, or of the model.
        forbidden_ids: see `Policy`.
    """

    format: TemplateChatFormat
    context_length: int
    full_precision: bool
    num_parameters: int
    trainable: dict[str, int]
    forbidden_ids: tuple[int, ...]


def outline_policy(
    config: ModelConfig, modes: ModesConfig, *, seed: int, search: Sequence[str], checkpoint: str | None = None
) -> PolicyOutline:
    """Chat format and limits of a policy, without loading the weights of a checkpoint.

    Raises:
        ConfigError: the folder is no checkpoint, the chat template does not take the modes' arguments, or an adapter
            has no layers.
    """
    quiet_transformers()
    _import_modules(config)
    _, compute_dtype = device_and_dtype(config)
    folder = _weights_folder(config, checkpoint)
    if folder is None:
        model, processor = _build(config, seed, search)
        generation_config = model.generation_config
    else:
        content = describe_folder(folder)
        model, processor = model_without_weights(content.config), content.processor
        generation_config = content.generation_config
    set_video_options(processor, config.video)
    stop_ids = _stop_ids(generation_config, getattr(processor, "tokenizer", processor))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    lora = config.lora
    return PolicyOutline(
        format=TemplateChatFormat(processor, modes.kinds, config.thought_tags, stop_ids),
        context_length=int(model.config.get_text_config().max_position_embeddings),
        full_precision=compute_dtype is torch.float32,
        num_parameters=sum(sizes.values()),
        trainable=adapter_sizes(target_layers(model, lora, config.parts), lora.rank) if lora else sizes,
        forbidden_ids=_forbidden_ids(model, processor),
    )


def text_config(config: ModelConfig, seed: int, search: Sequence[str]) -> Any:
    """The decoder's transformers config, without its weights."""
    quiet_transformers()
    _import_modules(config)
    if config.path is None:
        return _build(config, seed, search)[0].config.get_text_config()
    return describe_folder(config.path).config.get_text_config()


def _weights_folder(config: ModelConfig, checkpoint: str | None) -> str | None:
    """The folder of the model's own weights; a checkpoint of an adapter holds none.

    Raises:
        ConfigError: an adapter's base has gone.
    """
    if config.lora is None:
        return checkpoint or config.path
    if checkpoint is not None and not Path(config.path or "", "config.json").is_file():
        raise ConfigError(
            f"{config.path}, the base of the adapter in {checkpoint}, is not there any more; put it back, or set "
            f"model.path in the run's config.yaml to where it is now"
        )
    return config.path


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


def device_and_dtype(config: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """Where a model lives, and what it computes in.

    Raises:
        ConfigError: there is no such device.
    """
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


@contextlib.contextmanager
def training_mode(policy: Policy) -> Iterator[None]:
    """Modules in training mode inside the block (dropout, checkpointing), in evaluation mode outside."""
    policy.model.train()
    try:
        yield
    finally:
        policy.model.eval()
