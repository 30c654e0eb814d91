"""The policy as rewards ask it: log-probabilities from the workers that hold weights, ids from the chat format.

Rewards are scored between sampling and the update. Then rollout and reference workers wait for work, hold the weights
that were sampled from and the initial ones, and never call a reward worker themselves: a call cannot wait for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from hybrid_rl.policy import outline_policy
from hybrid_rl.protocols import ChatFormat
from hybrid_rl.records import AnswerQuery
from hybrid_rl.workers.cluster import Handle
from hybrid_rl.workers.pool import spread_over
from hybrid_rl.workers.setup import WorkerSetup


class ServedPolicy:
    """See `hybrid_rl.protocols.PolicyHandle`. Can be sent to another process if its handles can.

    Args:
        setup: of the rollout workers, for the chat format, which is loaded where and when it is first used.
        rollouts: the rollout workers.
        reference: the reference worker; None with `model.lora`, where rollout workers hold the base as well.
    """

    def __init__(self, setup: WorkerSetup, rollouts: Sequence[Handle], reference: Handle | None) -> None:
        self._setup = setup
        self._rollouts = rollouts
        self._reference = reference

    def __reduce__(self) -> tuple[type[ServedPolicy], tuple[Any, ...]]:
        # The chat format is loaded anew: a tokenizer may be of a module that the other process has to be told of first.
        return ServedPolicy, (self._setup, self._rollouts, self._reference)

    @cached_property
    def format(self) -> ChatFormat:
        config = self._setup.config
        outline = outline_policy(
            config.model,
            config.modes,
            seed=config.run.seed,
            search=config.search,
            checkpoint=self._setup.checkpoint,
        )
        return outline.format

    def answer_logprobs(self, queries: Sequence[AnswerQuery], *, initial: bool = False) -> list[tuple[float, ...]]:
        # Queries on one prompt stay together, so that its images are encoded once.
        bundles = [list(same) for _, same in groupby(queries, key=lambda query: (id(query.prompt), query.mode))]
        if not initial:
            return spread_over(self._rollouts, "answer_logprobs", bundles, interruptible=False)
        holders = self._rollouts if self._reference is None else [self._reference]
        return spread_over(holders, "initial_answer_logprobs", bundles, interruptible=False)
