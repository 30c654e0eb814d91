"""Rewards on the length of a response. Lengths are tokens; compare them within a mode only."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


class SoftOverlong:
    """`soft_overlong` on the ids of a response, for a config."""

    def __init__(self, max_completion_len: int, soft_punish_cache: int) -> None:
        if not 0 < soft_punish_cache <= max_completion_len:
            raise ValueError(
                f"soft_punish_cache must lie between 1 and max_completion_len, not {soft_punish_cache} with "
                f"{max_completion_len}"
            )
        self.max_completion_len = max_completion_len
        self.soft_punish_cache = soft_punish_cache

    def __call__(self, ids: Sequence[int]) -> float:
        return soft_overlong(len(ids), self.max_completion_len, self.soft_punish_cache)


class CosineScaled:
    """`cosine_scaled` on the ids of a response, for a config.

    Args:
        accuracy: target of a function of `answer` and `gold`; from 0.5 on the answer is right. Where it abstains, or
            there is no answer, the response is wrong.
        max_len: tokens from which on nothing changes.
    """

    def __init__(self, accuracy: str, max_len: int) -> None:
        if max_len < 1:
            raise ValueError(f"max_len must be at least 1, not {max_len}")
        self.max_len = max_len
        self._accuracy = load(accuracy, group="hybrid_rl.rewards")

    def __call__(self, ids: Sequence[int], answer: str | None, gold: str, well_formed: bool) -> float:
        value = self._accuracy(answer=answer, gold=gold) if answer is not None else 0.0
        return cosine_scaled(len(ids), self.max_len, value is not None and value >= 0.5)
