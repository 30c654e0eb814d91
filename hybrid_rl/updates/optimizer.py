"""AdamW with a learning rate for each part of the model, and its state as safetensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybrid_rl.config.training import OptimizerConfig
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.parts import part_of


class PartOptimizer:
    """AdamW over the trainable parts of a model.

    Freezing is part of the job: a part whose scale is 0 gets `requires_grad = False` and costs no backward pass.

    Args:
        model: the module whose parameters are optimised.
        config: learning rate, scale by part and the rest.
        parts: part name -> parameter name prefixes; the longest prefix wins.
        names: the parameters that may be trained at all; None for every one.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: OptimizerConfig,
        parts: Mapping[str, Sequence[str]],
        names: Collection[str] | None = None,
    ) -> None:
        check_parts([n for n, _ in model.named_parameters() if names is None or n in names], config, parts)
        self._config = config
        self._names: dict[int, str] = {}
        groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            scale = scale_of(name, config, parts) if names is None or name in names else 0.0
            parameter.requires_grad_(scale != 0)
            if scale != 0:
                self._names[id(parameter)] = name
                groups.setdefault((scale, parameter.ndim >= 2), []).append(parameter)
        self._adamw = torch.optim.AdamW(
            [
                {"params": parameters, "scale": scale, "weight_decay": config.weight_decay if is_matrix else 0.0}
                for (scale, is_matrix), parameters in groups.items()
            ],
            lr=config.learning_rate,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            fused=True,
        )

    def step(self, schedule: float = 1.0) -> float:
        """Clip, update and clear the gradient.

        Args:
            schedule: factor of the learning rate at this step.

        Returns:
            Norm of the gradient before clipping.

        Raises:
            FloatingPointError: the gradient is not finite; nothing was changed.
        """
        parameters = [p for group in self._adamw.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._config.max_grad_norm))
        if not norm < float("inf"):
            raise FloatingPointError(
                f"the gradient norm is {norm}; this optimizer step was not taken. Lower the learning rate, or look at "
                f"the rewards and advantages of the last step"
            )
        for group in self._adamw.param_groups:
            group["lr"] = self._config.learning_rate * group["scale"] * schedule
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def save(self, path: Path) -> None:
        """Write the moments, named after their parameters."""
        tensors: dict[str, Tensor] = {}
        for parameter, state in self._adamw.state.items():
            for key, value in state.items():
                tensors[f"{self._names[id(parameter)]}@{key}"] = torch.as_tensor(value).contiguous()
        save_file(tensors, path)

    def load(self, path: Path) -> None:
        """Read moments that `save` wrote for the same parameters.

        Raises:
            RunFolderError: the file is damaged, or of other parameters.
        """
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}; restore it, or start the run anew") from error
        state: dict[str, dict[str, Tensor]] = {}
        for key, value in stored.items():
            name, _, kind = key.rpartition("@")
            state.setdefault(name, {})[kind] = value
        unknown = set(state) - set(self._names.values())
        if unknown:
            raise RunFolderError(f"{path} holds the state of {sorted(unknown)[0]}, which is not trained in this run")
        by_parameter: dict[Any, dict[str, Tensor]] = self._adamw.state
        for group in self._adamw.param_groups:
            for parameter in group["params"]:
                entry = state.get(self._names[id(parameter)])
                if entry is not None:
                    # AdamW keeps its step counter on the CPU.
                    by_parameter[parameter] = {
                        k: v if k == "step" else v.to(parameter.device) for k, v in entry.items()
                    }


def scale_of(name: str, config: OptimizerConfig, parts: Mapping[str, Sequence[str]]) -> float:
    """Factor of the learning rate of a parameter; 0 freezes it."""
    return config.learning_rate_scale.get(part_of(name, parts) or "", 1.0)


def check_parts(
    names: Iterable[str],
    config: OptimizerConfig,
    parts: Mapping[str, Sequence[str]],
    *,
    key: str = "train.optimizer",
    adapter: bool = False,
) -> None:
    """Check that a scale for every part finds parameters, and that something is left to train.

    Args:
        names: of the parameters that may be trained.
        key: where the config has the optimizer, for the message.
        adapter: the parameters are an adapter's.

    Raises:
        ConfigError: a scale names a part without parameters, or all parts are frozen.
    """
    found = {part_of(name, parts) for name in names}
    key = f"{key}.learning_rate_scale"
    for part in config.learning_rate_scale:
        if part not in found and adapter:
            there = ", ".join(sorted(part or "layers of no part" for part in found))
            raise ConfigError(
                f"{key}: the adapter has no layers of part '{part}', only of {there}; take it out, or add the part to "
                f"model.lora.parts"
            )
        if part not in found:
            raise ConfigError(f"{key}: the model has no parameters of part '{part}'; set its prefixes in model.parts")
    if all(config.learning_rate_scale.get(part or "", 1.0) == 0 for part in found):
        raise ConfigError(f"{key} freezes every part; leave at least one part above 0")
