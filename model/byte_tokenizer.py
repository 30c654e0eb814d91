"""A tokenizer of 256 bytes and the released special tokens, built in code.

Small models need no learned merges: every byte is a token, nothing is unknown, and any text comes back exactly. A few
whole words may be tokens too, which shortens the prompts that a small model reads over and over. The special tokens
carry the released names, so prompts have the released form; only their ids differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .chat_template import CHAT_TEMPLATE

PLACEHOLDER = "<unk>"
"""Stands for image features; named as in the released vocabulary, where it is nothing unknown either."""

# In the order of their ids, from 256 on. Plain ones stay visible when special tokens are skipped.
_PAIRED = ("image", "ref", "box", "quad", "point", "slice", "image_id", "unit")
_VISION = ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end", "vision_start")
_PAD = ("vision_end", "vision_pad", "image_pad", "video_pad")
_PRINTABLE = (*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1))
_PLAIN_CODE = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")


def _pipes(names: tuple[str, ...]) -> list[str]:
    return [f"<|{name}|>" for name in names]


def _tags(names: tuple[str, ...]) -> list[str]:
    return [tag for name in names for tag in (f"<{name}>", f"</{name}>")]


def _added_tokens() -> list[AddedToken]:
    """All tokens beyond the bytes, in the order of their ids."""
    special = [PLACEHOLDER, *_pipes(("endoftext", "im_start", "im_end", *_VISION, *_PAD))]
    plain = [*_tags(("tool_call",)), *_pipes(_PLAIN_CODE), *_tags(("tool_response", "think"))]
    return [
        *(AddedToken(text, special=True, normalized=False) for text in special),
        *(AddedToken(text, special=False, normalized=False) for text in plain),
        *(AddedToken(text, special=True, normalized=False) for text in _tags(_PAIRED)),
    ]


def _byte_vocabulary() -> dict[str, int]:
    """Byte symbols to ids: printable bytes first and in order, so "!" is 0 as in the released vocabulary."""
    # Bytes that cannot be printed borrow the characters from 256 on (GPT-2's byte alphabet).
    symbols = [chr(byte) for byte in _PRINTABLE] + [chr(256 + i) for i in range(256 - len(_PRINTABLE))]
    return {symbol: i for i, symbol in enumerate(symbols)}


def _byte_order() -> list[int]:
    """The bytes in the order of their ids."""
    return [*_PRINTABLE, *(byte for byte in range(256) if byte not in set(_PRINTABLE))]


def _merges(words: Sequence[str], symbols: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that build each word from its front, in the byte alphabet."""
    table = {byte: symbols[i] for i, byte in enumerate(_byte_order())}
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        spelled = [table[byte] for byte in word.encode()]
        for end in range(1, len(spelled)):
            merges["".join(spelled[:end]), spelled[end]] = None
    return list(merges)


def byte_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Build the tokenizer.

    Args:
        words: character sequences that become tokens, their beginnings included, with ids between the bytes and the
            special tokens.

    Text is not normalised: the released tokenizer composes characters (NFC), which would change decomposed text on a
    round trip, and the published encodings do not depend on it.
    """
    vocabulary = _byte_vocabulary()
    merges = _merges(words, list(vocabulary))
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokens = _added_tokens()
    core.add_tokens(tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[token.content for token in tokens if token.special],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
