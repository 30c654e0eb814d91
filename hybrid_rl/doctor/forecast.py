"""Tokens and hours of the whole run, from what a trial measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.config import Config
from hybrid_rl.doctor.findings import Finding
from hybrid_rl.doctor.trial import Trial
from hybrid_rl.records import Prompt


def forecast(config: Config, trial: Trial, prompts: Sequence[Prompt] = ()) -> Finding:
    """What the run would sample and take if responses stay as long as they are now.

    Args:
        prompts: some of the run's; where the data decide on the mode, they stand for all.
    """
    train = config.train
    modes = mode_schedule(config)
    responses: dict[str, float] = dict.fromkeys(config.modes.kinds, 0.0)
    here = modes.assign(1, prompts, 1) if config.modes.assign == "column" else []
    dealt = Counter(mode for counts in here for mode in counts)
    for step in range(1, config.run.steps + 1):
        asked = modes.shares(step) or {mode: count / len(prompts) for mode, count in dealt.items()}
        for mode, share in asked.items():
            responses[mode] += share * train.prompts_per_step * train.responses_per_prompt
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
