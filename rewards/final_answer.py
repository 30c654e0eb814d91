"""The final answer in a response, found in one place for every reward.

A thought is not part of it: what stands in an unclosed or cut-off think block is no answer. After it, in this order:
the last `<answer>` tag, the last box, the last announced answer ("the answer is", "Answer:"), the text itself where it
is nothing but an answer, else the last value of the last sentence that has one.
"""

from __future__ import annotations

import re

from rewards.code_fence import shown
from rewards.math_reading.compare import can_be_read
from rewards.math_reading.limits import MAX_RESPONSE

_THINK_TAG = re.compile(r"<\s*(/?)\s*think(?:ing)?\s*>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.IGNORECASE | re.DOTALL)
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</s>|<eos>|<end_of_turn>")
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_ANY_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
_SEPARATOR = re.compile(r"\\q?quad|\\text|\\mathrm|\\[()\[\],;: ]|\b(?:and|or)\b|[\s,;${}()\[\].]")
_MAX_BOXES = 64
_LONGEST_BARE = 400
_TAIL = 20_000  # characters at the end that prose is searched in


def after_thought(text: str) -> str | None:
    """What follows the last closed think block; None where a block is open at the end."""
    end, is_open = 0, False
    for tag in _THINK_TAG.finditer(text):
        is_open = not tag[1]
        end = tag.end()
    return None if is_open else text[end:]


def without_special_tokens(text: str) -> str:
    """Up to the first special token that ends a turn; those at the start are dropped."""
    while (match := _SPECIAL.match(text.lstrip())) and match:
        text = text.lstrip()[match.end() :]
    match = _SPECIAL.search(text)
    return (text[: match.start()] if match else text).strip()


def boxes(text: str) -> list[tuple[str, int, int]]:
    """Contents of all complete outermost boxes, with where they start and end."""
    found: list[tuple[str, int, int]] = []
    at = 0
    while match := _BOX.search(text, at):
        end = _closing(text, match.end())
        if end is None:
            break
        found.append((text[match.end() : end], match.start(), end + 1))
        at = end + 1
    return found


def _closing(text: str, at: int) -> int | None:
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, at):
        if brace[0] in "{}":
            depth += 1 if brace[0] == "{" else -1
            if not depth:
                return brace.start()
    return None


def unboxed(text: str) -> str:
    """The content where the whole text is one box (or a box in dollars), however often; else the text."""
    while True:
        bare = text.strip().strip("$").strip()
        found = boxes(bare)
        if len(found) != 1 or bare[: found[0][1]].strip() or bare[found[0][2] :].strip(" .$"):
            return text.strip()
        text = found[0][0]


def box_run(text: str) -> str | None:
    """The last boxes as one list, where nothing but separators and "and" stands between them; None for a single one."""
    found = boxes((_response(text) or "")[-_TAIL:])[-_MAX_BOXES:]
    text = (_response(text) or "")[-_TAIL:]
    run: list[str] = []
    for at in range(len(found) - 1, -1, -1):
        if run and _SEPARATOR.sub("", text[found[at][2] : found[at + 1][1]]):
            break
        content = unboxed(found[at][0])
        if content not in run:
            run.insert(0, content)
    return ", ".join(run) if len(run) > 1 else None


def boxed_answer(text: str) -> str | None:
    """The content of the last box after the thought; None where there is none, or where the last is not closed."""
    rest = _response(text)
    if rest is None:
        return None
    rest = rest[-_TAIL * 5 :]
    found = boxes(rest)
    if not found or _ANY_BOX.search(rest, found[-1][2]):
        return None
    return unboxed(found[-1][0]) or None


def _response(text: str) -> str | None:
    if len(text) > MAX_RESPONSE:
        return None
    rest = after_thought(text)
    return None if rest is None else without_special_tokens(rest)


_ANNOUNCED = re.compile(
    r"(?:(?:final\s+|correct\s+)?answer|result|value|solution|réponse|respuesta|resposta|risposta|antwort|lösung|ответ|"
    r"답|答案|结果|結果|答え|答)\s*(?:\*\*)?\s*"
    r"(?:(?:(?:is|are|equals|est|es|ist|é|è|será|=)(?![^\W\d_])|[:：]|为|為|是|应该是|は)\s*(?:\*\*)?\s*)+|\banswer\b\s*(?=\$|\\\(|\\\[|\n)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^[#* ]*(?:final\s+)?answer[*: ]*$", re.IGNORECASE | re.MULTILINE)
_CONNECTIVE = re.compile(
    r"\s*(?:,\s*)?\b(?:because|since|as|which|so|for|when|where|exactly|after|by|if|given|but|due|based|that|and\s+(?:the|this)|in\s+total)\b.*",
    re.DOTALL | re.IGNORECASE,
)
_FILLER = re.compile(
    r"^(?:\s|:|：|\*\*|=|the\s+final\s+answer\s+is|exactly|approximately|about|around|equal\s+to|simply|just|thus|therefore)+",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\d\s])|[。！？।؟\n]+")
_MATH = re.compile(r"\$\$(.{1,999}?)\$\$|\$([^$\n]{1,999}?)\$|\\\((.{1,999}?)\\\)|\\\[(.{1,999}?)\\\]", re.DOTALL)
_BOLD = re.compile(r"\*\*([^*\n]{1,200}?)\*\*")
_NUMBER = (
    r"[-+−]?\s?[$€£]?(?:\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}|(?:\d[\d,' ]*\d|\d)(?:\.\d+)?(?:\s?/\s?\d+)?|\.\d+|[½⅓⅔¼¾])"
    r"(?:\s?(?:π|\\pi(?![A-Za-z])))?"
)
_VALUE = re.compile(
    rf"(?<![\w.^({{+*/-])(?:\(\s*)?({_NUMBER}(?:\s?\\?%)?)(?![\w^²³!(]|\.\d)|(?<=[^\W\da-zA-Z_])({_NUMBER})", re.ASCII
)
_VERB = re.compile(r"(?:\b(?:is|are|equals|est|es|be|to|of|total)\b|[=：为是は]|(?<!\d):|:(?!\d)|≈|\\approx)\s*")
_DENIED = re.compile(
    r"\b(?:not|isn't|never|no|neither|nor|cannot|wrong|incorrect|other\s+than|except|(?:any|every)thing\s+but|all\s+but)\W+(?:\w+\W+)?$",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"\b(?:(?:less|more|greater|fewer|larger|smaller) than|between|between .{1,40} and)\s*\$?$", re.IGNORECASE
)
_REJECTED = re.compile(r"\W*(?:is|are|was|seems)\s+(?:not|wrong|incorrect|false)\b", re.IGNORECASE)
_HOPE = re.compile(r"\bI hope (?:it|this) is correct\.?", re.IGNORECASE)


def final_answer(text: str) -> str | None:
    """The final answer as written (LaTeX kept, box and tags taken off), or None where there is none."""
    rest = _response(text)
    if not rest:
        return None
    tags = _ANSWER_TAG.findall(rest[-_TAIL * 50 :])
    if tags:
        inner = tags[-1].strip()
        found = boxes(inner)
        return (unboxed(found[-1][0]) if found else inner) or None
    if _ANY_BOX.search(rest):
        return boxed_answer(rest)
    return _written(_HOPE.sub("", rest[-_TAIL:]).strip())


def _written(text: str) -> str | None:
    """The answer of a text without box and tags."""
    if len(text) <= _LONGEST_BARE and (bare := _tidy(text)) and can_be_read(bare):
        return bare
    text = re.sub(r"[^\S\n]+", " ", re.sub(r"\s*\n\s*", "\n", shown(text)))
    announced = [(m.end(), m.start()) for m in _ANNOUNCED.finditer(text)]
    announced += [(m.end(), m.start()) for m in _HEADING.finditer(text)]
    if announced:
        end = max(announced)[0]
        found = _stated(text[end:])
        if found:
            return found
        if not text[end:].strip():
            return None
    return _from_prose(text)


def _tidy(text: str) -> str:
    text = text.strip()
    if (bold := re.fullmatch(r"\*\*(.+?)\*\*\.?", text, re.DOTALL)) or (bold := re.fullmatch(r"`([^`]+)`\.?", text)):
        text = bold[1].strip()
    return re.sub(r"^\s*[:：]\s*|(?<=[^.])[.。]\s*$", "", text).strip()


def _stated(text: str) -> str | None:
    """The answer at the start of what follows "the answer is"."""
    text = text.lstrip().lstrip(":").lstrip()
    display = re.match(r"(?:\$\$|\\\[)", text)
    sentence = text if display else _SENTENCE.split(text, maxsplit=1)[0]
    sentence = _tidy(_FILLER.sub("", sentence))
    if sentence.count("**") == 1:
        sentence = _tidy(sentence.replace("**", ""))
    if (math := _MATH.match(sentence)) and display:
        sentence = math[0]
    for candidate in (sentence, _tidy(_CONNECTIVE.sub("", sentence))):
        if candidate and can_be_read(candidate):
            return candidate
    if bold := _BOLD.match(sentence):
        return _tidy(bold[1])
    if (math := _MATH.match(sentence)) and _is_math(math):
        return math[0]
    return _value_in(sentence)


def _is_math(match: re.Match[str]) -> bool:
    inner = next(g for g in match.groups() if g is not None)
    return len(re.findall(r"(?<![\\A-Za-z{])[A-Za-z]{3,}", inner)) < 2


def _from_prose(text: str) -> str | None:
    """The value of the last sentence that has one."""
    sentences = [s for s in _SENTENCE.split(text) if s and s.strip()]
    for sentence in sentences[:-5:-1]:
        if sentence.rstrip().endswith("?"):  # a question states nothing
            continue
        bare = _tidy(_FILLER.sub("", sentence))
        if re.search(r"\w", bare) and re.search(r"\d|\$|\\", bare) and can_be_read(bare):
            return bare
        if found := _value_in(sentence):
            return found
        if re.search(r"\d", sentence):
            return None
    return None


def _value_in(sentence: str) -> str | None:
    """The bold value, the last formula, or the last number of a sentence; a number that is denied is none."""
    bold = [b for b in _BOLD.findall(sentence) if re.search(r"\d", b)]
    if bold:
        return _tidy(bold[-1])
    sentence = sentence.strip().rstrip(".")
    formulas = [m for m in _MATH.finditer(sentence) if _is_math(m)]
    last = formulas[-1] if formulas else None
    # What follows the last verb or equals sign, where it is an answer as a whole.
    for verb in list(_VERB.finditer(sentence))[:-6:-1]:
        if last and verb.start() < last.end():
            break
        tail = _tidy(_CONNECTIVE.sub("", sentence[verb.end() :]))
        if _DENIED.search(sentence[: verb.end()] + " "):
            return None
        if re.search(r"\d|\\|√|π|[½⅓⅔¼¾]", tail) and can_be_read(tail):
            return tail
        tail = tail.rstrip(")] ")
        if re.search(r"\d", tail) and can_be_read(tail):
            return tail
    numbers = [m for m in _VALUE.finditer(sentence) if not last or m.start() >= last.end()]
    if numbers:
        chosen = numbers[-1]
        before = sentence[: chosen.start()]
        # One of several ("40, 41, or 42") is no answer; neither is what a sentence denies.
        # nor is a bound, or what is taken back.
        if _BOUND.search(before) or _REJECTED.match(sentence, chosen.end()):
            return None
        if _DENIED.search(before) or re.search(
            r"^\s*or\b|\d\s*[,;]\s*$|\bor\b\s*$|[,;]\s*(?:maybe|perhaps|possibly)\s*$", before, re.IGNORECASE
        ):
            return None
        return (chosen[1] or chosen[2]).strip()
    if last and not _DENIED.search(sentence[: last.start()]):
        return ", ".join(m[0] for m in _last_run(formulas, sentence))
    return None


def _last_run(formulas: list[re.Match[str]], sentence: str) -> list[re.Match[str]]:
    """The last formulas between which nothing but a comma or "and" stands."""
    first = len(formulas) - 1
    while first and not _SEPARATOR.sub("", sentence[formulas[first - 1].end() : formulas[first].start()]):
        first -= 1
    return formulas[first:]
