"""`data`: where prompts come from."""

from __future__ import annotations

from pydantic import Field

from hybrid_rl.config.section import Arguments, Section


class SourceConfig(Section):
    """A prompt source."""

    target: str
    """A prompt source: `module:Class` or `file.py:Class`, built as `Class(name=, split=, seed=, **args)`."""
    args: Arguments = Field(default_factory=dict)
    """Further arguments of the source."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the prompts of a step, relative to the other sources; the counts are exact."""


class DataConfig(Section):
    """Where prompts come from."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    """Prompt sources by name."""
