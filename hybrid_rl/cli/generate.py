"""`hybrid-rl generate RUN_OR_CHECKPOINT --image strip.png --mode long "QUESTION"`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run folder or one of its checkpoints.")
    ],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    image: Annotated[list[Path] | None, typer.Option(help="An image that belongs to the question; repeatable.")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A video that belongs to the question; repeatable.")] = None,
    mode: Annotated[str | None, typer.Option(help="The mode to answer in; default: the config's first.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the sampling.")] = 0,
) -> None:
    """Answer one question."""
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from hybrid_rl.insight.visible import visible
    from hybrid_rl.saved import answer, open_saved

    response = answer(open_saved(target), question, image or [], video or [], mode, seed)
    # What a model writes may hold terminal codes; it is shown, not obeyed.
    if response.thought:
        print(f"thought: {visible(response.thought)}")
    print(f"answer:  {visible(response.answer) if response.answer is not None else '(none: the thought did not end)'}")
