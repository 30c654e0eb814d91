"""How a reward function declares where it may run. A class sets the same as class attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def inline(function: _Function) -> _Function:
    """Declare that a reward is bounded by construction: it runs in the reward worker itself, without a limit."""
    vars(function)["runs_in"] = "inline"
    return function


def warmed_by(warm_up: Callable[[], object]) -> Callable[[_Function], _Function]:
    """Declare what to do once before the first case, so that slow imports are not taken from a case's time limit."""

    def declare(function: _Function) -> _Function:
        vars(function)["warm_up"] = warm_up
        return function

    return declare


def blames_reference(function: _Function) -> _Function:
    """Declare that it abstains on a plain answer only where the reference is empty or cannot be read.

    A run is then refused if it does so on a reference that is looked at beforehand (`scoring.reference_check`).
    """
    vars(function)["blames_reference"] = True
    return function


def pays_for(*hacks: str) -> Callable[[_Function], _Function]:
    """Declare classes of hacks of `rewards fuzz` that the published formula pays: they are reported, not blamed."""

    def declare(function: _Function) -> _Function:
        vars(function)["pays_for"] = hacks
        return function

    return declare
