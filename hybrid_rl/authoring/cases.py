"""Labelled cases, one JSON object a line: a prediction, a reference, and the verdict that is right."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybrid_rl.errors import DataError

DEFAULT_TOLERANCE = 1e-3
_CREDIT = 0.5
_MAX_CHARACTERS = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCase:
    """A case of a file.

    Attributes:
        label: the metric as the file writes it.
        metric: names the reward: the label without a threshold.
        pred: what was predicted; text, or JSON where the reward reads structures.
        expected: the verdict, or the score.
        threshold: from which score on a verdict is true.
        tolerance: by how much a score may differ.
        where: file and line, for messages.
        extracted: the prediction is a whole response, whose final answer has to be found.
        params: what else the reward may ask for by name.
    """

    id: str
    kind: str
    label: str
    metric: str
    pred: Any
    gold: Any
    expected: bool | float
    threshold: float = _CREDIT
    tolerance: float = DEFAULT_TOLERANCE
    extracted: bool = False
    choices: tuple[str, ...] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


def read_cases(path: Path) -> list[LabelledCase]:
    """Read a file of cases; unknown fields are for people and are left alone.

    Raises:
        DataError: with the line, and what is wrong there.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a file of cases: {error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}; write one case a line") from error
        if not isinstance(row, dict):
            raise DataError(f"{where} is not a JSON object; write one case a line")
        cases.append(_case(row, where))
    if not cases:
        raise DataError(f"{path} has no cases; write one JSON object a line")
    return cases


def _case(row: Mapping[str, Any], where: str) -> LabelledCase:
    missing = [name for name in ("id", "gold", "expected", "metric") if name not in row]
    if "pred" not in row and "pred_spec" not in row:
        missing.append("pred")
    if missing:
        raise DataError(f"{where} has no '{missing[0]}'; docs/write_a_reward.md has the fields of a case")
    expected = row["expected"]
    if not isinstance(expected, bool) and not _is_number(expected):
        raise DataError(f"{where}: expected is {expected!r}; it is true, false or a score")
    tolerance = row.get("tol", DEFAULT_TOLERANCE)
    if not _is_number(tolerance) or tolerance < 0:
        raise DataError(f"{where}: tol is {tolerance!r}; it is a number, 0 or larger")
    form = row.get("form", "answer")
    if form not in ("answer", "response"):
        raise DataError(f"{where}: form is {form!r}; it is 'answer' or 'response'")
    params, choices = row.get("params") or {}, row.get("choices")
    if not isinstance(params, dict):
        raise DataError(f"{where}: params is not an object; write names and values")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(c, str) for c in choices)):
        raise DataError(f"{where}: choices is not a list of texts")
    metric, threshold = _metric(row["metric"], where)
    return LabelledCase(
        id=str(row["id"]),
        kind=str(row.get("kind", "")),
        label=row["metric"],
        metric=metric,
        pred=_prediction(row, where),
        gold=row["gold"],
        expected=expected if isinstance(expected, bool) else float(expected),
        threshold=threshold,
        tolerance=float(tolerance),
        extracted=form == "response",
        choices=tuple(choices) if choices is not None else None,
        params=params,
        where=where,
    )


def _metric(text: Any, where: str) -> tuple[str, float]:
    """`NAME` or `NAME>=x`."""
    if not isinstance(text, str) or not text:
        raise DataError(f"{where}: metric is {text!r}; it is the name of a metric")
    name, threshold, limit = text.partition(">=")
    try:
        return name.strip(), float(limit) if threshold else _CREDIT
    except ValueError as error:
        raise DataError(f"{where}: metric is {text!r}; a threshold is written NAME>=0.5") from error


def _prediction(row: Mapping[str, Any], where: str) -> Any:
    """`pred`, or `pred_spec` written out: `pre`, `unit` `times` times, `post`."""
    if "pred_spec" not in row:
        return row["pred"]
    try:
        spec = row["pred_spec"]
        unit, times = str(spec["unit"]), int(spec["times"])
        if len(unit) * times > _MAX_CHARACTERS:
            raise ValueError(f"{len(unit) * times:,} characters are more than {_MAX_CHARACTERS:,}")
        return str(spec["pre"]) + unit * times + str(spec["post"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: pred_spec needs pre, unit, times and post: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
