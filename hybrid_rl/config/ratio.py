"""`modes.long_ratio` where it is more than a number: a schedule over the steps, or a ratio for each source."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hybrid_rl.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class RatioConfig(Section):
    """A ratio that changes with the step or with the source of the prompt."""

    schedule: Literal["linear", "cosine", "steps"] | None = None
    """`linear`, `cosine`: from `start` to `end` over `over_steps` steps, then `end`. `steps`: one of `values` after the
    other."""
    start: Share | None = None
    """Ratio of the first step."""
    end: Share | None = None
    """Ratio from step `over_steps` on."""
    over_steps: int | None = Field(default=None, ge=1)
    """Step at which `end` is reached."""
    milestones: list[Annotated[int, Field(ge=2)]] | None = Field(default=None, min_length=1)
    """Steps, rising, at which the next of `values` begins."""
    values: list[Share] | None = Field(default=None, min_length=2)
    """Ratios of a `steps` schedule, one more than `milestones`."""
    by_source: dict[str, Share] | None = Field(default=None, min_length=1)
    """Instead of a schedule: the ratio of each data source."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> RatioConfig:
        ramp = {"start": self.start, "end": self.end, "over_steps": self.over_steps}
        steps = {"milestones": self.milestones, "values": self.values}
        kinds: dict[str | None, dict[str, object]] = {
            "linear": {**ramp},
            "cosine": {**ramp},
            "steps": {**steps},
            None: {"by_source": self.by_source},
        }
        wanted = kinds[self.schedule]
        missing = [name for name, value in wanted.items() if value is None]
        if missing:
            what = f"schedule {self.schedule}" if self.schedule else "without a schedule, a ratio"
            raise ValueError(f"{what} needs {', '.join(wanted)}; without a value: {', '.join(missing)}")
        others = {**ramp, **steps, "by_source": self.by_source}
        extra = [name for name, value in others.items() if value is not None and name not in wanted]
        if extra:
            raise ValueError(f"{extra[0]} does not go with {self.schedule or 'by_source'}; remove one of them")
        if self.milestones is not None and self.values is not None:
            if self.milestones != sorted(set(self.milestones)):
                raise ValueError(f"milestones {self.milestones} do not rise; each is a later step than the one before")
            if len(self.values) != len(self.milestones) + 1:
                raise ValueError(
                    f"{len(self.milestones)} milestones part the run in {len(self.milestones) + 1}, but there are "
                    f"{len(self.values)} values; give one value a part"
                )
        return self


def _shape(value: Any) -> str:
    return "<section>" if isinstance(value, (dict, RatioConfig)) else "<number>"


Ratio = Annotated[
    Annotated[Share, Tag("<number>")] | Annotated[RatioConfig, Tag("<section>")],
    Discriminator(_shape),
]
"""A number, or a `RatioConfig`. The tags never show: `hybrid_rl.config.loading` drops them from a key's path."""
