"""What the prompts alone tell: their tokens, those of images and videos, whether the references fit the budgets."""

from __future__ import annotations

from dataclasses import replace

from hybrid_rl.algorithm.length_target import with_target
from hybrid_rl.config import Config
from hybrid_rl.doctor.findings import Finding, Grade, spread
from hybrid_rl.preflight import Material, reference_length
from hybrid_rl.records import Prompt

_TOO_MANY_CUT = 0.05


def examine_prompts(config: Config, material: Material, prompts: list[Prompt]) -> list[Finding]:
    """Tokens of the prompts and of their references, by mode."""
    found = []
    for mode in config.modes.kinds:
        asked = [with_target(prompt, mode, config.modes.kinds) for prompt in prompts]
        lengths = [len(material.format.prompt_ids(prompt, mode)) for prompt in asked]
        figures: dict[str, float | int | None] = {
            "least": min(lengths), "median": sorted(lengths)[len(lengths) // 2], "most": max(lengths),
        }  # fmt: skip
        sentence = f"{spread(lengths)} tokens in {len(prompts)} prompts"
        found.append(Finding(topic=f"prompts {mode}", sentence=sentence, figures=figures))
        found.append(_references(config, material, prompts, mode))
    for kind, media in (("image", "images"), ("video", "videos")):
        showing = [prompt for prompt in prompts if getattr(prompt, media)]
        if showing:
            found.append(_media(config, material, showing, kind, media))
    return found


def _references(config: Config, material: Material, prompts: list[Prompt], mode: str) -> Finding:
    budget = config.modes.kinds[mode].max_new_tokens
    lengths = [reference_length(material.format, prompt, mode) for prompt in prompts]
    cut = sum(length > budget for length in lengths) / len(lengths)
    sentence = f"{spread(lengths)} tokens; the budget is {budget:,}"
    if not any(prompt.thought for prompt in prompts) and material.wants_thought[mode]:
        sentence += " and has to hold the thought as well, of which the data has no example"
    grade = Grade.WARN if cut > _TOO_MANY_CUT else Grade.OK
    if cut > _TOO_MANY_CUT:
        sentence += f"; {cut:.0%} of the references do not fit: raise modes.kinds.{mode}.max_new_tokens"
    return Finding(
        topic=f"references {mode}",
        sentence=sentence,
        grade=grade,
        figures={"budget_tokens": budget, "most": max(lengths), "share_that_does_not_fit": cut},
    )


def _media(config: Config, material: Material, prompts: list[Prompt], kind: str, media: str) -> Finding:
    """Tokens that the images, or the videos, add to a prompt: with them, less without them."""
    mode = next(iter(config.modes.kinds))
    added = []
    for prompt in prompts:
        bare = replace(prompt, images=()) if media == "images" else replace(prompt, videos=())
        added.append(len(material.format.prompt_ids(prompt, mode)) - len(material.format.prompt_ids(bare, mode)))
    each = sum(added) / sum(len(getattr(prompt, media)) for prompt in prompts)
    article = "an" if kind == "image" else "a"
    return Finding(
        topic=media,
        sentence=f"{spread(added)} tokens a prompt, {each:.1f} {article} {kind}, its marks included",
        figures={f"tokens_per_{kind}": each, "most_tokens_of_a_prompt": max(added)},
    )
