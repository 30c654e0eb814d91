"""What the config says of the loss, made ready for the update."""

from __future__ import annotations

from dataclasses import dataclass

from hybrid_rl.algorithm.baselines import load_baseline
from hybrid_rl.algorithm.estimators import load_estimator
from hybrid_rl.algorithm.importance import check_correction
from hybrid_rl.algorithm.normalizer import NORMALIZERS, Normalizer
from hybrid_rl.config import Config
from hybrid_rl.errors import PluginError
from hybrid_rl.protocols import Estimator


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRules:
    """Loss of a token, and its weight.

    Attributes:
        clip_low, clip_high: of the config, or else of the estimator.
        importance_cap: bound of the importance weights; None where every rollout is on-policy.
    """

    estimator: Estimator
    clip_low: float
    clip_high: float
    normalizer: Normalizer
    importance_cap: float | None = None


def loss_rules(config: Config) -> LossRules:
    """The rules of a config.

    Raises:
        PluginError: estimator or baseline does not load, or names a normaliser that does not exist.
        ConfigError: rollouts may be old, and the estimator has no correction for that.
    """
    train, kinds = config.train, config.modes.kinds
    estimator = load_estimator(train.estimator, config.search)
    name = train.normalizer or estimator.normalizer
    if name not in NORMALIZERS:
        raise PluginError(
            f"train.estimator '{train.estimator}' asks for the normaliser '{name}'; there are {', '.join(NORMALIZERS)}"
        )
    if train.async_steps:
        check_correction(train.estimator, estimator)
    return LossRules(
        estimator=estimator,
        clip_low=estimator.clip_low if train.clip_low is None else train.clip_low,
        clip_high=estimator.clip_high if train.clip_high is None else train.clip_high,
        normalizer=Normalizer(
            name,
            {mode: kind.loss_weight for mode, kind in kinds.items()},
            train.constant_length or max(kind.max_new_tokens for kind in kinds.values()),
            load_baseline(config).mode_token_weight,
        ),
        importance_cap=train.importance_cap if train.async_steps else None,
    )
