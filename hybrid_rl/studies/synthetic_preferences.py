"""Trains the small preference model of docs/ablations.md on synthetic preferences, from the warm-up of a config.

    python -m hybrid_rl.studies.synthetic_preferences CONFIG [--folder F] [--steps N]

The preferred answer to a prompt is its reference, the other one has one digit wrong: what people who look at the
picture would say. The model starts from the policy's weights after its warm-up (made now, if no run has made it), as in
arXiv 2203.02155, and sees answers only, never a thought. It prints its accuracy on held-out pairs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from hybrid_rl.config import Config, load_config
from hybrid_rl.config.training import OptimizerConfig
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.errors import ConfigError, UserError
from hybrid_rl.preference.folder import new_preference_model, save_preference_model
from hybrid_rl.preference.judged import PreferencePair
from hybrid_rl.preference.scalar_head import Rendering
from hybrid_rl.preference.training import PreferenceTraining, accuracy, train_preference
from hybrid_rl.protocols import Split
from hybrid_rl.quiet import quiet_environment
from hybrid_rl.records import Prompt, stable_seed
from hybrid_rl.stages.cache import cache_folder
from hybrid_rl.studies.trial import EXIT_USER_ERROR, make_warm_up

_HELD_OUT = 256


def one_digit_wrong(prompt: Prompt) -> str:
    """The reference with one of its digits replaced by another; the same for the same prompt."""
    chance = random.Random(stable_seed("rejected answer", prompt.id, prompt.gold))
    digits = [place for place, sign in enumerate(prompt.gold) if sign.isdigit()]
    place = chance.choice(digits)
    other = (int(prompt.gold[place]) + chance.randrange(1, 10)) % 10
    return f"{prompt.gold[:place]}{other}{prompt.gold[place + 1 :]}"


def pairs(config: Config, split: Split, count: int) -> list[PreferencePair]:
    """Right against almost right, for the first prompts of a split."""
    prompts = make_mixture(config.data.sources, split, config.run.seed, config.search).first(count)
    return [PreferencePair(prompt, prompt.gold, one_digit_wrong(prompt)) for prompt in prompts]


def train(config: Config, folder: Path, *, steps: int, batch_size: int, learning_rate: float) -> float:
    """Train a preference model and save it; its accuracy on held-out pairs.

    Raises:
        ConfigError: the config has no warm-up or no mode without thought.
    """
    if config.warmup is None:
        raise ConfigError("the config has no warm-up, whose weights a preference model starts from; give it one")
    closed = [kind for kind in config.modes.kinds.values() if kind.template_args.get("enable_thinking") is False]
    if not closed:
        raise ConfigError(
            "no mode has template_args.enable_thinking false; a preference model reads answers in such a one"
        )
    quiet = closed[0]
    with tempfile.TemporaryDirectory() as place:
        run = config.run.model_copy(update={"dir": str(Path(place, "warmup")), "live": False})
        # Without the preference model, which does not exist yet; rewards do not change a warm-up.
        rewards = {"accuracy": config.rewards["accuracy"]}
        make_warm_up(config.model_copy(update={"run": run, "rewards": rewards}))
    model = new_preference_model(
        config.model.model_copy(update={"path": str(cache_folder(config)), "args": {}}),
        Rendering(template_args=quiet.template_args, prefill=quiet.prefill),
        seed=config.run.seed,
        search=config.search,
    )
    training = PreferenceTraining(
        steps=steps,
        batch_size=batch_size,
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        warmup_steps=steps // 10,
        decay_fraction=0.3,
    )
    train_preference(model, pairs(config, "train", steps * batch_size), training, seed=config.run.seed)
    save_preference_model(model, folder)
    return accuracy(model, pairs(config, "eval", _HELD_OUT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    parser.add_argument("--folder", type=Path, default=Path("runs/digit_preference"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    given = parser.parse_args()
    quiet_environment()
    began = time.monotonic()
    try:
        config = load_config(given.config, given.overrides)
        share = train(
            config, given.folder, steps=given.steps, batch_size=given.batch_size, learning_rate=given.learning_rate
        )
    except UserError as error:
        print(f"hybrid-rl: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    took_s = time.monotonic() - began
    print(f"{given.folder}: {share:.1%} of {_HELD_OUT} held-out pairs in the right order, {took_s:.0f} s")


if __name__ == "__main__":
    main()
