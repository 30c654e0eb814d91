"""What can go wrong with a judge."""

from __future__ import annotations


class JudgeError(RuntimeError):
    """A judge gave no verdict: the reward has failed on the response. Never holds a key."""


class PassingTrouble(JudgeError):
    """A failure that another attempt may not meet.

    Attributes:
        after_s: seconds that the server asks to wait before it; None where it says nothing.
    """

    def __init__(self, sentence: str, *, after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.after_s = after_s
