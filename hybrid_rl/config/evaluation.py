"""`evaluation`: how the policy is measured, on its own held-out prompts and on named sets."""

from __future__ import annotations

from pydantic import Field, model_validator

from hybrid_rl.config.data import SourceConfig
from hybrid_rl.config.section import Section


class EvaluationSetConfig(Section):
    """A named set of prompts, with its own modes and sampling, beside the evaluation proper."""

    sources: dict[str, SourceConfig] | None = Field(default=None, min_length=1)
    """Prompt sources by name; their evaluation split is used. Unset: those of `data.sources`."""
    prompts_per_mode: int = Field(default=512, ge=1)
    """Prompts answered in each mode, the same ones in every mode."""
    modes: list[str] | None = Field(default=None, min_length=1)
    """Modes that answer. Unset: all."""
    samples_per_prompt: int = Field(default=1, ge=1)
    """Responses to each prompt (n); accuracy is their mean (mean@n)."""
    pass_at: list[int] = Field(default_factory=list)
    """Values of k, at most n, for pass@k: the chance that one of k responses is right, by the unbiased estimator of
    arXiv 2107.03374."""
    right_from: float = Field(default=1.0, gt=0, le=1)
    """A response whose accuracy is at least this is right, for pass@k."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; 0 takes the most likely token. Unset: the mode's."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Budget of a response. Unset: the mode's."""
    max_think_tokens: int | None = Field(default=None, ge=0)
    """Thinking budget of the modes that have a thought. Unset: the mode's."""
    every_steps: int | None = Field(default=None, ge=1)
    """Evaluate every so many steps, into `eval.jsonl`. Unset: as `evaluation.every_steps`. Before the first and after
    the last step it is evaluated where the evaluation proper is."""

    @model_validator(mode="after")
    def _samples_tell_something(self) -> EvaluationSetConfig:
        n = self.samples_per_prompt
        if self.pass_at and min(self.pass_at) < 1:
            raise ValueError(f"pass_at: pass@{min(self.pass_at)} means nothing; k counts from 1")
        if self.pass_at and max(self.pass_at) > n:
            raise ValueError(f"pass_at: pass@{max(self.pass_at)} needs as many samples_per_prompt, and there are {n}")
        if self.temperature == 0 and n > 1:
            raise ValueError(f"at temperature 0 all {n} samples_per_prompt are the same; give 1, or a temperature")
        return self


class EvaluationConfig(Section):
    """How the policy is measured."""

    prompts_per_mode: int = Field(default=512, ge=1)
    """Held-out prompts answered in each mode, the same ones in every mode, sampled as in training."""
    before: bool = True
    """Evaluate before the first step."""
    after: bool = True
    """Evaluate after the last step."""
    every_steps: int | None = Field(default=None, ge=1)
    """Also evaluate every so many steps, into `eval.jsonl`. Unset: no."""
    blind: bool = False
    """Repeat each of these evaluations with blanked images and videos (same size, mean grey): what is still right was
    not seen."""
    sets: dict[str, EvaluationSetConfig] = Field(default_factory=dict)
    """Further evaluations by name."""

    @model_validator(mode="after")
    def _names_of_sets(self) -> EvaluationConfig:
        for name in self.sets:
            if not name or "/" in name:
                raise ValueError(f"sets: '{name}' cannot be a name of a set, since it becomes part of metric names")
        return self

    def every(self, name: str) -> int | None:
        """Steps between evaluations of a set; None where there are none in training."""
        return self.sets[name].every_steps or self.every_steps
