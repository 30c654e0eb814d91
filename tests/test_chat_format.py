"""The three laws of a chat format, and how responses are read, for the tiny policy and for third kinds."""

from __future__ import annotations

import string
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, SMALL
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hybrid_rl.answer_boundary import answer_start
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


# --- where the answer begins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@given(thought=texts, answer=texts)
def test_what_precedes_the_answer_and_the_answers_ids_are_what_the_template_writes(
    tiny_policy: Policy, mode: str, thought: str, answer: str
) -> None:
    chat = tiny_policy.format
    written = chat.response_ids(prompt(), mode, thought if mode == "long" else "", answer)
    start = chat.answer_start(written, mode)
    assert start is not None
    assert (*written[:start], *chat.answer_ids(prompt(), mode, answer)) == written[:-1]
    sampled = chat.response_ids(prompt(), mode, thought if mode == "long" else "", "some other answer")
    assert sampled[: chat.answer_start(sampled, mode)] == written[:start]


@pytest.mark.parametrize(
    ("mode", "text", "before"),
    [
        ("short", "42", ""),
        ("short", "a</think>42", ""),  # an unasked thought earns nothing
        ("short", "<think>\nhm", None),
        ("long", "4+2\n</think>\n\n42", "4+2\n</think>\n\n"),
        ("long", "4+2\n</think>42", "4+2\n</think>"),
        ("long", "a</think>b</think>\n42", "a</think>b</think>\n"),
        ("long", "4+2\n</think>\n\n", "4+2\n</think>\n\n"),
        ("long", "4+2 and on", None),
        ("long", "a</think>b<think>c", None),
    ],
)
def test_an_answer_begins_behind_the_last_closed_thought(
    tiny_policy: Policy, mode: str, text: str, before: str | None
) -> None:
    tokenizer, chat = tiny_policy.processor.tokenizer, tiny_policy.format
    ids = tokenizer.encode(text)
    for sampled in (ids, [*ids, chat.stop_ids(mode)[0]]):
        start = chat.answer_start(sampled, mode)
        assert (None if start is None else tokenizer.decode(sampled[:start])) == before
        assert (start is None) == (chat.parse(sampled, mode).answer is None)


def test_no_thought_is_an_empty_block_or_nothing(tiny_policy: Policy) -> None:
    chat = tiny_policy.format
    assert chat.no_thought_ids("short") == ()
    bare = (*chat.prompt_ids(prompt(), "long"), *chat.no_thought_ids("long"))
    decode = tiny_policy.processor.tokenizer.decode
    assert decode(bare) == decode(chat.prompt_ids(prompt(), "short"))
    assert chat.modes == MODES


def test_with_the_choice_left_to_the_model_the_answer_begins_where_it_does() -> None:
    config = load_config(DEFAULT_CONFIG, SMALL)
    modes = config.modes.model_copy(update={"kinds": {"auto": KindConfig(max_new_tokens=20)}, "long_ratio": None})
    chat = load_policy(config.model, modes, seed=0, search=config.search).format
    tokenizer = chat._tokenizer
    assert chat.parse(tokenizer.encode("7"), "auto").answer == "7"
    assert chat.answer_start(tokenizer.encode("7"), "auto") == 0
    thinking = tokenizer.encode("<think>\na\n</think>\n\n7")
    assert chat.answer_start(thinking, "auto") == len(thinking) - 1
    assert chat.answer_ids(prompt(), "auto", "7") == tuple(tokenizer.encode("7"))
    assert chat.no_thought_ids("auto") == ()


PIECES = ["a", "</", "think", ">", ">\n\n", ">1", "\n\n", "\n", " 12", "12", "<think>"]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a", "</", "think", ">", "\n\n", "12"], 5),
        (["a", "</", "think", ">\n\n", "12"], 4),  # the tag's last piece brings the blanks
        (["a", "</", "think", ">", "\n\n", "\n", "12"], 6),
        (["a", "</", "think", ">", " 12"], 4),  # a blank that is part of the answer's token
        (["a", "</", "think", ">1", "12"], None),  # no edge between tag and answer
        (["a", "</", "think", ">", "\n"], 5),
        (["a", "</", "think"], None),
        (["a", "</", "think", ">", "<think>", "a"], None),
    ],
)
def test_closing_tags_in_pieces(pieces: list[str], expected: int | None) -> None:
    def decode(ids: Any) -> str:
        return "".join(PIECES[i] for i in ids)

    ids = [PIECES.index(piece) for piece in pieces]
    assert answer_start(ids, decode, ("<think>", "</think>"), thinking=True) == expected
