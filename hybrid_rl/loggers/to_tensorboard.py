"""TensorBoard event files: `tensorboard --logdir RUN/logs/tensorboard`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from hybrid_rl.config.log import LogConfig
from hybrid_rl.loggers.shown import COLUMNS, ShownSample


class TensorBoardLogger:
    """See `hybrid_rl.loggers.choice.Logger`. A resumed run adds a file to the folder."""

    def __init__(self, place: Path, name: str, config: LogConfig, settings: Mapping[str, Any]) -> None:
        self._writer = SummaryWriter(str(place))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        for place, sample in enumerate(samples):
            text = "\n\n".join(f"{name}: {_quoted(value)}" for name, value in zip(COLUMNS, sample.row, strict=True))
            self._writer.add_text(f"samples/{sample.mode}/{place}", text, step)
        for mode, image in {s.mode: s.images[0] for s in reversed(samples) if s.images}.items():
            self._writer.add_image(f"samples/{mode}", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _quoted(value: str | float | None) -> str:
    """As a Markdown code block: TensorBoard renders Markdown, and a response may hold any."""
    longest = max(map(len, re.findall("`+", str(value))), default=0)
    fence = "`" * max(3, longest + 1)
    return f"\n{fence}\n{value}\n{fence}"
