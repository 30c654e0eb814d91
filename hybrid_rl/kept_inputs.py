"""What a processor made of a prompt with media, kept by content: rollout, reference and update ask for the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from hybrid_rl.config.modes import KindConfig
from hybrid_rl.images import image_digest
from hybrid_rl.kept_media import MEDIA
from hybrid_rl.records import Prompt
from hybrid_rl.templates import PromptInputs


class KeptInputs:
    """The inputs of one processor. Another one of equal content, such as another worker's, shares them."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._digest: bytes | None = None

    def get(self, prompt: Prompt, kind: KindConfig, make: Callable[[], PromptInputs]) -> PromptInputs:
        """The inputs of a prompt with media in a mode; these are decoded only if they are not known."""
        if self._digest is None:
            self._digest = processor_digest(self._processor)
        mode = (repr(dict(kind.template_args)), kind.prefill)
        shown = (*map(image_digest, prompt.images), "videos", *(video.digest() for video in prompt.videos))
        key = ("inputs", self._digest, *mode, prompt.messages, shown)
        return MEDIA.get(key, lambda: _for_everyone(make))


def _for_everyone(make: Callable[[], PromptInputs]) -> PromptInputs:
    """What sampling makes, where tensors are marked as never trained on, is used by the update too."""
    import torch

    with torch.inference_mode(False):
        return make()


def processor_digest(processor: Any) -> bytes:
    """Equal for processors of equal settings, vocabulary and chat template; of its own where they cannot be told."""
    tokenizer = getattr(processor, "tokenizer", processor)
    try:
        settings = json.dumps(processor.to_dict(), sort_keys=True, default=repr)
        vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    except (AttributeError, TypeError, ValueError):
        settings, vocabulary = f"{id(processor)}", ""
    templates = (getattr(processor, "chat_template", None), getattr(tokenizer, "chat_template", None))
    whole = repr((type(processor).__qualname__, settings, vocabulary, templates))
    return hashlib.blake2b(whole.encode(), digest_size=16).digest()
