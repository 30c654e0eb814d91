"""The whole configuration: one section a topic."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from hybrid_rl.config.admission import AdmissionConfig
from hybrid_rl.config.alarms import AlarmsConfig
from hybrid_rl.config.cluster import ClusterConfig, RolloutConfig
from hybrid_rl.config.data import DataConfig
from hybrid_rl.config.evaluation import EvaluationConfig
from hybrid_rl.config.log import LogConfig
from hybrid_rl.config.machine import MachineConfig
from hybrid_rl.config.model import ModelConfig
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.config.run import CheckpointConfig, RunConfig
from hybrid_rl.config.section import Section
from hybrid_rl.config.training import TrainConfig, WarmupConfig


class Config(Section):
    """Everything that decides a run."""

    run: RunConfig = Field(default_factory=RunConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig
    modes: ModesConfig
    rewards: dict[str, RewardConfig]
    """Parts of the reward by name; one is called `accuracy` and lies in [0, 1]."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    admission: AdmissionConfig = Field(default_factory=AdmissionConfig)
    warmup: WarmupConfig | None = None
    """The supervised stage. Unset, or with `model.path`: none."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    alarms: AlarmsConfig = Field(default_factory=AlarmsConfig)
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    machine: MachineConfig = Field(default_factory=MachineConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    search: list[str] = Field(default_factory=list)
    """Folders against which plug-ins and data paths are resolved; the config's folder and the working directory are
    filled in when the file is read."""
    name: str = ""
    """Name of the config, for the run folder; filled in from the file name."""

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if "accuracy" not in self.rewards:
            raise ValueError("rewards: one part must be called accuracy; it is what evaluation reports")
        if self.train.mini_batches > self.train.prompts_per_step:
            raise ValueError(
                f"train.mini_batches is {self.train.mini_batches}, more than the {self.train.prompts_per_step} prompts "
                f"of a step; lower it"
            )
        lora = self.model.lora
        if lora is not None and lora.dropout > 0 and self.train.on_policy_tolerance is None:
            raise ValueError(
                "model.lora.dropout makes the trainer's probabilities differ from the sampler's; set "
                "train.on_policy_tolerance to how much may be, or the dropout to 0"
            )
        for name, chosen in self.evaluation.sets.items():
            unknown = [mode for mode in chosen.modes or [] if mode not in self.modes.kinds]
            if unknown:
                known = ", ".join(self.modes.kinds)
                raise ValueError(
                    f"evaluation.sets.{name}.modes: there is no mode '{unknown[0]}'; modes.kinds has {known}"
                )
        stages = {"train": self.train.optimizer}
        if self.warmup is not None:
            stages["warmup"] = self.warmup.optimizer
            for name, source in self.warmup.sources.items():
                unknown = [mode for mode in source.modes or [] if mode not in self.modes.kinds]
                if unknown:
                    known = ", ".join(self.modes.kinds)
                    raise ValueError(
                        f"warmup.sources.{name}.modes: there is no mode '{unknown[0]}'; modes.kinds has {known}"
                    )
            # Drawing can only run dry at the beginning, or behind the end of a source.
            borders = {1, *(math.ceil(source.end * self.warmup.steps) + 1 for source in self.warmup.sources.values())}
            idle = min((s for s in borders if s <= self.warmup.steps and not self.warmup.active(s)), default=None)
            if idle is not None:
                raise ValueError(f"warmup.sources: none is drawn from at step {idle}; mend begin and end")
        for stage, optimizer in stages.items():
            for part in optimizer.learning_rate_scale:
                if part not in self.model.parts:
                    known = ", ".join(self.model.parts)
                    raise ValueError(
                        f"{stage}.optimizer.learning_rate_scale: no part '{part}'; model.parts has {known}"
                    )
        return self
