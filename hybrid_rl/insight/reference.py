"""`python -m hybrid_rl.insight.reference` writes docs/config.md and docs/metrics.md from the code itself."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hybrid_rl.algorithm.admission import DROP_REASONS
from hybrid_rl.config import Config
from hybrid_rl.insight.evaluation_metrics import BLIND_METRICS, EVALUATION_METRICS, PARTIAL_METRICS
from hybrid_rl.insight.names import (
    MODE_METRICS,
    PART_FIGURES,
    PHASE_FIGURES,
    PHASES,
    RUN_METRICS,
    SPLIT_METRICS,
    WORKING_PHASES,
)

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_TABLE = "| key | type | default | meaning |\n| --- | --- | --- | --- |"
_HEAD = """\
# Configuration reference

Generated from the typed config by `make docs`; do not edit. A config file gives only what differs from the defaults;
`hybrid-rl train CONFIG a.b=value` changes single keys. Keys are closed: a misspelt one is an error that names the line.
`NAME` stands for a name of your own.
"""


def render() -> str:
    """The reference as Markdown: a table a section."""
    parts = [_HEAD]
    for name, field in Config.model_fields.items():
        section, path = _section(field.annotation, name)
        if section is None:
            continue
        parts.append(f"## `{name}`\n\n{_summary(section, field)}\n\n{_TABLE}")
        parts += _rows(section, path)
        parts.append("")
    parts.append(f"## Other keys\n\n{_TABLE}")
    parts += [
        _row(name, field) for name, field in Config.model_fields.items() if _section(field.annotation, name)[0] is None
    ]
    return "\n".join(parts) + "\n"


def _rows(section: type[BaseModel], path: str) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        inner, inner_path = _section(field.annotation, f"{path}.{name}")
        if inner is not None and typing.get_origin(_plain(field.annotation)) is typing.Annotated:
            rows.append(f"| `{path}.{name}` | number or section | {_default(field)} | {_meaning(field)} |")
            rows += _rows(inner, inner_path)
        elif inner is not None:
            if field.default is None:
                rows.append(f"| `{path}.{name}` | section or None | unset | {_meaning(field)} |")
            rows += _rows(inner, inner_path)
        else:
            rows.append(_row(f"{path}.{name}", field))
    return rows


def _row(path: str, field: FieldInfo) -> str:
    return f"| `{path}` | {_type(field)} | {_default(field)} | {_meaning(field)} |"


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _plain(annotation: Any) -> Any:
    """The annotation without `or None`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _section(annotation: Any, path: str) -> tuple[type[BaseModel] | None, str]:
    """The section that a field holds, itself or by name, and the path of its keys."""
    annotation = _plain(annotation)
    if typing.get_origin(annotation) is typing.Annotated:  # a number or a section, as modes.long_ratio
        choices = typing.get_args(typing.get_args(annotation)[0])
        found = [_section(typing.get_args(choice)[0], path)[0] for choice in choices]
        return next((section for section in found if section is not None), None), path
    if typing.get_origin(annotation) is dict:
        annotation, path = typing.get_args(annotation)[1], f"{path}.NAME"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, path
    return None, path


def _summary(section: type[BaseModel], field: FieldInfo) -> str:
    text = field.description or section.__doc__ or ""
    return " ".join(text.split())


def _type(field: FieldInfo) -> str:
    text = str(field.annotation) if typing.get_origin(field.annotation) else getattr(field.annotation, "__name__", "")
    text = _CHOICE.sub("number or section", text)
    text = _BOUNDED.sub(lambda m: " ".join([m[1], *_BOUND.sub(_sign, m[2]).split(", ")]), text)
    text = text.replace("typing.", "").replace("Literal", "one of ").replace("|", "or")
    limits = [_limit(item) for item in field.metadata]
    return " ".join([text, *(limit for limit in limits if limit)])


_CHOICE = re.compile(r"typing\.Annotated\[typing\.Union\[.*Tag\(tag='<section>'\).*Discriminator\(.*\)\](?=\])")
_BOUNDED = re.compile(r"Annotated\[(\w+), FieldInfo\(annotation=NoneType, required=True, metadata=\[(.*?)\]\)\]")
_BOUND = re.compile(r"\w+\((\w+)=([^)]*)\)")
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _sign(bound: re.Match[str]) -> str:
    return f"{_SIGNS[bound[1]]} {bound[2]}"


def _limit(item: Any) -> str:
    return " ".join(f"{sign} {getattr(item, name)}" for name, sign in _SIGNS.items() if hasattr(item, name))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None or value == "":
        return "unset"
    return f"`{value}`"


def render_metrics() -> str:
    """The metrics of `metrics.jsonl` as Markdown."""
    of_evaluations = EVALUATION_METRICS | PARTIAL_METRICS | BLIND_METRICS
    lines = [
        "# Metrics",
        "",
        "Generated by `make docs`; do not edit. `metrics.jsonl` has one object a step; its keys, PHASE being one of "
        f"{', '.join(WORKING_PHASES)}:",
        "",
        "| name | meaning |",
        "| --- | --- |",
        *(f"| `{name}` | {meaning} |" for name, meaning in RUN_METRICS.items()),
        *(f"| `wall_s/{phase}` | seconds of the step spent in the phase |" for phase in PHASES),
        *(f"| `{figure}/PHASE` | {meaning} |" for figure, meaning in PHASE_FIGURES.items()),
        *(f"| `{name}/MODE` | {meaning} |" for name, meaning in MODE_METRICS.items()),
        *(f"| `{figure}/NAME/MODE` | {meaning} |" for figure, meaning in PART_FIGURES.items()),
        *(f"| `dropped/{name}/MODE` | groups left out of the loss: {why} |" for name, why in DROP_REASONS.items()),
        "| `outcome/NAME/OUTCOME/MODE` | responses on which a reward part had the outcome abstain, timeout or error |",
        "| `source/SOURCE/FIGURE/NAME/MODE` | these figures of a reward part for one of several data sources |",
        *(f"| `task/TASK/{name}/MODE` | `{name}` of one task |" for name in SPLIT_METRICS),
        *(f"| `source/SOURCE/{name}/MODE` | `{name}` of one data source |" for name in SPLIT_METRICS),
        "",
        "Evaluations have metrics too, in `metrics` of the rows of `eval.jsonl`; `run.stop_when` takes them as well:",
        "",
        "| name | meaning |",
        "| --- | --- |",
        *(f"| `eval/{name}/MODE` | {meaning} |" for name, meaning in of_evaluations.items()),
        "| `eval/task/TASK/accuracy/MODE` | `accuracy` of one task |",
        *(
            f"| `eval_set/SET/{name}/MODE` | the same on a set of `evaluation.sets` |"
            for name in [*EVALUATION_METRICS, "accuracy_when_well_formed"]
        ),
        "| `eval_set/SET/pass@K/MODE` | pass@K on the set, for each K of its `pass_at` |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (_DOCS / "config.md").write_text(render(), encoding="utf-8")
    (_DOCS / "metrics.md").write_text(render_metrics(), encoding="utf-8")
