"""What an ablation compares: the checked config of every arm and seed, and what tells two ablations apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hybrid_rl.config import Config, load_config
from hybrid_rl.errors import ConfigError
from hybrid_rl.studies.grid import Arm, read_grid

Equal = Literal["steps", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run: an arm with a seed. `config.run.dir` is its folder."""

    arm: Arm
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.run.dir or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A checked ablation.

    Attributes:
        base: the config that all arms change.
        arms: in the order of the table.
        seeds: shared by all arms; every claim compares runs of one seed.
        equal: what the arms have the same of.
        folder: absolute.
    """

    base: Config
    arms: tuple[Arm, ...]
    configs: tuple[Config, ...]
    seeds: tuple[int, ...]
    equal: Equal
    folder: Path

    def trials(self) -> Iterator[Trial]:
        """All runs, seed by seed, so that an interrupted ablation has whole comparisons."""
        for seed in self.seeds:
            for arm, config in zip(self.arms, self.configs, strict=True):
                folder = str(self.folder / arm.name / f"seed_{seed}")
                run = config.run.model_copy(update={"seed": seed, "dir": folder, "live": False})
                yield Trial(arm=arm, seed=seed, config=config.model_copy(update={"run": run}))

    def identity(self) -> dict[str, Any]:
        """What an ablation folder stands for. More seeds or another place of the folder leave it the same."""
        config = self.base.model_dump(mode="json")
        for key in ("dir", "live"):
            del config["run"][key]
        return {"equal": self.equal, "arms": [{"name": a.name, "values": dict(a.values)} for a in self.arms]} | {
            "config": config
        }


def make_design(path: str | Path, assignments: Sequence[str], num_seeds: int, equal: Equal) -> Design:
    """Read the config and check every arm against its schema.

    Raises:
        ConfigError: bad lists, a config that one of the arms makes impossible, or one that nothing can be told from.
    """
    if num_seeds < 1:
        raise ConfigError(f"command line: --seeds is {num_seeds}; an ablation needs at least one")
    grid = read_grid(assignments)
    base = load_config(path, grid.overrides)
    arms = tuple(grid.arms())
    configs = tuple(load_config(path, [*grid.overrides, *arm.overrides]) for arm in arms)
    for arm, config in zip(arms, configs, strict=True):
        _check(arm, config, equal)
    seeds = tuple(range(base.run.seed, base.run.seed + num_seeds))
    design = Design(base=base, arms=arms, configs=configs, seeds=seeds, equal=equal, folder=Path())
    folder = Path(base.run.dir) if base.run.dir else Path("runs", base.name, f"ablation-{_digest(design)}")
    return Design(base=base, arms=arms, configs=configs, seeds=seeds, equal=equal, folder=folder.absolute())


def _check(arm: Arm, config: Config, equal: Equal) -> None:
    if not config.evaluation.after:
        raise ConfigError(f"arm {arm.name}: evaluation.after is false, but the table is made of it; leave it on")
    if config.warmup is not None and config.model.path is None and not config.warmup.cache:
        raise ConfigError(f"arm {arm.name}: warmup.cache is false, but the arms of a seed share its warm-up through it")
    if equal == "tokens" and config.run.max_update_tokens is None:
        raise ConfigError(
            f"arm {arm.name}: --equal tokens needs the budget of an arm; give run.max_update_tokens, and run.steps "
            f"large enough to reach it"
        )
    if equal == "steps" and config.run.max_update_tokens is not None and "run.max_update_tokens" not in arm.values:
        raise ConfigError(
            f"arm {arm.name}: run.max_update_tokens may end arms after different numbers of steps; say --equal tokens"
        )


def _digest(design: Design) -> str:
    return hashlib.sha256(json.dumps(design.identity(), sort_keys=True).encode()).hexdigest()[:8]
