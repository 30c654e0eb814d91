"""What a run is about to do, in numbers that are named after what they count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.config import Config
from hybrid_rl.config.ratio import RatioConfig
from hybrid_rl.scorer_pool.isolation import network_can_be_cut

if TYPE_CHECKING:
    from hybrid_rl.preflight import Material


def describe_plan(config: Config, material: Material, run_dir: str, start: str) -> list[tuple[str, str]]:
    """The resolved plan as (topic, sentence) pairs.

    Args:
        start: where the first weights come from.
    """
    train, modes = config.train, config.modes
    first = mode_schedule(config).assign(
        1, material.prompts.draw(1, train.prompts_per_step), train.responses_per_prompt
    )
    prompts = Counter(mode for counts in first for mode in counts)
    of_mode = {mode: sum(counts.get(mode, 0) for counts in first) for mode in modes.kinds}
    responses = sum(of_mode.values())
    budget = sum(modes.kinds[mode].max_new_tokens * count for mode, count in of_mode.items())
    weights = {name: source.weight for name, source in config.data.sources.items()}
    total = sum(weights.values())
    plan = [
        ("policy", start),
        ("parameters", _size(config, material)),
        (
            "step",
            f"{train.prompts_per_step} prompts x {train.responses_per_prompt} responses = {responses:,} responses, at "
            f"most {budget:,} sampled tokens, {train.mini_batches} optimizer step{'s' * (train.mini_batches > 1)}; "
            f"{config.run.steps} steps",
        ),
    ]
    for name, kind in modes.kinds.items():
        plan.append(
            (
                f"mode {name}",
                f"{_asked_for(config, prompts[name], of_mode[name])}, up to {kind.max_new_tokens} tokens a response, "
                f"temperature {kind.temperature:g}, template {kind.template_args or 'as it is'}",
            )
        )
    plan.append(("data", ", ".join(f"{name} {weight / total:.0%}" for name, weight in weights.items())))
    plan.append(("reward", " + ".join(f"{part.weight:g} {name}" for name, part in config.rewards.items())))
    cluster = config.cluster
    where = "as Ray actors" if cluster.executor == "ray" else "in this process"
    reference = "1 reference" if config.model.lora is None else "the actor without its adapter as reference"
    plan.append(
        (
            "workers",
            f"1 actor, {cluster.rollout_workers} rollout, {reference}, {cluster.reward_workers} reward, {where}",
        )
    )
    if train.async_steps:
        plan.append(
            ("rollouts", f"up to {train.async_steps} steps ahead, importance weights up to {train.importance_cap:g}")
        )
    if not network_can_be_cut():
        plan.append(("scorers", "not cut off from the network: this system allows neither namespaces nor seccomp"))
    evaluation = config.evaluation
    if evaluation.before or evaluation.after or evaluation.every_steps:
        times = [name for name, on in (("before", evaluation.before), ("after", evaluation.after)) if on]
        times += [f"every {evaluation.every_steps} steps"] if evaluation.every_steps else []
        plan.append(("evaluation", f"{evaluation.prompts_per_mode} held-out prompts a mode, {' and '.join(times)}"))
    plan += [(f"set {name}", _set(config, name)) for name in evaluation.sets]
    if config.run.stop_when is not None:
        plan.append(("stops", f"earlier, when {config.run.stop_when}"))
    kept = f"the last {config.checkpoints.keep_last}"
    if config.checkpoints.keep_best:
        kept += f" and the best by {config.checkpoints.keep_best}"
    plan.append(
        (
            "saved",
            f"{run_dir}: metrics, all responses, report; a checkpoint every {config.checkpoints.every_steps} "
            f"steps, {kept} kept",
        )
    )
    return plan


def _set(config: Config, name: str) -> str:
    chosen, every = config.evaluation.sets[name], config.evaluation.every(name)
    modes = ", ".join(chosen.modes or config.modes.kinds)
    times = f", every {every} steps" if every else ""
    return f"{chosen.prompts_per_mode} prompts x {chosen.samples_per_prompt} responses in {modes}{times}"


def _asked_for(config: Config, prompts: int, responses: int) -> str:
    """How much of a step is in a mode; where that changes, how much of the first one."""
    whole = responses == prompts * config.train.responses_per_prompt
    counted = f"{prompts} prompts" if whole else f"{responses} responses to {prompts} prompts"
    fixed = config.modes.assign != "column" and not isinstance(config.modes.long_ratio, RatioConfig)
    return f"{counted} a step" if fixed else f"{counted} in the first step"


def _size(config: Config, material: Material) -> str:
    lora, size, trained = config.model.lora, material.num_parameters, material.num_trained_parameters
    if lora is not None:
        return f"{size:,}, frozen, beside them an adapter of rank {lora.rank} with {trained:,} that are trained"
    return f"{size:,}" if trained == size else f"{size:,}, of which {trained:,} are trained"
