"""Tokens and hours of the whole run, from what a trial measured."""

from __future__ import annotations

from hybrid_rl.algorithm.modes import mode_schedule
from hybrid_rl.config import Config
from hybrid_rl.doctor.findings import Finding
from hybrid_rl.doctor.trial import Trial


def forecast(config: Config, trial: Trial) -> Finding:
    """What the run would sample and take if responses stay as long as they are now."""
    train = config.train
    modes = mode_schedule(config.modes)
    responses: dict[str, float] = dict.fromkeys(config.modes.kinds, 0.0)
    for step in range(1, config.run.steps + 1):
        for mode in modes.assign(step, train.prompts_per_step):
            responses[mode] += train.responses_per_prompt
    tokens = {mode: count * trial.tokens[mode] for mode, count in responses.items()}
    total = sum(tokens.values())
    seconds = {phase: each * total for phase, each in trial.seconds_per_token.items()}
    shares = ", ".join(f"{count / max(total, 1):.0%} {mode}" for mode, count in tokens.items())
    phases = ", ".join(f"{phase} {value / 3600:.2g}" for phase, value in seconds.items())
    hours = sum(seconds.values()) / 3600
    return Finding(
        topic="forecast",
        sentence=f"{total:,.0f} sampled tokens ({shares}) and {hours:.2g} hours on this machine ({phases}), if "
        f"responses keep their length; warm-up, evaluation and checkpoints come on top",
        figures={"tokens": total, "hours": hours, **{f"tokens_{mode}": count for mode, count in tokens.items()}},
    )
