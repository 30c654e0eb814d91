"""Training of a preference model on pairs of answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from hybrid_rl.algorithm.schedule import wsd
from hybrid_rl.config.section import Section
from hybrid_rl.config.training import OptimizerConfig
from hybrid_rl.errors import DataError
from hybrid_rl.policy import training_mode
from hybrid_rl.preference.bradley_terry import bradley_terry_loss
from hybrid_rl.preference.judged import Judged, PreferencePair, PreferenceScorer
from hybrid_rl.preference.scalar_head import PreferenceModel
from hybrid_rl.records import stable_seed
from hybrid_rl.updates.optimizer import PartOptimizer
from hybrid_rl.updates.padded import micro_batches


class PreferenceTraining(Section):
    """How a preference model is trained."""

    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=64, ge=1)
    """Pairs of a step."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    warmup_steps: int = Field(default=0, ge=0)
    """WSD schedule: steps of the linear rise."""
    decay_fraction: float = Field(default=0.1, ge=0, le=1)
    """WSD schedule: share of the steps, at the end, in which the learning rate falls."""
    final_scale: float = Field(default=0.1, ge=0, le=1)
    """WSD schedule: factor of the learning rate that the decay ends at."""
    max_tokens_per_micro_batch: int = Field(default=16384, ge=1)
    """Padded tokens forwarded at once; changes memory and speed, not the result."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a step measured before its update.

    Attributes:
        loss: mean over the pairs, in nats; log 2 for a model that knows nothing.
        accuracy: share of the pairs whose chosen answer has the higher score.
    """

    loss: float
    accuracy: float


def train_preference(
    model: PreferenceModel, pairs: Sequence[PreferencePair], config: PreferenceTraining, *, seed: int
) -> list[StepFigures]:
    """Train on pairs, shuffled anew in every epoch. Step i is a pure function of the weights, the seed and i.

    Raises:
        DataError: there are no pairs, or one is longer than the model reads.
    """
    if not pairs:
        raise DataError("a preference model cannot learn from no pairs; give at least one")
    optimizer = PartOptimizer(model.policy.model, config.optimizer, model.parts, model.trained_parameters())
    order = _endless(len(pairs), seed)
    figures = []
    with training_mode(model.policy):
        for step in range(1, config.steps + 1):
            batch = [pairs[next(order)] for _ in range(config.batch_size)]
            figures.append(_accumulate_gradient(model, batch, config.max_tokens_per_micro_batch))
            optimizer.step(wsd(step, config.steps, config))
    return figures


def accuracy(
    scorer: PreferenceScorer, pairs: Sequence[PreferencePair], *, max_tokens: int = 16384, max_rows: int = 256
) -> float:
    """Share of the pairs whose chosen answer has the higher score; a tie is none, nor is a pair that is not read."""
    judged = [Judged(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    found = scorer.scores(judged, max_tokens=max_tokens, max_rows=max_rows)
    compared = zip(found[::2], found[1::2], strict=True)
    return sum(a > b for a, b in compared if a is not None and b is not None) / len(pairs)


def _accumulate_gradient(model: PreferenceModel, pairs: Sequence[PreferencePair], max_tokens: int) -> StepFigures:
    """Add the gradient of the mean loss of the pairs. The two rows of a pair are forwarded together."""
    # In one call, so that both rows of a pair share their inputs and images are encoded once.
    both = [Judged(pair.prompt, pair.chosen) for pair in pairs] + [Judged(pair.prompt, pair.rejected) for pair in pairs]
    rows = model.rows(both)
    chosen, rejected = rows[: len(pairs)], rows[len(pairs) :]
    longer = [max(two, key=lambda row: row.length) for two in zip(chosen, rejected, strict=True)]
    for pair, row in zip(pairs, longer, strict=True):
        if not model.reads(row):
            raise DataError(
                f"prompt {pair.prompt.id} of source {pair.prompt.source} with its answer has {row.length} tokens, and "
                f"the preference model reads fewer than {model.policy.context_length}; leave the pair out"
            )
    loss = wins = 0.0
    for batch in micro_batches(longer, max_tokens // 2):
        scores_2B = model.forward([chosen[i] for i in batch] + [rejected[i] for i in batch])
        chosen_B, rejected_B = scores_2B.chunk(2)
        part = bradley_terry_loss(chosen_B, rejected_B).sum() / len(pairs)
        part.backward()
        loss += part.item()
        wins += float((chosen_B > rejected_B).sum())
    return StepFigures(loss, wins / len(pairs))


def _endless(count: int, seed: int) -> Iterator[int]:
    """Indices in an order of its own for every epoch."""
    epoch = 0
    while True:
        order = list(range(count))
        random.Random(stable_seed("preference pairs", seed, epoch)).shuffle(order)
        yield from order
        epoch += 1
