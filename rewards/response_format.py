"""Formats of a whole response, as published recipes ask for them. `mode_format` is the one for training by mode."""

from __future__ import annotations

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_think(text: str) -> float:
    """1 for one opening tag, at the very start, and a closing one behind it (TRL's think format), else 0."""
    return float(text.startswith("<think>") and text.count("<think>") == 1 and "</think>" in text)


def format_strict_think(text: str) -> float:
    """1 for one thought at the start, one closing tag, and something to read behind it, else 0."""
    if not text.lstrip().startswith("<think>") or text.count("<think>") != 1 or text.count("</think>") != 1:
        return 0.0
    return float(bool(text.partition("</think>")[2].strip()))


def format_think_answer(text: str) -> float:
    """1 for `<think>...</think>`, blanks, `<answer>...</answer>` and nothing else (open-r1), else 0."""
    text = text.strip()
    places = [text.find(tag) for tag in _TAGS]
    if any(text.count(tag) != 1 for tag in _TAGS) or places != sorted(places):
        return 0.0
    between = text[places[1] + len(_TAGS[1]) : places[2]]
    return float(places[0] == 0 and not between.strip() and text.endswith(_TAGS[3]))


def format_tag_count(text: str) -> float:
    """A quarter for each of the four tags that occurs exactly once (open-r1)."""
    return sum(text.count(tag) == 1 for tag in _TAGS) / 4


def format_nemo(text: str) -> float:
    """0.25 for a closed thought and 0.75 for a closed answer tag, anywhere (NeMo-RL)."""
    return 0.25 * _encloses(text, "<think>", "</think>") + 0.75 * _encloses(text, "<answer>", "</answer>")


def _encloses(text: str, start: str, end: str) -> bool:
    first = text.find(start)
    return first >= 0 and text.find(end, first + len(start)) >= 0
