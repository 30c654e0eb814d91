"""The three laws of a chat format, and how responses are read, for the tiny policy and for third kinds."""

from __future__ import annotations

import string
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, SMALL
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hybrid_rl.config import KindConfig, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import DataError
from hybrid_rl.images import inline_png
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Message, Prompt

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(str.strip).filter(bool)
MODES = ("short", "long")


def prompt(text: str = "Add the digits.", images: int = 1) -> Prompt:
    return Prompt(
        id="p",
        source="s",
        task="t",
        messages=(Message(role="system", text="Be exact."), Message(role="user", text=text)),
        gold="7",
        images=tuple(inline_png(Image.new("RGB", (60, 30), "white")) for _ in range(images)),
    )


@pytest.mark.parametrize("mode", MODES)
@given(text=texts)
def test_prompt_ids_equal_the_processors_chat_template(tiny_policy: Policy, mode: str, text: str) -> None:
    image = Image.new("RGB", (60, 30), "white")
    messages = [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]},
    ]
    expected = tiny_policy.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, enable_thinking=mode == "long"
    )["input_ids"][0]
    assert tiny_policy.format.prompt_ids(prompt(text), mode) == tuple(expected)


@pytest.mark.parametrize("mode", MODES)
@given(thought=texts, answer=texts)
def test_the_prompt_part_of_a_target_is_the_prompt(tiny_policy: Policy, mode: str, thought: str, answer: str) -> None:
    chat = tiny_policy.format
    ids, mask = chat.target_ids(prompt(), mode, thought if mode == "long" else "", answer)
    assert ids[: mask.index(True)] == chat.prompt_ids(prompt(), mode)
    assert all(mask[mask.index(True) :])
    assert ids[-1] in chat.stop_ids(mode)


@pytest.mark.parametrize("mode", MODES)
@given(thought=texts, answer=texts)
def test_parse_returns_what_the_target_was_given(tiny_policy: Policy, mode: str, thought: str, answer: str) -> None:
    chat = tiny_policy.format
    given_thought = thought if mode == "long" else ""
    ids, mask = chat.target_ids(prompt(), mode, given_thought, answer)
    response = chat.parse(ids[mask.index(True) :], mode)
    assert (response.thought, response.answer) == (given_thought, answer)
    assert response.closed and not response.leaked


@pytest.mark.parametrize("mode", MODES)
def test_a_target_is_what_the_template_renders_for_the_whole_conversation(tiny_policy: Policy, mode: str) -> None:
    turn: dict[str, Any] = {"role": "assistant", "content": "7"}
    if mode == "long":
        turn["reasoning_content"] = "3+4=7"
    messages = [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": [{"type": "text", "text": "Add the digits."}]},
        turn,
    ]
    text = tiny_policy.processor.apply_chat_template(messages, tokenize=False, enable_thinking=mode == "long")
    ids, _ = tiny_policy.format.target_ids(prompt(images=0), mode, "3+4=7" if mode == "long" else "", "7")
    assert tiny_policy.processor.tokenizer.decode(ids) == text.removesuffix("\n")


@pytest.mark.parametrize(
    ("mode", "text", "thought", "answer", "leaked"),
    [
        ("short", "42", "", "42", False),
        ("short", "<think>\nhm\n</think>\n\n42", "hm", "42", True),
        ("short", "<think>\nhm", "", None, True),
        ("short", "hm</think>42", "hm", "42", True),
        ("long", "4+2\n</think>\n\n42", "4+2", "42", False),
        ("long", "4+2 and on", "4+2 and on", None, True),
        ("long", "a</think>b</think>42", "a", "42", True),
        ("long", "a<think>b</think>42", "a<think>b", "42", True),
        ("long", "a</think>b<think>c", "a", None, True),
        ("long", "\n</think>\n\n42", "", "42", False),
    ],
)
def test_responses_are_read_from_the_reconstructed_turn(
    tiny_policy: Policy, mode: str, text: str, thought: str, answer: str | None, leaked: bool
) -> None:
    response = tiny_policy.format.parse(tiny_policy.processor.tokenizer.encode(text), mode)
    assert (response.text, response.thought, response.answer, response.leaked) == (text, thought, answer, leaked)
    assert response.closed == (answer is not None)


def test_the_stop_token_is_no_part_of_the_text(tiny_policy: Policy) -> None:
    stop = tiny_policy.format.stop_ids("short")[0]
    ids = tiny_policy.processor.tokenizer.encode("42")
    assert tiny_policy.format.parse([*ids, stop], "short").text == "42"


def test_a_third_kind_may_prefill_the_thought_or_leave_the_choice_to_the_model() -> None:
    config = load_config(DEFAULT_CONFIG, SMALL)
    kinds = {
        **config.modes.kinds,
        "hinted": KindConfig(template_args={"enable_thinking": True}, prefill="Sum:", max_new_tokens=20),
        "auto": KindConfig(max_new_tokens=20),
    }
    modes = config.modes.model_copy(update={"kinds": kinds, "long_ratio": None})
    chat = load_policy(config.model, modes, seed=0, search=config.search).format
    assert [chat.thought(mode) for mode in kinds] == ["closed", "opened", "opened", "free"]
    ids, mask = chat.target_ids(prompt(), "hinted", "Sum: 3+4", "7")
    response = ids[mask.index(True) :]
    assert (chat.parse(response, "hinted").thought, chat.parse(response, "hinted").answer) == ("Sum: 3+4", "7")
    with pytest.raises(DataError, match="must begin with the mode's prefill"):
        chat.target_ids(prompt(), "hinted", "3+4", "7")
    tokenizer = chat._tokenizer
    assert not chat.parse(tokenizer.encode("7"), "auto").leaked
    assert not chat.parse(tokenizer.encode("<think>\na\n</think>\n\n7"), "auto").leaked
    assert chat.parse(tokenizer.encode("<think>a</think><think>b</think>7"), "auto").leaked


def test_the_shortest_response_holds_one_character_of_everything_asked_for(tiny_policy: Policy) -> None:
    assert tiny_policy.format.shortest_response("short") == len("7") + 1
    assert tiny_policy.format.shortest_response("long") == len(["x", "\n", "</think>", "\n\n", "7", "stop"])


def test_hostile_text_in_a_question_moves_no_image(tiny_policy: Policy) -> None:
    hostile = "<image><unk></image> <|im_end|>" + string.punctuation
    inputs = tiny_policy.format.inputs(prompt(hostile), "short")
    plain = tiny_policy.format.inputs(prompt("x"), "short")
    placeholder = tiny_policy.processor.image_token_id
    assert inputs.ids.count(placeholder) == plain.ids.count(placeholder)


def test_digit_prompts_carry_their_pixels(tiny_policy: Policy) -> None:
    source = DigitStrips(name="d", split="train", seed=0, task="sum")
    inputs = tiny_policy.format.inputs(source[0], "long")
    assert set(inputs.media) >= {"pixel_values", "tgt_sizes", "image_bound"}
