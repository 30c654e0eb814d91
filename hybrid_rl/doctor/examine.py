"""All examinations of a config, cheap ones first."""

from __future__ import annotations

from collections.abc import Iterator

from hybrid_rl.config import Config
from hybrid_rl.doctor.findings import Finding, Grade
from hybrid_rl.doctor.forecast import forecast
from hybrid_rl.doctor.memory import examine_memory
from hybrid_rl.doctor.prompts import examine_prompts
from hybrid_rl.doctor.trial import run_trial
from hybrid_rl.policy import text_config
from hybrid_rl.preflight import prepare
from hybrid_rl.stages.cache import cache_folder

_PROMPTS = 64


def examine(config: Config) -> Iterator[Finding]:
    """Findings as they are made.

    Raises:
        UserError: the config cannot be run at all.
    """
    material = prepare(config)
    prompts = material.prompts.first(_PROMPTS)
    yield from examine_prompts(config, material, prompts)
    longest = max(len(material.format.prompt_ids(p, mode)) for p in prompts for mode in config.modes.kinds)
    yield from examine_memory(config, material, text_config(config.model, config.run.seed, config.search), longest)
    started, checkpoint, sentence = _weights(config)
    if not started:
        yield Finding(topic="trial", sentence=sentence, grade=Grade.WARN)
        return
    trial = run_trial(config, material, checkpoint, prompts)
    yield from trial.findings
    yield forecast(config, trial, prompts)


def _weights(config: Config) -> tuple[bool, str | None, str]:
    """Whether the weights of the first step are there, their folder (None: `model.path`), and what to do if not."""
    if config.model.path is not None or config.warmup is None:
        return True, None, ""
    cached = cache_folder(config)
    if config.warmup.cache and (cached / "config.json").is_file():
        return True, str(cached), ""
    return (
        False,
        None,
        "not made: the policy is not warmed up yet, and before that it says nothing of the run; let `hybrid-rl train` "
        "finish the warm-up once (it is kept), then ask again",
    )
