"""The length that a mode's prompt asks for (L1, arXiv 2503.04697, section 3): a sentence behind the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hybrid_rl.config.modes import KindConfig
from hybrid_rl.errors import DataError
from hybrid_rl.records import Prompt, stable_seed

COLUMN = "target_length"
"""Under this name rewards get the length, in tokens; None in modes that ask for none."""


def with_target(prompt: Prompt, mode: str, kinds: Mapping[str, KindConfig]) -> Prompt:
    """The prompt as it is put in a mode; itself where no mode asks for a length.

    A length of the row's own comes first. One that is drawn depends on the prompt and the mode alone, so that every
    response, evaluation and resumed run is asked for the same.

    Raises:
        DataError: the row's own length is no whole number above 0, or there is no user turn to write one behind.
    """
    if all(kind.target_length is None for kind in kinds.values()):
        return prompt
    kind = kinds[mode]
    length = _length(prompt, mode, kind)
    columns = {**prompt.columns, COLUMN: length}
    if length is None:
        return replace(prompt, columns=columns)
    last = max((place for place, message in enumerate(prompt.messages) if message.role == "user"), default=None)
    if last is None:
        raise DataError(
            f"prompt {prompt.id} of source {prompt.source} has no user turn for the length that mode {mode} asks for; "
            f"add one, or remove modes.kinds.{mode}.target_length"
        )
    asked = replace(
        prompt.messages[last], text=f"{prompt.messages[last].text}\n{kind.target_text.format(target_length=length)}"
    )
    return replace(prompt, messages=(*prompt.messages[:last], asked, *prompt.messages[last + 1 :]), columns=columns)


def _length(prompt: Prompt, mode: str, kind: KindConfig) -> int | None:
    low, high = kind.target_length, kind.target_length_to
    if low is None:
        return None
    own = prompt.columns.get(COLUMN)
    if own is not None:
        # A table with gaps stores whole numbers as floats.
        if isinstance(own, bool) or not isinstance(own, int | float) or own < 1 or own % 1:
            raise DataError(
                f"prompt {prompt.id} of source {prompt.source}: `{COLUMN}` must be a whole number above 0, not "
                f"{own!r:.60}; correct it, or leave it out for that of mode {mode}"
            )
        return int(own)
    return low if high is None else low + stable_seed(COLUMN, prompt.source, prompt.id, mode) % (high - low + 1)
