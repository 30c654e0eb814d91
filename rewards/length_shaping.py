"""Rewards on the length of a response. Lengths are tokens; compare them within a mode only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hybrid_rl.errors import PluginError
from hybrid_rl.plugins import load


def soft_overlong(length: int, max_completion_len: int, soft_punish_cache: int) -> float:
    """0 up to L_max - cache, then falling to -1 at L_max, and -1 beyond (DAPO, arXiv 2503.14476, equation 13)."""
    free = max_completion_len - soft_punish_cache
    if length <= free:
        return 0.0
    return -1.0 if length > max_completion_len else (free - length) / soft_punish_cache


def cosine_scaled(
    length: int,
    max_len: int,
    correct: bool,
    correct_range: tuple[float, float] = (0.5, 1.0),
    wrong_range: tuple[float, float] = (-1.0, -0.5),
) -> float:
    """Short right answers and long wrong ones get the most (arXiv 2502.03373; TRL's ranges).

    low + (high - low) / 2 * (1 + cos(pi * min(L / L_max, 1))), with low and high swapped for a wrong answer.
    """
    low, high = correct_range if correct else (wrong_range[1], wrong_range[0])
    share = min(length / max_len, 1.0) if max_len > 0 else 1.0
    return low + (high - low) / 2 * (1 + math.cos(math.pi * share))


def len_reward(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """Length rewards of one group (Kimi k1.5, arXiv 2501.12599): lambda for a right answer, min(0, lambda) for a wrong.

    lambda = 0.5 - (L - L_min) / (L_max - L_min); all 0 where every response has the same length.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths for {len(correct)} verdicts; one of each a response")
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if longest == shortest:
        return [0.0] * len(lengths)
    scale = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [value if right else min(0.0, value) for value, right in zip(scale, correct, strict=True)]


def l1_exact(length: int, target_length: int, correct: float, alpha: float = 3e-4) -> float:
    """correct - alpha * |target - L|: keep to the length asked for (L1-Exact, arXiv 2503.04697)."""
    return correct - alpha * abs(target_length - length)


def l1_max(length: int, target_length: int, correct: float, alpha: float = 3e-4, delta: float = 0.5) -> float:
    """correct * clip(alpha * (target - L) + delta, 0, 1): stay below the length asked for (L1-Max, same paper)."""
    return correct * min(1.0, max(0.0, alpha * (target_length - length) + delta))


class _ByMode:
    """Limits that a mode may have of its own.

    Args:
        given: those of all other modes.
        modes: by mode, what replaces them there.
    """

    def __init__(self, given: Mapping[str, int], modes: Mapping[str, Mapping[str, int]] | None) -> None:
        self._given, self._modes = dict(given), dict(modes or {})
        for mode, own in self._modes.items():
            unknown = [name for name in own if name not in given] if isinstance(own, Mapping) else [own]
            if unknown:
                raise PluginError(f"limits of mode {mode}: there is no '{unknown[0]}'; write {', '.join(given)}")
        for limits in (self._given, *map(self.of, self._modes)):
            for name, value in limits.items():
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise PluginError(f"{name} is {value!r}; give a whole number of tokens from 1 up")

    def of(self, mode: str) -> dict[str, int]:
        return {**self._given, **self._modes.get(mode, {})}

    def check(self, modes: Sequence[str]) -> None:
        """Refuse limits of a mode that the run has not."""
        for mode in self._modes:
            if mode not in modes:
                raise PluginError(f"there are limits for mode '{mode}', and the run has {', '.join(modes)}")


class SoftOverlong:
    """`soft_overlong` on the ids of a response, for a config.

    Args:
        modes: by mode, a `max_completion_len`, a `soft_punish_cache` or both, where they differ.
    """

    def __init__(
        self, max_completion_len: int, soft_punish_cache: int, modes: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        limits = {"max_completion_len": max_completion_len, "soft_punish_cache": soft_punish_cache}
        self._limits = _ByMode(limits, modes)
        self.check = self._limits.check
        for found in (limits, *map(self._limits.of, modes or ())):
            if found["soft_punish_cache"] > found["max_completion_len"]:
                raise PluginError(
                    f"soft_punish_cache must lie between 1 and max_completion_len, not {found['soft_punish_cache']} "
                    f"with {found['max_completion_len']}"
                )

    def __call__(self, ids: Sequence[int], mode: str = "") -> float:
        return soft_overlong(len(ids), **self._limits.of(mode))


class CosineScaled:
    """`cosine_scaled` on the ids of a response, for a config.

    Args:
        accuracy: target of a function of `answer` and `gold`; from 0.5 on the answer is right. Where it abstains, or
            there is no answer, the response is wrong.
        max_len: tokens from which on nothing changes.
        modes: by mode, a `max_len` of its own.
    """

    def __init__(self, accuracy: str, max_len: int, modes: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self._limits = _ByMode({"max_len": max_len}, modes)
        self.check = self._limits.check
        self._right = _Right(accuracy)

    def __call__(self, ids: Sequence[int], answer: str | None, gold: str, well_formed: bool, mode: str = "") -> float:
        return cosine_scaled(len(ids), self._limits.of(mode)["max_len"], self._right(answer, gold))


class KimiLength:
    """`len_reward` for a config: the responses to one prompt in one mode are compared.

    Args:
        accuracy: as of `CosineScaled`.
    """

    per = "group"

    def __init__(self, accuracy: str) -> None:
        self._right = _Right(accuracy)

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        answer: Sequence[str | None],
        gold: Sequence[str],
        well_formed: Sequence[bool],
    ) -> list[float]:
        return len_reward([len(own) for own in ids], [self._right(*pair) for pair in zip(answer, gold, strict=True)])


class L1Exact:
    """The length term of `l1_exact`, for a config; the part `accuracy` beside it is the rest of it.

    `modes.kinds.NAME.target_length` writes the target into the prompt. Where none is asked for, the value is 0.
    """

    def __init__(self, alpha: float = 3e-4) -> None:
        self._alpha = alpha

    def __call__(self, ids: Sequence[int], target_length: int | None = None) -> float:
        return 0.0 if target_length is None else l1_exact(len(ids), target_length, 0.0, self._alpha)


class L1Max:
    """`l1_max` for a config, instead of the part `accuracy`, whose weight is then 0.

    Args:
        accuracy: as of `CosineScaled`.
    """

    def __init__(self, accuracy: str, alpha: float = 3e-4, delta: float = 0.5) -> None:
        self._alpha, self._delta = alpha, delta
        self._right = _Right(accuracy)

    def __call__(
        self, ids: Sequence[int], answer: str | None, gold: str, well_formed: bool, target_length: int | None = None
    ) -> float:
        correct = float(self._right(answer, gold))
        return correct if target_length is None else l1_max(len(ids), target_length, correct, self._alpha, self._delta)


class _Right:
    """Whether an answer is right, by a function of `answer` and `gold`."""

    def __init__(self, accuracy: str) -> None:
        self._accuracy = load(accuracy, group="hybrid_rl.rewards")

    def __call__(self, answer: str | None, gold: str) -> bool:
        value = self._accuracy(answer=answer, gold=gold) if answer is not None else 0.0
        return value is not None and value >= 0.5
