"""`train`: the GRPO update; `optimizer`; `warmup`: the supervised stage before it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hybrid_rl.config.data import SourceConfig
from hybrid_rl.config.section import Arguments, Section


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Base learning rate."""
    learning_rate_scale: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Factor of the learning rate by part (`model.parts`); 0 freezes the part."""
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[0.9, 0.95], min_length=2, max_length=2)
    """Decay of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of matrices; vectors (norms, biases) have none."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient is scaled down to this norm."""


class TrainConfig(Section):
    """The GRPO step."""

    prompts_per_step: int = Field(default=128, ge=1)
    """Prompts of a step, over all modes and sources."""
    responses_per_prompt: int = Field(default=8, ge=2)
    """Responses of a group (G)."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer steps a training step; each takes a part of the prompts, stratified by mode."""
    max_tokens_per_micro_batch: int = Field(default=16384, ge=1)
    """Tokens forwarded at once: of a pack, or with the padding where rows are padded. Changes memory and speed, not the
    result. No less than the longest prompt and response together."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    warmup_steps: int = Field(default=0, ge=0)
    """Learning rate: training steps of linear rise to the base one."""
    decay_fraction: float = Field(default=0.0, ge=0, le=1)
    """Learning rate: last fraction of `run.steps` in which it falls (WSD). 0: constant, as in the paper."""
    final_scale: float = Field(default=0.1, ge=0, le=1)
    """Learning rate: factor of the base one that the decay ends at."""
    estimator: str = "grpo"
    """Advantage and policy loss: `grpo`, `dapo`, `dr_grpo`, `rloo`, `gspo`, `cispo` (docs/modes.md), or an object of
    your own by `module:name` or `file.py:name`."""
    clip_low: float | None = Field(default=None, gt=0, le=1)
    """Lower clip range of the ratio. Unset: the estimator's own, 0.2 for grpo."""
    clip_high: float | None = Field(default=None, gt=0)
    """Upper clip range of the ratio. Unset: the estimator's own, 0.28 for grpo (clip-higher, DAPO)."""
    advantage_eps: float = Field(default=1e-4, gt=0)
    """Added to the standard deviation of a group's rewards."""
    min_reward_std: float = Field(default=1e-6, ge=0)
    """A group whose rewards have a smaller standard deviation gets advantage 0 and is counted as zero-variance."""
    aggregate: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """`sum_then_normalize`: advantages of the weighted sum of the reward's parts. `normalize_then_sum` (GDPO): each
    part normalised in its group, the weighted sum of these normalised over the step."""
    baseline: str = "within_mode"
    """Which responses are compared: `within_mode`, `joint`, `bpo`, `hgpo`, `ada_grpo`, `thinkless` (docs/modes.md), or
    a class of your own by `module:Class` or `file.py:Class`."""
    baseline_args: Arguments = Field(default_factory=dict)
    """Arguments of the baseline, such as its alpha."""
    normalizer: Literal["mode_balanced", "token_mean", "sequence_mean", "constant"] | None = None
    """How tokens are weighed. `mode_balanced`: token-mean inside a mode, modes weighted by their prompts. `token_mean`:
    over everything. `sequence_mean`: token-mean inside a response. `constant`: sum over a response divided by
    `constant_length`. Unset: the estimator's own, `mode_balanced` for grpo."""
    constant_length: int | None = Field(default=None, ge=1)
    """Tokens that `normalizer: constant` divides by. Unset: the largest `max_new_tokens` of the modes."""
    kl_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the KL term (k3) against the reference in the loss."""
    reference_every_steps: int = Field(default=1, ge=1)
    """Steps between measurements of the KL metric; with a KL term the reference is asked in every step."""
    async_steps: int = Field(default=0, ge=0)
    """Steps that rollouts may be ahead of the learner: they are sampled while it trains, by weights at most so many
    updates old, and corrected by importance weights. 0: every step samples with the newest weights."""
    importance_cap: float = Field(default=2.0, gt=0)
    """With `async_steps`: bound C of a token's importance weight, min(ratio, C)."""
    on_policy_tolerance: float | None = Field(default=None, gt=0)
    """Largest |ratio - 1| accepted in the first step. Unset: 1e-3 in float32, 0.3 in bfloat16."""


class WarmupSourceConfig(SourceConfig):
    """A prompt source of the warm-up: which modes it teaches, and in which part of the stage."""

    modes: list[str] | None = Field(default=None, min_length=1)
    """Modes taught with it, in equal parts. Unset: all."""
    begin: float = Field(default=0.0, ge=0, lt=1)
    """Share of the stage's steps after which the source begins."""
    end: float = Field(default=1.0, gt=0, le=1)
    """Share of the stage's steps after which the source ends."""


class WarmupConfig(Section):
    """Supervised fine-tuning on reference thoughts and answers in every mode, before the first GRPO step."""

    steps: int = Field(default=1000, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=64, ge=1)
    """Targets of a step, over all modes and sources."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    warmup_steps: int = Field(default=50, ge=0)
    """WSD schedule: steps of the linear rise."""
    decay_fraction: float = Field(default=0.1, ge=0, le=1)
    """WSD schedule: share of the steps, at the end, in which the learning rate falls."""
    final_scale: float = Field(default=0.1, ge=0, le=1)
    """WSD schedule: factor of the learning rate that the decay ends at."""
    sources: dict[str, WarmupSourceConfig] = Field(min_length=1)
    """Prompt sources with reference thoughts. Something has to be drawn at every step."""
    cache: bool = True
    """Keep the result under `$XDG_CACHE_HOME/hybrid-rl` (default `~/.cache/hybrid-rl`) and reuse it when nothing that
    matters has changed."""

    def active(self, step: int) -> list[str]:
        """Names of the sources drawn from at a step, counted from 1."""
        place = (step - 1) / self.steps
        return [name for name, source in self.sources.items() if source.begin <= place < source.end]
