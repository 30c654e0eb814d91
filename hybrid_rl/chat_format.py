"""`ChatFormat` on top of a model's own chat template: text to ids and back, in every mode.

Everything that differs between models (the tags of a turn, where a thought goes, what is prefilled) is read from what
the template renders; only the thought tags are named, in `model.thought_tags`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hybrid_rl.config.modes import KindConfig
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.images import open_image
from hybrid_rl.records import Message, Prompt, Response

_KEPT_PROMPT_TEXTS = 1024
"""Prompts often differ in their image alone; rendering the same text again would cost as much as the image."""

Thought = Literal["opened", "closed", "free"]
"""What a mode's prefilled tokens leave: an open think block, a closed (empty) one, or the choice to the model."""


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """What the model reads for a prompt.

    Attributes:
        ids: token ids [P].
        media: every other entry of the processor's output for this one conversation, such as pixels; empty for text.
    """

    ids: tuple[int, ...]
    media: Mapping[str, Any]


class TemplateChatFormat:
    """See `hybrid_rl.protocols.ChatFormat`.

    Args:
        processor: a transformers processor, or a tokenizer for text-only models, with a chat template.
        kinds: the modes by name.
        thought_tags: opening and closing tag of a thought.
        stop_ids: ids that end a response.
    """

    def __init__(
        self,
        processor: Any,
        kinds: Mapping[str, KindConfig],
        thought_tags: Sequence[str],
        stop_ids: tuple[int, ...],
    ) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._kinds = kinds
        self._open, self._close = thought_tags
        self._stop_ids = stop_ids
        self._stop_texts = [self._tokenizer.decode([i], skip_special_tokens=False) for i in stop_ids]
        for mode, kind in kinds.items():
            _check_template_args(mode, kind.template_args, processor, self._tokenizer)
        self._prompt_texts: dict[tuple[tuple[Message, ...], int, str], str] = {}
        self._openings = {mode: self._opening(mode) for mode in kinds}

    # --- prompts -----------------------------------------------------------------------------------------------

    def inputs(self, prompt: Prompt, mode: str) -> PromptInputs:
        """Ids and media of a prompt, through the processor.

        Raises:
            DataError: an image cannot be read, or the prompt does not suit the processor.
        """
        try:
            tensors = {"return_tensors": "pt"} if prompt.images else {}
            output = self._render(self._messages(prompt), mode, tokenize=True, return_dict=True, **tensors)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"prompt {prompt.id} of source {prompt.source}: {error}") from error
        ids = _single(output["input_ids"])
        ids = tuple(int(i) for i in ids) + tuple(self._encode(self._kinds[mode].prefill))
        skip = ("input_ids", "attention_mask", "token_type_ids")
        # The processor answers for a batch of one conversation: a list has one entry a conversation, while a tensor
        # runs over all images of the call, as transformers' own processors have it.
        kept = {k: v for k, v in output.items() if k not in skip} if prompt.images else {}
        media = {k: v[0] if isinstance(v, list) else v for k, v in kept.items()}
        return PromptInputs(ids, media)

    def prompt_ids(self, prompt: Prompt, mode: str) -> tuple[int, ...]:
        return self.inputs(prompt, mode).ids

    def target_ids(
        self, prompt: Prompt, mode: str, thought: str, answer: str
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        prompt_ids = self.prompt_ids(prompt, mode)
        response = self.response_ids(prompt, mode, thought, answer)
        return prompt_ids + response, (False,) * len(prompt_ids) + (True,) * len(response)

    def response_ids(self, prompt: Prompt, mode: str, thought: str, answer: str) -> tuple[int, ...]:
        """The response part of `target_ids`: what the template writes behind the prompt, up to its stop token [L]."""
        turn: dict[str, Any] = {"role": "assistant", "content": answer}
        if thought:
            turn["reasoning_content"] = thought
        messages = self._messages(prompt, with_images=False)
        whole = self._render([*messages, turn], mode, add_generation_prompt=False, tokenize=False)
        opening = self.prompt_text(prompt, mode)
        if not whole.startswith(opening):
            raise DataError(
                f"prompt {prompt.id}: in mode {mode} the chat template writes this answer differently from the "
                f"generation prompt; a thought must begin with the mode's prefill and a mode without thought has none"
            )
        text = whole[len(opening) :]
        stop = min((text.rfind(s) for s in self._stop_texts if s in text), default=len(text))
        return (*self._encode(text[:stop]), self._stop_ids[0])

    def prompt_text(self, prompt: Prompt, mode: str) -> str:
        """The prompt as the template renders it, images as placeholders."""
        key = (prompt.messages, len(prompt.images), mode)
        if key not in self._prompt_texts:
            if len(self._prompt_texts) >= _KEPT_PROMPT_TEXTS:
                self._prompt_texts.clear()
            rendered = self._render(self._messages(prompt, with_images=False), mode, tokenize=False)
            self._prompt_texts[key] = rendered + self._kinds[mode].prefill
        return self._prompt_texts[key]

    # --- responses ---------------------------------------------------------------------------------------------

    def parse(self, ids: Sequence[int], mode: str) -> Response:
        """Split a response into thought and answer.

        The final answer is what follows the last closing tag. An open thought has no answer.
        """
        body = ids[:-1] if ids and ids[-1] in self._stop_ids else ids
        text = self.decode(body)
        turn = self._openings[mode] + text
        start, end = turn.rfind(self._open), turn.rfind(self._close)
        closed = end >= start
        answer = turn[end + len(self._close) :] if end >= 0 else turn
        # In the reconstructed turn every mode has one block, except that a free mode may have none.
        opens, closes = turn.count(self._open), turn.count(self._close)
        thinks = self.thought(mode)
        one_block = opens == closes == 1 and closed
        leaked = not (one_block or (thinks == "free" and opens == closes == 0))
        if opens and thinks != "closed":
            thought = turn[turn.find(self._open) + len(self._open) :].partition(self._close)[0]
        else:
            thought = text.partition(self._close)[0].replace(self._open, "") if self._close in text else ""
        return Response(
            text=text,
            thought=thought.strip(),
            answer=answer.strip() if closed else None,
            closed=closed,
            leaked=leaked,
        )

    def stop_ids(self, mode: str) -> tuple[int, ...]:
        return self._stop_ids

    def thought(self, mode: str) -> Thought:
        """What the mode's prefilled tokens ask for."""
        opening = self._openings[mode]
        start, end = opening.rfind(self._open), opening.rfind(self._close)
        if start < 0 and end < 0:
            return "free"
        return "opened" if start > end else "closed"

    def opening(self, mode: str) -> str:
        """What the prompt puts at the beginning of the assistant's turn."""
        return self._openings[mode]

    def prefilled_text(self, mode: str) -> str:
        """The part of the opening that answers for the model: a think block, open or closed, and the prefill."""
        opening = self._openings[mode]
        places = [opening.find(tag) for tag in (self._open, self._close) if tag in opening]
        return opening[min([*places, len(opening) - len(self._kinds[mode].prefill)]) :]

    def closing_text(self, mode: str) -> str:
        """What the template writes between a thought and its answer: the closing tag and what stands around it."""
        probe = Prompt(id="probe", source="", task="", messages=(Message(role="user", text="x"),), gold="")
        text = self.parse(self.response_ids(probe, mode, self._kinds[mode].prefill + "x", "y"), mode).text
        thought, _, answer = text.rpartition(self._close)
        return thought.rpartition("x")[2] + self._close + answer.partition("y")[0]

    def shortest_response(self, mode: str) -> int:
        """Tokens of the shortest valid response: one character of thought, if asked for, and one of answer."""
        probe = Prompt(id="probe", source="", task="", messages=(Message(role="user", text="x"),), gold="")
        prefill = self._kinds[mode].prefill
        thought = prefill + "x" if self.thought(mode) == "opened" else ""
        return len(self.response_ids(probe, mode, thought, "x"))

    # --- ids and text ------------------------------------------------------------------------------------------

    @property
    def thought_tags(self) -> tuple[str, str]:
        return self._open, self._close

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a piece of text on its own."""
        return tuple(self._encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens kept."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    # --- rendering ---------------------------------------------------------------------------------------------

    def _opening(self, mode: str) -> str:
        """The part of the prompt that belongs to the assistant's turn."""
        conversation = [{"role": "user", "content": "x"}]
        try:
            closed = self._render(conversation, mode, add_generation_prompt=False, tokenize=False)
            opened = self._render(conversation, mode, tokenize=False)
        except Exception as error:  # a template may raise anything; the user's mode arguments are the suspect
            raise ConfigError(
                f"modes.kinds.{mode}: the model's chat template fails with {dict(self._kinds[mode].template_args)}: "
                f"{error}"
            ) from error
        return str(opened[len(closed) :]) + self._kinds[mode].prefill

    def _render(self, messages: list[dict[str, Any]], mode: str, **options: Any) -> Any:
        options = {"add_generation_prompt": True, **options}
        return self._processor.apply_chat_template(messages, **options, **self._kinds[mode].template_args)

    def _messages(self, prompt: Prompt, with_images: bool = True) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        images = list(prompt.images)
        for message in prompt.messages:
            content: Any = message.text
            if images and message.role == "user":
                blocks: list[dict[str, Any]] = [
                    {"type": "image", "image": open_image(ref)} if with_images else {"type": "image"} for ref in images
                ]
                content = [*blocks, {"type": "text", "text": message.text}]
                images = []
            messages.append({"role": message.role, "content": content})
        if images:
            raise DataError(f"prompt {prompt.id} has images but no user turn to put them in")
        return messages

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []


def _check_template_args(mode: str, arguments: Mapping[str, Any], processor: Any, tokenizer: Any) -> None:
    """A chat template ignores what it does not know, so that a misspelt argument would silently select nothing."""
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return
    for name in arguments:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            words = sorted(set(re.findall(r"[A-Za-z_]\w+", template)))
            near = difflib.get_close_matches(name, words, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"modes.kinds.{mode}.template_args: the chat template does not know '{name}'{hint}")


def _single(ids: Any) -> Sequence[int]:
    """One conversation's ids from a processor that may return a batch of one, as lists or as a tensor."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    return ids[0] if ids and isinstance(ids[0], (list, tuple)) else ids
