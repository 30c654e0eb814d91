"""LoRA (Hu et al., arXiv 2106.09685) through peft: low-rank updates in place beside the frozen weights of a model.

The model keeps its class and all its methods; its targeted linear layers are replaced by ones that add
alpha / rank * B A x. With the adapter off it computes exactly what it computed before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hybrid_rl.config.model import LoraConfig
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.parts import part_of

ADAPTER_FILE = "adapter_model.safetensors"
"""The name that peft, transformers and vLLM look for, beside `adapter_config.json`."""
_NAME = "default"
_PREFIX = "base_model.model."
"""What peft writes before the names of parameters."""


class Lora:
    """The adapter of a model.

    Args:
        model: gets the adapter in place; its own weights are frozen.
        parts: part name -> parameter name prefixes.
        seed: of the initial values of A; B starts at zero, so that a new adapter changes nothing.
        base: folder of the frozen weights, for the adapter's file.

    Raises:
        ConfigError: no layer of the model is meant.
    """

    def __init__(
        self, model: nn.Module, config: LoraConfig, parts: Mapping[str, Sequence[str]], *, seed: int, base: str
    ) -> None:
        from peft import LoraConfig as PeftConfig
        from peft import LoraModel

        self._model = model
        self._config = PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type] # it only divides by the rank
            lora_dropout=config.dropout,
            target_modules=list(target_layers(model, config, parts)),
            base_model_name_or_path=base,
            inference_mode=False,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._tuner = LoraModel(model, self._config, _NAME)
        # Its own weights are float32 whatever the base is kept in: updates are small beside what they are added to.
        for parameter in self.parameters().values():
            parameter.data = parameter.data.float()

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by their names in the model."""
        return {name: p for name, p in self._model.named_parameters() if ".lora_" in name}

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """The model without the adapter inside the block: the reference."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]
        trained = {name: p.requires_grad for name, p in self.parameters().items()}
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            # Switching on makes everything trainable, also what the optimizer has frozen.
            for name, parameter in self.parameters().items():
                parameter.requires_grad_(trained[name])

    def save(self, folder: Path) -> None:
        """Write the adapter as peft does; the base is named by its path."""
        tensors = {_file_name(name): p.detach().cpu().contiguous() for name, p in self.parameters().items()}
        save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
        self._config.save_pretrained(str(folder))

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Read what `save` wrote for the same layers and rank.

        Raises:
            RunFolderError: the file is missing, damaged or of another adapter.
        """
        path, stored = folder / ADAPTER_FILE, read_adapter(folder)
        parameters = {_file_name(name): p for name, p in self.parameters().items()}
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        differing = shapes.items() ^ {(name, tuple(t.shape)) for name, t in stored.items()}
        if differing:
            raise RunFolderError(f"{path} does not fit model.lora: {sorted(differing)[0][0]} differs")
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])

    def merge(self) -> Any:
        """The model with the updates added to its weights and no adapter left. The adapter is used up."""
        return self._tuner.merge_and_unload()


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """The tensors that `Lora.save` wrote.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    path = folder / ADAPTER_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}; restore it, or start the run anew") from error


def target_layers(model: Any, config: LoraConfig, parts: Mapping[str, Sequence[str]]) -> dict[str, nn.Linear]:
    """The linear layers that get an update, by name.

    Raises:
        ConfigError: there is none.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if config.parts is not None:
        layers = {name: layer for name, layer in layers.items() if part_of(name + ".", parts) in config.parts}
    else:
        decoder = {id(module) for module in model.get_decoder().modules()}
        layers = {name: layer for name, layer in layers.items() if id(layer) in decoder}
    if not layers:
        raise ConfigError(f"model.lora: the model has no linear layers in {', '.join(config.parts or ['its decoder'])}")
    if config.target_modules is None:
        return layers
    last_names = {name.rpartition(".")[2] for name in layers}
    for wanted in config.target_modules:
        if wanted not in last_names:
            raise ConfigError(
                f"model.lora.target_modules: there is no linear layer '{wanted}'; there are "
                f"{', '.join(sorted(last_names))}"
            )
    return {name: layer for name, layer in layers.items() if name.rpartition(".")[2] in config.target_modules}


def adapter_sizes(layers: Mapping[str, nn.Linear], rank: int) -> dict[str, int]:
    """Sizes of an adapter's parameters by their names in the model: A is [rank, in], B is [out, rank]."""
    return {
        f"{name}.lora_{kind}.{_NAME}.weight": rank * width
        for name, layer in layers.items()
        for kind, width in (("A", layer.in_features), ("B", layer.out_features))
    }


def _file_name(name: str) -> str:
    return _PREFIX + name.replace(f".{_NAME}.", ".")
