"""Before a run: references that their own reward cannot read, found by giving each a plain answer.

A reward that abstains on every answer to a prompt teaches nothing there, and no metric tells it from a hard prompt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import DataError
from hybrid_rl.records import Finish, Generation, Outcome, Prompt, Request, Response, Rollout
from hybrid_rl.scoring.scorer import Scorer

_AT_ONCE = 16
_MAX_S = 10.0
"""Seconds after which no more references are asked about: a slow reward must not keep a run from starting."""


def plain_answer(gold: str) -> str:
    """An answer that anybody can read, and that is not the reference."""
    return "4" if gold.strip() == "3" else "3"


def answered(prompt: Prompt, mode: str, answer: str) -> Rollout:
    """The rollout of a model that gives an answer and nothing else."""
    request = Request(
        prompt=prompt, mode=mode, group=f"{prompt.id}/{mode}@0", index=0, seed=0, max_new_tokens=1, temperature=1.0
    )
    generation = Generation(ids=(), logprobs=(), sampled=(), finish=Finish.STOP)
    response = Response(text=answer, thought="", answer=answer, closed=True, leaked=False)
    return Rollout(request=request, generation=generation, response=response, versions=(0, 0))


def refuse_unreadable(
    rewards: Mapping[str, RewardConfig],
    search: Sequence[str],
    wants_thought: Mapping[str, bool],
    prompts: Sequence[Prompt],
) -> None:
    """Ask the rewards that declare `blames_reference`, those in the pool under their limits, about the references.

    Parts that are standardised add nothing where they abstain, and are left out, as are rewards that need the policy,
    a server or a worker of their own.

    Raises:
        DataError: a reward abstains on a plain answer; with the reward, the row, the reference and what to do.
    """
    began = time.monotonic()
    mode = next(iter(wants_thought))
    for name, part in rewards.items():
        # What a reward raises here is met in the run, under its own `max_error_share`.
        alone = Scorer({name: part.model_copy(update={"max_error_share": 1.0})}, search, wants_thought)
        asked = [] if part.standardize else [prompt for prompt in prompts if alone.blames_reference(prompt)]
        for start in range(0, len(asked), _AT_ONCE):
            if time.monotonic() - began > _MAX_S:
                return
            some = asked[start : start + _AT_ONCE]
            scores = alone.score_all([answered(prompt, mode, plain_answer(prompt.gold)) for prompt in some])
            for prompt, score in zip(some, scores, strict=True):
                if score.outcomes.get(name) is Outcome.ABSTAIN:
                    raise _unreadable(name, prompt)


def _unreadable(name: str, prompt: Prompt) -> DataError:
    gold = prompt.gold if len(prompt.gold) <= 80 else prompt.gold[:80] + "..."
    fault = f"the reference answer '{gold}' cannot be read" if gold.strip() else "the reference answer is empty"
    return DataError(
        f"rewards.{name} would abstain on every answer to prompt {prompt.id} of source {prompt.source}: {fault}; mend "
        f"or remove the row, or choose another reward for it (`hybrid-rl rewards check-data` lists all such rows)"
    )
