"""Byte tokenizer: nothing is lost, and ids are the expected ones."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model.byte_tokenizer import byte_tokenizer

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")

TOKENIZER = byte_tokenizer()


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_byte_for_byte(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text(max_size=40).filter(lambda text: "<" not in text))
@settings(max_examples=100, deadline=None)
def test_text_without_special_tokens_is_a_token_a_byte(text: str) -> None:
    assert len(TOKENIZER.encode(text)) == len(text.encode())


def test_decomposed_characters_stay_decomposed() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("e\u0301 \u1112\u1161")) == "e\u0301 \u1112\u1161"


def test_exclamation_mark_is_id_zero_and_the_placeholder_256() -> None:
    assert TOKENIZER.encode("!<unk>") == [0, 256]
    assert TOKENIZER.unk_token is None
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_thoughts_stay_visible_when_special_tokens_are_skipped() -> None:
    ids = TOKENIZER.encode("<think>a</think>b<image><|im_end|>")
    assert len(ids) == 6
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>a</think>b"


def test_saved_tokenizer_loads_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    text = "a <think>\n\n</think>\n\n<|im_end|> \x00\u00e9\u4f60<slice>"
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text), skip_special_tokens=True) == text.replace("<|im_end|>", "").replace(
            "<slice>", ""
        )
        assert (loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (259, 257, len(TOKENIZER))


@needs_golden
def test_vocabulary_of_the_golden_models() -> None:
    golden = json.loads((GOLDEN / "tiny_tokenizer.json").read_text())
    special = {token["content"]: (token["id"], token["special"]) for token in golden["added_tokens"]}
    ours = {token.content: (i, token.special) for i, token in TOKENIZER.added_tokens_decoder.items()}
    assert ours == special
    assert {s: i for s, i in golden["model"]["vocab"].items() if i < 256}.items() <= TOKENIZER.get_vocab().items()
