"""`rewards check-data`: a reference that its own reward does not accept teaches the model that right is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from hybrid_rl.config import Config
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.protocols import Split
from hybrid_rl.records import Outcome, Prompt, Score
from hybrid_rl.scoring import Scorer
from hybrid_rl.scoring.reference_check import answered, plain_answer

_BATCH = 256
_SPLITS: tuple[Split, ...] = ("train", "eval")


@dataclass(frozen=True, slots=True)
class UnfitRow:
    """A row whose reference, given as the answer, does not get full marks from `rewards.accuracy`, or only by itself.

    Attributes:
        read_by_itself_alone: it gets full marks, and `score` is that of another answer.
    """

    split: str
    prompt: Prompt
    score: Score
    read_by_itself_alone: bool = False

    @property
    def reason(self) -> str:
        if "accuracy" in self.score.errors:
            return self.score.errors["accuracy"]
        outcome = self.score.outcomes["accuracy"]
        if outcome is Outcome.ABSTAIN and self.read_by_itself_alone:
            return "cannot be read: the reward knows the same characters again, and abstains on another answer"
        return f"scores {self.score.parts['accuracy']:g}" if outcome is Outcome.OK else outcome.value


def check_data(config: Config, num_rows: int) -> tuple[int, list[UnfitRow]]:
    """Score the references of the first rows of each split; how many were looked at, and those that are unfit.

    Args:
        num_rows: of each split, over its sources by their weight.

    Raises:
        UserError: the data or the reward cannot be used at all.
    """
    accuracy = config.rewards["accuracy"].model_copy(update={"max_error_share": 1.0})
    mode = next(iter(config.modes.kinds))
    scorer = Scorer({"accuracy": accuracy}, config.search, {mode: False}, processes=config.cluster.scorer_processes)
    looked_at, unfit = 0, []
    for split in _SPLITS:
        prompts = make_mixture(config.data.sources, split, config.run.seed, config.search).first(num_rows)
        for batch in _batches(prompts):
            for prompt in batch:
                scorer.check(prompt)
            scores = scorer.score_all([answered(prompt, mode, prompt.gold) for prompt in batch])
            others = scorer.score_all([answered(prompt, mode, plain_answer(prompt.gold)) for prompt in batch])
            looked_at += len(batch)
            for prompt, score, other in zip(batch, scores, others, strict=True):
                if score.parts.get("accuracy") != 1.0:
                    unfit.append(UnfitRow(split, prompt, score))
                elif other.outcomes.get("accuracy") is Outcome.ABSTAIN:
                    unfit.append(UnfitRow(split, prompt, other, read_by_itself_alone=True))
    return looked_at, unfit


def _batches(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    return [list(islice(prompts, start, start + _BATCH)) for start in range(0, len(prompts), _BATCH)]
