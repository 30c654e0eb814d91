"""`hybrid-rl show-prompt CONFIG [a.b=value ...] [--mode long] [--index 0]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hybrid_rl.insight.prompt_view import PromptView


def command(
    config: Annotated[Path, typer.Argument(help="YAML config, such as configs/grpo_mixed.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to it: section.key=value.")] = None,
    mode: Annotated[str | None, typer.Option(help="The mode; default: every mode.")] = None,
    index: Annotated[int, typer.Option(min=0, help="Which prompt of the data, from 0.")] = 0,
    held_out: Annotated[bool, typer.Option("--eval", help="Of the evaluation's prompts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object by mode and nothing else.")] = False,
) -> None:
    """Print the exact tokens that the model reads for a prompt, mode by mode. Needs no weights."""
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from hybrid_rl.config import load_config
    from hybrid_rl.insight.prompt_view import view_prompts

    views = view_prompts(load_config(config, overrides or []), mode, index, "eval" if held_out else "train")
    if as_json:
        print(json.dumps({view.mode: view.as_json() for view in views}))
        return
    for view in views:
        _print(view)


def _print(view: PromptView) -> None:
    from hybrid_rl.insight.table import aligned
    from hybrid_rl.insight.visible import visible

    prompt = view.prompt
    shown = [
        f"{sum(piece.count for piece in view.pieces if piece.part == kind)} of them for {number} {kind}"
        f"{'s' * (number != 1)}"
        for kind, number in (("image", len(prompt.images)), ("video", len(prompt.videos)))
        if number or kind == "image"
    ]
    prefilled = sum(piece.part == "prefilled" for piece in view.pieces)
    print(
        visible(
            f"mode {view.mode}: prompt {prompt.id} of source {prompt.source}, {len(view.ids)} tokens, "
            f"{', '.join(shown)}, {prefilled} prefilled"
        )
    )
    rows = [["token", "id", "place", "", ""]]
    for piece in view.pieces:
        # As a JSON string: line breaks and spaces show, and nothing in it acts on the terminal.
        text = visible(json.dumps(piece.text, ensure_ascii=False))
        times = f"x {piece.count}" if piece.count > 1 else ""
        rows.append([text, str(piece.id), str(piece.place), times, "" if piece.part == "text" else piece.part])
    for line in aligned(rows):
        print(f"  {line.rstrip()}")
    stops = " or ".join(str(stop) for stop in view.stop_ids)
    print(f"  then up to {view.max_new_tokens} sampled tokens, until token {stops}")
