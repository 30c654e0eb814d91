"""Prompt sources drawn from in fixed proportions, as a pure function of the step: a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite

import numpy as np
import numpy.typing as npt

from hybrid_rl.algorithm.quota import quotas
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.protocols import PromptSource
from hybrid_rl.records import Prompt, stable_seed


class Mixture:
    """Draws the prompts of a step.

    Each source receives its share of all prompts so far, to within one prompt and exactly where that is a whole
    number. Within a source every prompt is drawn once an epoch, each epoch in a new order.

    Args:
        sources: name -> source; the order decides the order of a draw.
        weights: name -> relative weight, above 0.

    Raises:
        ConfigError: no source, a weight that is missing, without a source, or not above 0.
        DataError: a source without prompts.
    """

    def __init__(self, sources: Mapping[str, PromptSource], weights: Mapping[str, float], seed: int) -> None:
        _check(sources, weights)
        self._sources = dict(sources)
        self._shares = [float(weights[name]) for name in sources]
        self._seed = seed
        self._orders: dict[tuple[str, bool], tuple[int, npt.NDArray[np.int64]]] = {}

    def draw(self, step: int, num_prompts: int) -> list[Prompt]:
        """The prompts of a step, source by source.

        Args:
            step: counted from 1.
            num_prompts: prompts per step; must be the same at every step of a run.
        """
        if step < 1 or num_prompts < 1:
            raise ConfigError(f"cannot draw {num_prompts} prompts for step {step}; both count from 1")
        before, after = (step - 1) * num_prompts, step * num_prompts
        starts = quotas(self._shares, 0, before)
        counts = quotas(self._shares, before, after)
        return [
            source[self._index(name, number)]
            for (name, source), start, count in zip(self._sources.items(), starts, counts, strict=True)
            for number in range(start, start + count)
        ]

    def first(self, num_prompts: int) -> list[Prompt]:
        """The first prompts of every source by weight, in their own order; fewer where a source has no more."""
        counts = quotas(self._shares, 0, num_prompts)
        return [
            source[index]
            for source, count in zip(self._sources.values(), counts, strict=True)
            for index in range(min(count, len(source)))
        ]

    def every(self) -> Iterator[Prompt]:
        """All prompts, source by source, each in its own order."""
        for source in self._sources.values():
            yield from (source[index] for index in range(len(source)))

    def at(self, number: int) -> Prompt:
        """The `number`th prompt, from 0, when sources take turns by weight, each in its own order.

        Raises:
            DataError: the source whose turn it is has no more.
        """
        before, after = quotas(self._shares, 0, number), quotas(self._shares, 0, number + 1)
        grown = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if b > a]
        name, source = list(self._sources.items())[grown[0]]
        if before[grown[0]] >= len(source):
            raise DataError(f"there is no prompt {number}: source '{name}' ends before it, with {len(source)} prompts")
        return source[before[grown[0]]]

    def spare(self, name: str, number: int) -> Prompt:
        """The `number`th spare prompt of a source, from 0, to replace one that was drawn.

        The orders of `draw` from their ends, so that a spare prompt is new to the run until the two meet.
        """
        source = self._sources[name]
        epoch, place = divmod(number, len(source))
        return source[int(self._order(name, epoch, spare=True)[len(source) - 1 - place])]

    def _index(self, name: str, number: int) -> int:
        """Which prompt of the source is the `number`th drawn from it over the whole run."""
        epoch, place = divmod(number, len(self._sources[name]))
        return int(self._order(name, epoch, spare=False)[place])

    def _order(self, name: str, epoch: int, *, spare: bool) -> npt.NDArray[np.int64]:
        """The order of a source in an epoch. The last one that either reader has asked for is kept."""
        cached = self._orders.get((name, spare))
        if cached is None or cached[0] != epoch:
            shuffler = np.random.default_rng(stable_seed("epoch order", self._seed, name, epoch))
            cached = (epoch, shuffler.permutation(len(self._sources[name])))
            self._orders[name, spare] = cached
        return cached[1]


def _check(sources: Mapping[str, PromptSource], weights: Mapping[str, float]) -> None:
    if not sources:
        raise ConfigError("there is no data source; name at least one")
    for name in sources:
        if name not in weights:
            raise ConfigError(f"data source '{name}' has no weight; give it a number above 0")
    for name, weight in weights.items():
        if name not in sources:
            raise ConfigError(f"there is a weight for '{name}' but no such data source; known are {', '.join(sources)}")
        if not (isfinite(weight) and weight > 0):
            raise ConfigError(f"the weight of data source '{name}' is {weight}; give it a number above 0, or remove it")
    for name, source in sources.items():
        if len(source) == 0:
            raise DataError(f"data source '{name}' has no prompts; fill it or remove it")
