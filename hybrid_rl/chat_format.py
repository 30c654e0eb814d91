"""`ChatFormat` on top of a model's own chat template: text to ids and back, in every mode.

Everything that differs between models (the tags of a turn, where a thought goes, what is prefilled) is read from what
the template renders; only the thought tags are named, in `model.thought_tags`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_rl.answer_boundary import answer_start
from hybrid_rl.config.modes import KindConfig
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.kept_inputs import KeptInputs
from hybrid_rl.protocols import Thought
from hybrid_rl.records import Message, Prompt, Response
from hybrid_rl.templates import PromptInputs, check_template_args, conversation, single_conversation
from hybrid_rl.videos import Clip, VideoRef, open_video

_KEPT_PROMPT_TEXTS = 1024
"""Prompts often differ in their image alone; rendering the same text again would cost as much as the image."""

_PROBE = Prompt(id="probe", source="", task="", messages=(Message(role="user", text="x"),), gold="")


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
        self._kept = KeptInputs(processor)
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._kinds = kinds
        self._open, self._close = thought_tags
        self._stop_ids = stop_ids
        self._stop_texts = [self._tokenizer.decode([i], skip_special_tokens=False) for i in stop_ids]
        for mode, kind in kinds.items():
            check_template_args(mode, kind.template_args, processor, self._tokenizer)
        self._prompt_texts: dict[tuple[tuple[Message, ...], int, int, str], str] = {}
        self._openings = {mode: self._opening(mode) for mode in kinds}
        self._forced = {mode: self.encode(kind.mode_token) for mode, kind in kinds.items()}
        self._before_answers: dict[str, tuple[int, ...]] = {}

    # --- prompts -----------------------------------------------------------------------------------------------

    def inputs(self, prompt: Prompt, mode: str) -> PromptInputs:
        """Ids and media of a prompt, through the processor.

        Raises:
            DataError: an image or a video cannot be read, or the prompt does not suit the processor.
        """
        if not prompt.has_media:
            return self._make_inputs(prompt, mode)
        return self._kept.get(prompt, self._kinds[mode], lambda: self._make_inputs(prompt, mode))

    def _make_inputs(self, prompt: Prompt, mode: str) -> PromptInputs:
        try:
            tensors = {"return_tensors": "pt"} if prompt.has_media else {}
            output = self._render(conversation(prompt, self.clip), mode, tokenize=True, return_dict=True, **tensors)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"prompt {prompt.id} of source {prompt.source}: {error}") from error
        ids = tuple(map(int, single_conversation(output["input_ids"]))) + self.encode(self._kinds[mode].prefill)
        skip = ("input_ids", "attention_mask", "token_type_ids")
        # The processor answers for a batch of one conversation: a list has one entry a conversation, while a tensor
        # runs over all images of the call, as transformers' own processors have it.
        kept = {k: v for k, v in output.items() if k not in skip} if prompt.has_media else {}
        media = {k: v[0] if isinstance(v, list) else v for k, v in kept.items()}
        return PromptInputs(ids, media)

    def clip(self, ref: VideoRef) -> Clip:
        """A video as the policy's processor reads it; DataError where it takes none, or cannot read this one."""
        return open_video(ref, self._processor)

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
        messages = conversation(prompt, None)
        whole = self._render([*messages, turn], mode, add_generation_prompt=False, tokenize=False)
        opening = self.prompt_text(prompt, mode)
        if not whole.startswith(opening):
            raise DataError(
                f"prompt {prompt.id}: in mode {mode} the chat template writes this answer differently from the "
                f"generation prompt; a thought must begin with the mode's prefill and a mode without thought has none"
            )
        text = self._with_mode_token(whole[len(opening) :], mode, bool(thought))
        stop = min((text.rfind(s) for s in self._stop_texts if s in text), default=len(text))
        return (*self.encode(text[:stop]), self._stop_ids[0])

    def prompt_text(self, prompt: Prompt, mode: str) -> str:
        """The prompt as the template renders it, images and videos as placeholders."""
        key = (prompt.messages, len(prompt.images), len(prompt.videos), mode)
        if key not in self._prompt_texts:
            if len(self._prompt_texts) >= _KEPT_PROMPT_TEXTS:
                self._prompt_texts.clear()
            rendered = self._render(conversation(prompt, None), mode, tokenize=False)
            self._prompt_texts[key] = rendered + self._kinds[mode].prefill
        return self._prompt_texts[key]

    # --- responses ---------------------------------------------------------------------------------------------

    def parse(self, ids: Sequence[int], mode: str) -> Response:
        """Split a response into thought and answer.

        The final answer is what follows the last closing tag. An open thought has no answer. Where the mode leaves the
        choice to the model, and the response begins with the mode token of another, it is read as one of that mode.
        """
        body = ids[:-1] if ids and ids[-1] in self._stop_ids else ids
        text = self.decode(body)
        chosen = self._chosen(text) if self.thought(mode) == "free" else ""
        token = self._kinds[chosen or mode].mode_token
        rest = text.removeprefix(token)
        # A mode token that is no thought tag is no part of the answer either.
        turn = self._openings[mode] + (text if self._tags(token) else rest)
        start, end = turn.rfind(self._open), turn.rfind(self._close)
        closed = end >= start
        answer = turn[end + len(self._close) :] if end >= 0 else rest
        # The turn has one block, or, where none is asked for, none; what the prompt and the mode token hold is given.
        opens, closes = turn.count(self._open), turn.count(self._close)
        thinks = self.thought(chosen or mode)
        one_block = opens == closes == 1 and closed
        leaked = {
            "free": not (one_block or opens == closes == 0),
            "opened": not one_block,
            "closed": self._tags(rest),
        }[thinks]
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
            chosen=chosen,
        )

    def stop_ids(self, mode: str) -> tuple[int, ...]:
        return self._stop_ids

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    # --- where the answer begins -------------------------------------------------------------------------------

    def answer_start(self, ids: Sequence[int], mode: str) -> int | None:
        """See the Protocol; also None where a token holds both the end of the closing tag and some of the answer."""
        body = ids[:-1] if ids and ids[-1] in self._stop_ids else ids
        chosen = (self._chosen(self.decode(body)) if self.thought(mode) == "free" else "") or mode
        token = self._forced[chosen]
        begin = len(token) if tuple(body[: len(token)]) == token else 0
        thinks = self.thought(chosen)
        start = answer_start(body, self.decode, (self._open, self._close), thinking=thinks == "opened")
        # A thought that the mode did not ask for is part of the answer, once it is closed; a mode token never is.
        return start if start is None else begin if thinks == "closed" else max(begin, start)

    def answer_ids(self, prompt: Prompt, mode: str, answer: str) -> tuple[int, ...]:
        """See the Protocol: sampled ids up to `answer_start`, then these, are what the template writes.

        Where an answer shares a token with what stands before it, these are its ids on its own.
        """
        if mode not in self._before_answers:
            ids = self.response_ids(_PROBE, mode, self._shortest_thought(mode), "x")[:-1]
            self._before_answers[mode] = ids[: self.answer_start(ids, mode) or 0]
        before = self._before_answers[mode]
        ids = self.response_ids(prompt, mode, self._shortest_thought(mode), answer)[:-1]
        return ids[len(before) :] if ids[: len(before)] == before else self.encode(answer)

    def no_thought_ids(self, mode: str) -> tuple[int, ...]:
        if self.thought(mode) != "opened":
            return ()
        return self.encode(self._kinds[mode].mode_token + self.closing_text(mode))

    def _shortest_thought(self, mode: str) -> str:
        return "" if self.thought(mode) == "closed" else self._kinds[mode].prefill + "x"

    def thought(self, mode: str) -> Thought:
        """What the mode's prefilled tokens and its mode token ask for."""
        token = self._kinds[mode].mode_token
        beginning = self._openings[mode] + token
        start, end = beginning.rfind(self._open), beginning.rfind(self._close)
        if start < 0 and end < 0:
            return "closed" if token else "free"
        return "opened" if start > end else "closed"

    def prefill(self, mode: str) -> str:
        """The text that the mode puts behind the generation prompt."""
        return self._kinds[mode].prefill

    def forced_ids(self, mode: str) -> tuple[int, ...]:
        """Ids that every response of the mode begins with, its mode token; the engine forces them."""
        return self._forced[mode]

    def opening(self, mode: str) -> str:
        """What the prompt puts at the beginning of the assistant's turn."""
        return self._openings[mode]

    def beginning(self, mode: str) -> str:
        """The opening and the mode token: what a response in the mode finds of its turn."""
        return self._openings[mode] + self._kinds[mode].mode_token

    def closing_text(self, mode: str) -> str:
        """What the template writes between a thought and its answer: the closing tag and what stands around it."""
        ids = self.response_ids(_PROBE, mode, self._kinds[mode].prefill + "x", "y")
        thought, _, answer = self.decode(ids[:-1]).rpartition(self._close)
        return thought.rpartition("x")[2] + self._close + answer.partition("y")[0]

    def _chosen(self, text: str) -> str:
        """The mode whose mode token a text begins with, the longest where several fit; empty where none does."""
        found = [mode for mode, kind in self._kinds.items() if kind.mode_token and text.startswith(kind.mode_token)]
        return max(found, key=lambda mode: len(self._kinds[mode].mode_token), default="")

    def _tags(self, text: str) -> bool:
        return self._open in text or self._close in text

    def _with_mode_token(self, text: str, mode: str, thinks: bool) -> str:
        """The template's text of a response, beginning with the mode token instead of an empty think block.

        A mode that leaves the choice to the model takes the token of the mode that is chosen.
        """
        wanted = "opened" if thinks else "closed"
        others = [k.mode_token for m, k in self._kinds.items() if k.mode_token and self.thought(m) == wanted]
        free = self.thought(mode) == "free"
        token = next(iter(others), "") if free else self._kinds[mode].mode_token
        if not token or (thinks and text.startswith(token)):
            return text
        empty = re.match(rf"{re.escape(self._open)}\s*{re.escape(self._close)}\s*", text)
        return token + (text[empty.end() :] if empty else text)

    def shortest_response(self, mode: str) -> int:
        """Tokens of the shortest valid response: one character of thought, if asked for, and one of answer."""
        thought = self._shortest_thought(mode) if self.thought(mode) == "opened" else ""
        return len(self.response_ids(_PROBE, mode, thought, "x"))

    def shortest_response_at(self, mode: str, max_think_tokens: int) -> int:
        """Tokens of the shortest response that uses its thinking budget: mode token, thought, answer, stop token."""
        return len(self._forced[mode]) + max_think_tokens + len(self.encode(self.closing_text(mode))) + 2

    # --- ids and text ------------------------------------------------------------------------------------------

    @property
    def thought_tags(self) -> tuple[str, str]:
        return self._open, self._close

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a piece of text on its own."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False)) if text else ()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens kept."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _opening(self, mode: str) -> str:
        """The part of the prompt that belongs to the assistant's turn."""
        question = [{"role": "user", "content": "x"}]
        try:
            closed = self._render(question, mode, add_generation_prompt=False, tokenize=False)
            opened = self._render(question, mode, tokenize=False)
        except Exception as error:  # a template may raise anything; the user's mode arguments are the suspect
            raise ConfigError(
                f"modes.kinds.{mode}: the model's chat template fails with {dict(self._kinds[mode].template_args)}: "
                f"{error}"
            ) from error
        return str(opened[len(closed) :]) + self._kinds[mode].prefill

    def _render(self, messages: list[dict[str, Any]], mode: str, **options: Any) -> Any:
        options = {"add_generation_prompt": True, **options}
        return self._processor.apply_chat_template(messages, **options, **self._kinds[mode].template_args)
