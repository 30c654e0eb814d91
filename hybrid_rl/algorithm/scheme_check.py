"""Whether baseline, modes and chat template fit together; asked before a run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hybrid_rl.algorithm.baselines import load_baseline
from hybrid_rl.config import Config
from hybrid_rl.errors import ConfigError
from hybrid_rl.protocols import Baseline, Thought


class ModeForms(Protocol):
    """What a chat format says of the forms of its modes."""

    def thought(self, mode: str) -> Thought: ...

    def forced_ids(self, mode: str) -> tuple[int, ...]: ...

    def opening(self, mode: str) -> str: ...


def check_scheme(config: Config, forms: ModeForms) -> None:
    """Refuse a baseline that the modes, their assignment or the template do not carry.

    Raises:
        ConfigError: one sentence that says what is missing, and what to change.
    """
    baseline, modes = load_baseline(config), config.modes
    trained = _trained_modes(config)
    assigned = [mode for mode in trained if forms.thought(mode) != "free"]
    name = f"train.baseline {config.train.baseline}"
    if baseline.paired:
        _check_pairs(name, config, trained)
    elif baseline.joint and assigned:
        raise ConfigError(
            f"{name} compares responses over modes, but mode {assigned[0]} is assigned and not the model's choice; "
            f"train only modes whose template leaves the choice to the model, or take within_mode, bpo or hgpo"
        )
    if baseline.needs_mode_token or modes.forced_tokens == "importance":
        _check_mode_tokens(name if baseline.needs_mode_token else "modes.forced_tokens", config, forms, trained)
    _check_forcing(name, config, baseline)


def _trained_modes(config: Config) -> list[str]:
    if config.modes.assign == "column":
        return list(config.modes.kinds)
    return [mode for mode, share in config.modes.shares.items() if share > 0]


def _check_pairs(name: str, config: Config, trained: Sequence[str]) -> None:
    if config.modes.assign != "paired":
        raise ConfigError(f"{name} answers every prompt in both modes; set modes.assign to paired")
    shares: Mapping[str, float] = config.modes.shares
    if len(trained) != 2 or abs(shares[trained[0]] - shares[trained[1]]) > 1e-9:
        told = ", ".join(f"{mode} {shares[mode]:g}" for mode in trained)
        raise ConfigError(f"{name} compares two modes with equally many responses; here the shares are {told}")


def _check_mode_tokens(name: str, config: Config, forms: ModeForms, trained: Sequence[str]) -> None:
    """Every mode that is not a free choice says by one token of its own that it is chosen."""
    kinds = config.modes.kinds
    named = [mode for mode in kinds if forms.thought(mode) != "free" or forms.forced_ids(mode)]
    for mode in named:
        ids = forms.forced_ids(mode)
        if not ids:
            raise ConfigError(
                f"{name} trains the token by which the model chooses its mode, and the template has none for mode "
                f"{mode}; give modes.kinds.{mode} a mode_token, such as <think>"
            )
        if len(ids) != 1:
            raise ConfigError(
                f"{name} trains the token by which the model chooses its mode, and modes.kinds.{mode}.mode_token "
                f"'{kinds[mode].mode_token}' is {len(ids)} tokens of this model; take one that is a single token"
            )
    if len(named) < 2:
        raise ConfigError(
            f"{name} trains the choice between modes; name the modes to choose from in modes.kinds, each with its "
            f"mode_token"
        )
    same = next((b for a in named for b in named if a != b and forms.forced_ids(a) == forms.forced_ids(b)), None)
    if same is not None:
        raise ConfigError(
            f"{name} trains the token by which the model chooses its mode, and mode {same} has the same one as another"
        )
    elsewhere = [mode for mode in {*named, *trained} if forms.opening(mode) != forms.opening(named[0])]
    if elsewhere:
        raise ConfigError(
            f"{name}: the prompt of mode {elsewhere[0]} ends differently from that of mode {named[0]}, and no token "
            f"chooses between them; give both the same template_args and prefill"
        )


def _check_forcing(name: str, config: Config, baseline: Baseline) -> None:
    importance = config.modes.forced_tokens == "importance"
    if baseline.paired and baseline.needs_mode_token and not importance:
        raise ConfigError(
            f"{name} trains mode tokens that are forced, which modes.forced_tokens mask leaves out; set it to "
            f"importance"
        )
    if importance and config.modes.assign == "column":
        raise ConfigError(
            "modes.forced_tokens importance divides by the share of a mode, and modes.assign column knows none; "
            "set it to mask"
        )
