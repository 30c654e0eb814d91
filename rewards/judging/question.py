"""What a judge is shown for one response."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from rewards.judging.fence import new_mark
from rewards.judging.pictures import data_url, pixel_digest
from rewards.judging.template import RULES, Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A template with its values, and images.

    Attributes:
        values: texts by the template's names.
    """

    template: Template
    values: Mapping[str, str]
    images: Sequence[Image.Image] = ()

    async def content(self) -> dict[str, Any]:
        """Everything that a verdict depends on, beside the model; without marks, which differ each time."""
        digests = await asyncio.to_thread(lambda: [pixel_digest(image) for image in self.images])
        return {"rules": RULES, "template": self.template.text, "values": dict(self.values), "images": digests}

    async def urls(self) -> list[str]:
        """The images as they are sent."""
        return await asyncio.to_thread(lambda: [data_url(image) for image in self.images])

    def messages(self, urls: Sequence[str]) -> list[dict[str, Any]]:
        """System and user message of a request, with a new mark around the texts."""
        rules, shown = self.template.render(self.values, new_mark())
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        # Plain text where that is enough: servers for text alone know no list of parts.
        content: Any = [*pictures, {"type": "text", "text": shown}] if pictures else shown
        return [{"role": "system", "content": rules}, {"role": "user", "content": content}]
