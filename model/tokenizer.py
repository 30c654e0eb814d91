"""The tokenizer of released checkpoints."""

from __future__ import annotations

from transformers import Qwen2Tokenizer


class MiniCPMVTokenizer(Qwen2Tokenizer):
    """Byte-level BPE of Qwen2 with the markers of MiniCPM-V.

    Released folders name a class of this name that would come with code of its own. That code only adds shorthands for
    the ids of the markers, which `MiniCPMVProcessor` knows, so the class here reads the same files: `vocab.json` and
    `merges.txt`, or a `tokenizer.json`, whose own pipeline is kept (4.0 has a Llama one).
    """


class MiniCPMOTokenizer(MiniCPMVTokenizer):
    """The same under the name that the omni models use."""
