"""`modes.long_ratio` where it is more than a number: a schedule over the steps, or either for each source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hybrid_rl.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class ScheduleConfig(Section):
    """A ratio that changes with the step."""

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

    @model_validator(mode="after")
    def _is_one_thing(self) -> ScheduleConfig:
        ramp = {"start": self.start, "end": self.end, "over_steps": self.over_steps}
        steps = {"milestones": self.milestones, "values": self.values}
        instead = self._instead_of_a_schedule()
        kinds: dict[str | None, Mapping[str, object]] = {"linear": ramp, "cosine": ramp, "steps": steps, None: instead}
        wanted = kinds[self.schedule]
        missing = [name for name, value in wanted.items() if value is None]
        if not wanted:
            raise ValueError("the ratio of a source is a number or has a schedule: linear, cosine or steps")
        if missing:
            what = f"schedule {self.schedule}" if self.schedule else "without a schedule, a ratio"
            raise ValueError(f"{what} needs {', '.join(wanted)}; without a value: {', '.join(missing)}")
        others = {**ramp, **steps, **instead}
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

    def _instead_of_a_schedule(self) -> Mapping[str, object]:
        """What a ratio without a schedule must have, by name; nothing will do here."""
        return {}


def _shape(value: Any) -> str:
    return "<section>" if isinstance(value, (dict, ScheduleConfig)) else "<number>"


SourceRatio = Annotated[
    Annotated[Share, Tag("<number>")] | Annotated[ScheduleConfig, Tag("<section>")],
    Discriminator(_shape),
]
"""A number, or a `ScheduleConfig`. The tags never show: `hybrid_rl.config.loading` drops them from a key's path."""


class RatioConfig(ScheduleConfig):
    """A ratio that changes with the step or with the source of the prompt."""

    by_source: dict[str, SourceRatio] | None = Field(default=None, min_length=1)
    """Instead of a schedule: the ratio of each data source, a number or a schedule."""

    def _instead_of_a_schedule(self) -> Mapping[str, object]:
        return {"by_source": self.by_source}


Ratio = Annotated[
    Annotated[Share, Tag("<number>")] | Annotated[RatioConfig, Tag("<section>")],
    Discriminator(_shape),
]
"""A number, or a `RatioConfig`."""
