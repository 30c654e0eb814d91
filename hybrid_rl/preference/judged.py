"""What a preference model judges, and how its users see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hybrid_rl.records import Prompt


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer to a prompt."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to a prompt, the first of which somebody prefers."""

    prompt: Prompt
    chosen: str
    rejected: str


class PreferenceScorer(Protocol):
    """A model of what people prefer."""

    def scores(self, judged: Sequence[Judged], *, max_tokens: int, max_rows: int) -> list[float | None]:
        """A score for each answer, higher is better; None where prompt and answer are longer than the model reads.

        A score does not depend on what is scored beside it.

        Args:
            max_tokens: padded tokens that are forwarded at once; a longer row stands alone.
            max_rows: answers that are forwarded at once.
        """
        ...


def prompt_key(prompt: Prompt) -> tuple[object, ...]:
    """Equal for prompts that a model reads alike, whichever objects they are."""
    return prompt.messages, prompt.images, prompt.videos
