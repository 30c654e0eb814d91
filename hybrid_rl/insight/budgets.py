"""One checkpoint at several thinking budgets: accuracy against the tokens that a thought may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.errors import ConfigError
from hybrid_rl.records import Prompt

_LOOKED_AT = 64
"""Prompts that are measured beforehand."""


def read_budgets(text: str) -> list[int]:
    """Budgets in tokens, as `0,16,32`.

    Raises:
        ConfigError: they are none.
    """
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isdecimal() and piece.isascii() for piece in pieces):
        raise ConfigError(f"--budgets '{text}': write whole numbers of tokens from 0 up, such as 0,16,32,64")
    return sorted({int(piece) for piece in pieces})


def limited_modes(modes: ModesConfig, chat: TemplateChatFormat, thinking: Sequence[str], budget: int) -> ModesConfig:
    """The modes with thought, limited to a budget.

    The response may have as many tokens behind the thought as it may have in all without a budget, so that what is
    measured is the budget and not an answer that was cut.
    """
    kinds = {}
    for name in thinking:
        kind = modes.kinds[name]
        room = budget + len(chat.encode(chat.closing_text(name))) + kind.max_new_tokens
        kinds[name] = kind.model_copy(update={"max_think_tokens": budget, "max_new_tokens": room, "share": None})
    return modes.model_copy(update={"kinds": kinds, "long_ratio": None})


def unlimited_modes(modes: ModesConfig, thinking: Sequence[str]) -> ModesConfig:
    """The modes with thought as the config has them, without a thinking budget."""
    kinds = {n: modes.kinds[n].model_copy(update={"max_think_tokens": None, "share": None}) for n in thinking}
    return modes.model_copy(update={"kinds": kinds, "long_ratio": None})


def check_budgets(
    budgets: Sequence[int],
    modes: ModesConfig,
    chat: TemplateChatFormat,
    thinking: Sequence[str],
    prompts: Sequence[Prompt],
    context_length: int,
) -> None:
    """Refuse budgets that no context holds.

    Raises:
        ConfigError: with the largest budget that fits.
    """
    if not thinking:
        raise ConfigError("--budgets: no mode of the run has a thought that a budget could limit")
    largest = max(budgets)
    looked_at = prompts[:: max(1, len(prompts) // _LOOKED_AT)]
    for mode, kind in limited_modes(modes, chat, thinking, largest).kinds.items():
        longest = max(len(chat.prompt_ids(prompt, mode)) for prompt in looked_at)
        needed = longest + kind.max_new_tokens
        if needed > context_length:
            fits = largest - (needed - context_length)
            most = f"the largest budget that fits is {fits}" if fits >= 0 else "no budget fits"
            raise ConfigError(
                f"--budgets: in mode {mode} a prompt of {longest} tokens, a thought of {largest} and an answer of up "
                f"to {modes.kinds[mode].max_new_tokens} are more than the model's context of {context_length}; {most}"
            )


def budget_curve(
    budgets: Sequence[int],
    modes: ModesConfig,
    chat: TemplateChatFormat,
    thinking: Sequence[str],
    evaluate: Callable[[ModesConfig], dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Evaluate at every budget, and without one.

    Args:
        thinking: modes that may have a thought.
        evaluate: what `evaluate` finds in given modes.

    Returns:
        By mode a list in the order of the budgets: `max_think_tokens`, None at the end, beside what `evaluate` returns.
    """
    curve: dict[str, list[dict[str, Any]]] = {mode: [] for mode in thinking}
    for budget in (*budgets, None):
        limited = unlimited_modes(modes, thinking) if budget is None else limited_modes(modes, chat, thinking, budget)
        for mode, figures in evaluate(limited).items():
            curve[mode].append({"max_think_tokens": budget, **figures})
    return curve
