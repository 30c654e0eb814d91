"""What a call of a rollout engine has done, for the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFigures:
    """Counts and seconds of one call, or of several added up. 0 where an engine does not know.

    Attributes:
        prefill_tokens: prompt tokens that went through the model; those of a group once.
        decoded_tokens: tokens of responses, forced ones included.
        decode_steps: forward passes that fed rows one token each.
        row_steps: rows of all those passes: tokens fed.
        slots: most responses that may be in flight together.
        padded_tokens: positions that went through the model and held no token.
        vision_encodes: images (or slices, or packages of video frames) that went through the vision tower.
        unique_images: images (or slices) of different content among those of the call.
        prefill_seconds: forwarding prompts, images included.
        decode_seconds: all else: forwarding, sampling and book-keeping of the responses.
        notices: what the user should be told of how responses are made, once.
    """

    prefill_tokens: int = 0
    decoded_tokens: int = 0
    decode_steps: int = 0
    row_steps: int = 0
    slots: int = 0
    padded_tokens: int = 0
    vision_encodes: int = 0
    unique_images: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    notices: tuple[str, ...] = ()

    @property
    def padding_fraction(self) -> float:
        """Share of the positions that went through the model without a token."""
        forwarded = self.prefill_tokens + self.row_steps + self.padded_tokens
        return self.padded_tokens / forwarded if forwarded else 0.0

    @property
    def mean_rows(self) -> float:
        """Rows of a decoding pass, on average."""
        return self.row_steps / self.decode_steps if self.decode_steps else 0.0

    @property
    def seconds(self) -> float:
        """That the engine worked."""
        return self.prefill_seconds + self.decode_seconds

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> RolloutFigures:
        return cls(**{**found, "notices": tuple(found["notices"])})

    @classmethod
    def total(cls, figures: Iterable[RolloutFigures]) -> RolloutFigures:
        """Of several workers or calls; seconds are theirs together, slots those of the largest,
        each notice is there once."""
        parts = list(figures)
        summed = {f.name: sum(getattr(part, f.name) for part in parts) for f in fields(cls) if f.name != "notices"}
        summed["slots"] = max((part.slots for part in parts), default=0)
        # Workers of one kind have the same to say.
        return cls(**summed, notices=tuple(dict.fromkeys(n for part in parts for n in part.notices)))
