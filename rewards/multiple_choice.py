"""Multiple choice: which options does an answer pick?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import FULL_WIDTH, as_text, tagged
from rewards.option_labels import LabelReader, option_labels
from rewards.text_match import normal

# What introduces a choice; the last one that is followed by labels wins.
_MARKER = re.compile(
    r"\\boxed\s?\{|\b(?:answer|option|choice)s?\b[\"'*_\s]{0,6}(?::|=|\b(?:is|are|would be|should be|must be)\b)?"
    r"|\b(?:it's|it is|choose|pick|select|chose|go with|final|so|therefore|thus|hence)\b(?:,|:|\s+it\s+is\b|\s+it's\b)?"
    r"|答案(?:是|为|应该是|应为|选)?|(?:应选|故选|因此选|所以选|选择|选项|选)",
    re.IGNORECASE,
)
_STRONG = re.compile(r"boxed|answer|答案|故选|应选", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|textbf|mathbf|mathrm|mathit|bf|rm)\b\s?\{?|[*_`$\"]|\\[()\[\]]|</?[a-zA-Z]{1,12}>")
_MAX_GOLD = 2000  # characters; no option is longer
_MAX_MARKERS = 40  # from the end of a text; each costs a search for the options' texts


@blames_reference
def multiple_choice(answer: str, gold: Any, choices: Sequence[str] | None = None) -> float | None:
    """1 if the answer picks the options of the reference and no others, else 0.

    Args:
        answer: free text. The last marker (`Answer: B`, a box, `the answer is (B)`) that names labels wins; without
            one, an answer that starts with a label, or names just one, or just one option's text. The article "A" and
            the pronoun "I" are no labels.
        gold: a label (`B`), several (`AC`, `A, C` or a list), or the text of an option.
        choices: the labels, or the options' texts (labelled A, B, C ...). Without it the labels are A to J.

    Returns:
        None where the reference names no option.
    """
    labels, texts = option_labels(choices)
    reader = LabelReader(labels)
    wanted = _gold(gold, reader, texts)
    if not wanted:
        return None
    return float(_picked(tagged(as_text(answer)), reader, texts) == wanted)


def _gold(gold: Any, reader: LabelReader, texts: dict[str, str]) -> frozenset[str] | None:
    parts = gold if isinstance(gold, list) else [gold]
    picked: set[str] = set()
    for part in parts:
        if len(as_text(part)) > _MAX_GOLD:
            return None
        text = _plain(as_text(part))
        by_text = {label for label, option in texts.items() if normal(option) == normal(as_text(part))}
        found = reader.whole(text) or (frozenset(by_text) if len(by_text) == 1 else None)
        if found is None:
            return None
        picked |= found
    return frozenset(picked)


def _picked(answer: str, reader: LabelReader, texts: dict[str, str]) -> frozenset[str] | None:
    text = _plain(answer)
    whole = reader.whole(text)
    if whole is not None:
        return whole
    by_text = _by_text(answer, texts)
    marked = _marked(text, reader, texts)
    if marked is not None:
        return marked
    leading = reader.leading(text)
    if leading is not None:
        return leading
    if by_text is not None:
        return by_text
    named = reader.named(text)
    return named if named is not None and len(named) == 1 else None


def _marked(text: str, reader: LabelReader, texts: dict[str, str]) -> frozenset[str] | None:
    """The labels, or the option's text, behind the last strong marker that has some, else behind the last weak one."""
    weak = None
    for marker in list(_MARKER.finditer(text))[: -_MAX_MARKERS - 1 : -1]:
        rest = text[marker.end() : marker.end() + 300]
        line = rest.lstrip().partition("\n")[0]
        found = reader.behind_marker(rest)
        if found is None and texts and marker.group().rstrip()[-1:] in (":", "{", "=", "s"):
            found = _by_text(line.partition("}")[0], texts, whole=True)
        if found is None:
            continue
        if _STRONG.search(marker.group()):
            return found
        weak = found if weak is None else weak
    return weak


def _by_text(answer: str, texts: dict[str, str], *, whole: bool = False) -> frozenset[str] | None:
    """The one option whose words are in the answer, or that has all the words of the answer."""
    words = f" {normal(answer)} "
    if not words.strip():
        return None
    options = {label: f" {normal(option)} " for label, option in texts.items() if normal(option)}
    found = {label for label, option in options.items() if option == words}
    if not found and not whole:
        found = {label for label, option in options.items() if option in words}
        # Of `sun` and `sun and moon` in one answer the longer is meant.
        found = {a for a in found if not any(a != b and options[a] in options[b] for b in found)}
    if not found and len(words) <= 200:
        found = {label for label, option in options.items() if words in option}
    return frozenset(found) if len(found) == 1 else None


def _plain(text: str) -> str:
    return _MARKUP.sub(lambda found: " " if found.group().startswith("<") else "", text.translate(FULL_WIDTH)).strip()
