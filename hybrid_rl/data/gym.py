"""Prompts from Reasoning Gym, a library of generators of verifiable reasoning problems (text only)."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, get_args

import numpy as np

from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.protocols import Split
from hybrid_rl.records import Message, Prompt, stable_seed

_HALF = 2**30  # generator seeds stay below 2**31: some generators use numpy's, which take no more than 32 bits
# These iterate over sets of text, whose order Python shuffles anew in every process unless it is told not to.
_HASH_DEPENDENT = frozenset(
    {"isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"}
)


class ReasoningGym:
    """Problems of one Reasoning Gym task, generated when they are asked for.

    The splits use different generator seeds. A task with few possible problems can still pose the same one in both.

    Args:
        task: name of a Reasoning Gym data set, such as `chain_sum`; it becomes the task of the prompts.
        num_prompts: how many different problems there are.
        task_args: settings of the task, as its configuration class has them.

    Raises:
        ConfigError: unknown task, settings that the task does not take, a task without a reference answer, or one
            that is not reproducible in this process.
    """

    def __init__(
        self, name: str, split: Split, seed: int, task: str, num_prompts: int = 10_000, **task_args: Any
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"data source '{name}': there is no split '{split}'; choose train or eval")
        if not isinstance(num_prompts, int) or not 1 <= num_prompts < _HALF:
            raise ConfigError(
                f"data source '{name}': num_prompts is {num_prompts!r}; it must be a whole number of at least 1"
            )
        self._name = name
        self._split: Split = split
        self._task = task
        self._num_prompts = num_prompts
        self._first_seed = _generator_seed(split, seed, task, num_prompts)
        self._problems = _create(name, task, num_prompts, self._first_seed, task_args)
        try:
            self[0]  # many impossible settings only show when a problem is made
        except DataError as error:
            raise ConfigError(str(error)) from error

    def __len__(self) -> int:
        return self._num_prompts

    def __getitem__(self, index: int) -> Prompt:
        if not 0 <= index < self._num_prompts:
            raise IndexError(f"data source '{self._name}' has prompts 0 to {self._num_prompts - 1}, not {index}")
        where = f"data source '{self._name}': Reasoning Gym task '{self._task}'"
        try:
            with _own_global_randomness(self._first_seed + index):
                entry = self._problems[index]
        except Exception as error:  # the generators raise whatever they meet
            raise DataError(
                f"{where} cannot make problem {index} ({type(error).__name__}: {error}); change its settings"
            ) from error
        answer = entry["answer"]
        if answer is None or not str(answer).strip():
            raise DataError(f"{where} gives no reference answer for problem {index}; choose another task")
        return Prompt(
            id=f"{self._task}/{self._split}/{index:06d}",
            source=self._name,
            task=self._task,
            messages=(Message(role="user", text=entry["question"]),),
            gold=str(answer),
            columns=_json_friendly(entry.get("metadata") or {}),
        )


def _generator_seed(split: Split, seed: int, task: str, num_prompts: int) -> int:
    """The generator seed of problem 0.

    Generators seed problem `i` with this + `i`, so each split needs a range of seeds for itself, not only a start.
    """
    start = stable_seed("reasoning gym", seed, task) % (_HALF - num_prompts)
    return start + (_HALF if split == "eval" else 0)


def _create(name: str, task: str, size: int, seed: int, task_args: Mapping[str, Any]) -> Any:
    import reasoning_gym  # seconds to import; only who asks for its problems pays them
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        near = get_close_matches(str(task), DATASETS, n=3, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else f"known are {', '.join(sorted(DATASETS))}"
        raise ConfigError(f"data source '{name}': Reasoning Gym has no task '{task}'; {hint}")
    if task in _HASH_DEPENDENT and os.environ.get("PYTHONHASHSEED", "random") == "random":
        raise ConfigError(
            f"data source '{name}': Reasoning Gym task '{task}' gives other problems in every process unless the "
            f"environment variable PYTHONHASHSEED is set; start with PYTHONHASHSEED=0"
        )
    known = sorted({field.name for field in dataclasses.fields(DATASETS[task][1])} - {"seed", "size"})
    for key in task_args:
        if key not in known:
            raise ConfigError(
                f"data source '{name}': Reasoning Gym task '{task}' has no setting '{key}'; it has {', '.join(known)}"
            )
    try:
        return reasoning_gym.create_dataset(task, size=size, seed=seed, **task_args)
    except Exception as error:  # the settings are checked with assert, or not at all
        raise ConfigError(
            f"data source '{name}': Reasoning Gym task '{task}' refuses its settings "
            f"({type(error).__name__}: {error}); change them"
        ) from error


@contextmanager
def _own_global_randomness(seed: int) -> Iterator[None]:
    """Python's and numpy's global random states for one problem: some generators draw from them, some reseed them.

    Both are put back after, so that a problem depends on its seed alone and nothing else in the process on it.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _json_friendly(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that JSON can hold, as JSON would give them back."""
    kept: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            kept[str(key)] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            continue  # sets, grids of numpy numbers and the like: rewards could not be told of them in a file
    return kept
