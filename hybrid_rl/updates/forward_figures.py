"""What passes over responses sent through the model, for the accounting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.updates.packed import packed_tokens
from hybrid_rl.updates.padded import padded_tokens
from hybrid_rl.updates.rows import Row


@dataclass(slots=True)
class ForwardFigures:
    """Counts over all micro-batches.

    Attributes:
        tokens: positions with a token: prompts as often as they were forwarded, and responses.
        padded_tokens: positions without one.
        vision_encodes: images, or slices of images, that went through the vision tower.
        unique_images: different ones among them; of an optimizer step, after which the tower is another.
    """

    tokens: int = 0
    padded_tokens: int = 0
    vision_encodes: int = 0
    unique_images: int = 0

    def add(
        self, rows: Sequence[Row], batches: Sequence[Sequence[int]], vision: VisionMemory, *, packed: Sequence[bool]
    ) -> None:
        """Count the micro-batches of these rows.

        Args:
            packed: of each micro-batch: no padding, and each prompt once.
        """
        self.tokens += packed_tokens(rows, [batch for batch, form in zip(batches, packed, strict=True) if form])
        padded = [batch for batch, form in zip(batches, packed, strict=True) if not form]
        own = sum(rows[i].length for batch in padded for i in batch)
        self.tokens += own
        self.padded_tokens += padded_tokens(rows, padded) - own
        self.vision_encodes += vision.encodes
        self.unique_images += vision.num_unique
