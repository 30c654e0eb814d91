"""What the prompts alone tell: their tokens, those of their images, whether the references fit the budgets."""

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
    pictured = [prompt for prompt in prompts if prompt.images]
    return [*found, _images(config, material, pictured)] if pictured else found


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


def _images(config: Config, material: Material, prompts: list[Prompt]) -> Finding:
    """Tokens that the images add to a prompt: with them, less without them."""
    mode = next(iter(config.modes.kinds))
    added = []
    for prompt in prompts:
        bare = replace(prompt, images=())
        added.append(len(material.format.prompt_ids(prompt, mode)) - len(material.format.prompt_ids(bare, mode)))
    images = sum(len(prompt.images) for prompt in prompts)
    each = sum(added) / images
    return Finding(
        topic="images",
        sentence=f"{spread(added)} tokens a prompt, {each:.1f} an image, its marks included",
        figures={"tokens_per_image": each, "most_tokens_of_a_prompt": max(added)},
    )
