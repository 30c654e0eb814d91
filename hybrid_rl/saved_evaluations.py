"""Evaluations of a finished run or one of its checkpoints beyond the plain one: thinking budgets, blind, named sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hybrid_rl.errors import ConfigError
from hybrid_rl.insight.blind_view import compare_blind
from hybrid_rl.insight.budget_view import budget_png
from hybrid_rl.insight.budgets import budget_curve, check_budgets
from hybrid_rl.insight.evaluator import Evaluator
from hybrid_rl.insight.report import write_report
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.saved import Saved, material_of, workers_of


def evaluate_budgets(saved: Saved, budgets: Sequence[int], num_prompts: int | None) -> dict[str, Any]:
    """Accuracy at thinking budgets; written to `budgets.json`, `budgets.png` and the report of the run.

    Raises:
        ConfigError: no mode has a thought, or a budget is beyond the context.
    """
    config, material = material_of(saved, num_prompts)
    chat, thinking = material.format, material.thinking_modes
    check_budgets(budgets, config.modes, chat, thinking, material.eval_prompts, material.context_length)
    evaluator = Evaluator(config, material, *workers_of(saved, config, material))
    curve = budget_curve(budgets, config.modes, chat, thinking, evaluator.limited)
    folder = RunFolder(saved.folder)
    places = {mode: place for place, mode in enumerate(config.modes.kinds)}
    folder.write_result("budgets.json", json.dumps(curve, indent=2) + "\n")
    folder.write_result("budgets.png", budget_png(curve, places))
    write_report(folder.path)
    return curve


def evaluate_blind(saved: Saved, num_prompts: int | None) -> dict[str, Any]:
    """Sighted and blind accuracy with the same seeds; written to `blind.json` and the report of the run.

    Raises:
        ConfigError: no prompt of the evaluation has an image or a video.
    """
    config, material = material_of(saved, num_prompts)
    if not any(prompt.has_media for prompt in material.eval_prompts):
        raise ConfigError("--blind: no prompt of the evaluation has an image or a video; there is nothing to blank")
    evaluator = Evaluator(config, material, *workers_of(saved, config, material))
    found = compare_blind(evaluator.plain(), evaluator.blind())
    RunFolder(saved.folder).write_result("blind.json", json.dumps(found, indent=2) + "\n")
    write_report(saved.folder)
    return found


def evaluate_sets(saved: Saved, names: Sequence[str]) -> dict[str, Any]:
    """Figures by name of the set.

    Raises:
        ConfigError: the run's config has no such set.
    """
    known = saved.config.evaluation.sets
    for name in names:
        if name not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"--set: the run's evaluation.sets has no '{name}'; {listed}")
    config, material = material_of(saved, None)
    evaluator = Evaluator(config, material, *workers_of(saved, config, material))
    return {name: evaluator.on_set(name) for name in names}
