"""A place in a text and the counters of a reading: what all parts of the reader share."""

from __future__ import annotations

from rewards.math_reading import limits
from rewards.math_reading.limits import Unreadable


class Cursor:
    """Reads one folded text. `commas`: a comma may belong to a number (`1,234`), outside brackets."""

    def __init__(self, text: str, *, commas: bool = True) -> None:
        self.text, self.at, self.commas = text, 0, commas
        self.depth = self.nodes = self.bars = self.brackets = 0

    def blank(self) -> bool:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        return self.at > start

    def peek(self) -> str:
        """The next sign: a character, or a bracket with its backslash; empty at the end."""
        self.blank()
        sign = self.text[self.at : self.at + 1]
        return (
            self.text[self.at : self.at + 2] if sign == "\\" and self.text[self.at + 1 : self.at + 2] in "{}" else sign
        )

    def take(self, sign: str) -> bool:
        self.blank()
        if not self.text.startswith(sign, self.at):
            return False
        self.at += len(sign)
        return True

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise Unreadable(f"'{sign}' is missing")

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > limits.MAX_NODES:
            raise Unreadable("too many operations")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > limits.MAX_DEPTH:
            raise Unreadable("nested too deeply")
