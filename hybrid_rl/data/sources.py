"""Prompt sources of a config -> a mixture. Built-in sources load as plug-ins do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

from hybrid_rl.config.data import SourceConfig
from hybrid_rl.data.mixture import Mixture
from hybrid_rl.errors import ConfigError, PluginError
from hybrid_rl.plugins import build, load
from hybrid_rl.protocols import PromptSource, Split
from hybrid_rl.records import Prompt

_GIVEN = ("name", "split", "seed", "search")


def make_mixture(sources: Mapping[str, SourceConfig], split: Split, seed: int, search: Sequence[str]) -> Mixture:
    """Build the sources for a split and join them by weight.

    Raises:
        PluginError: a source does not load or does not take its arguments.
        ConfigError, DataError: what a source finds wrong with its arguments or its data.
    """
    built = {name: _make_source(name, source, split, seed, search) for name, source in sources.items()}
    return Mixture(built, {name: source.weight for name, source in sources.items()}, seed)


def _make_source(name: str, config: SourceConfig, split: Split, seed: int, search: Sequence[str]) -> PromptSource:
    reserved = [key for key in config.args if key in _GIVEN]
    if reserved:
        raise ConfigError(f"source '{name}': args.{reserved[0]} is set by hybrid-rl; remove it")
    given = {"name": name, "split": split, "seed": seed}
    factory = load(config.target, search)
    # Sources that read files look for them where plug-ins are looked for.
    if callable(factory) and "search" in inspect.signature(factory).parameters:
        given["search"] = list(search)
    source = build(config.target, search, **given, **config.args)
    if not isinstance(source, PromptSource):
        raise PluginError(f"source '{name}': '{config.target}' lacks __len__ or __getitem__, so it is no prompt source")
    if len(source) and not isinstance(source[0], Prompt):
        raise PluginError(f"source '{name}': '{config.target}' gives {type(source[0]).__name__}, not hybrid_rl.Prompt")
    return source
