"""The probability of the reference answer as a reward: RLPR (arXiv 2506.18254), sections 3.1 and 3.2.

The sampled answer is replaced by the reference, behind the sampled thought; the reward is how probable the policy that
sampled the thought finds it. What the policy finds probable without thinking is no merit of the thought and is
subtracted:

    r = max(0, mean_t p(y_t | prompt, thought, y_<t) - mean_t p_0(y_t | prompt, y_<t))

with y the tokens of the reference answer and p_0 the initial policy. Everything is computed on the sampled ids;
no text is encoded again but the reference. In a mode without thought there is nothing to subtract, and the value is the
same for all responses to a prompt: there it tells prompts apart, and gives no advantage.
"""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.images import content_name
from hybrid_rl.protocols import PolicyHandle
from hybrid_rl.records import AnswerQuery, Prompt, stable_seed

Statistic = Literal["mean_prob", "geometric_mean", "product"]
Baseline = Literal["initial", "current", "none"]

_KEPT_BASELINES = 2**17


def statistic_of(logprobs: Sequence[float], statistic: Statistic) -> float:
    """One number in [0, 1] from the log-probabilities of an answer's tokens, in nats.

    `mean_prob` is the mean of exp(logp), which one improbable token cannot ruin: RLPR's choice. `product` is the
    probability of the answer, `geometric_mean` its root by the number of tokens.
    """
    if statistic == "mean_prob":
        return math.fsum(math.exp(value) for value in logprobs) / len(logprobs)
    total = math.fsum(logprobs)
    return math.exp(total / len(logprobs) if statistic == "geometric_mean" else total)


class Likelihood:
    """Probability of the reference answer behind the sampled thought; 0 where the thought is not closed.

    Args:
        statistic: see `statistic_of`.
        baseline: the policy whose probability without a thought is subtracted, in modes with thought. `initial`: as
            RLPR has it, the policy before the first step, asked once for each prompt and reference and then kept; it
            does not change in a run. `current`: the weights that sampled, asked anew in each step. `none`: nothing.
        baseline_mode: the mode whose prompt the reference stands directly behind. Unset: the first mode of the run
            without thought; without one, the mode of the response, with an empty thought.

    Raises:
        ConfigError: an argument has no such value.
    """

    per = "batch"
    runs_in = "inline"

    def __init__(
        self,
        statistic: Statistic = "mean_prob",
        baseline: Baseline = "initial",
        baseline_mode: str | None = None,
    ) -> None:
        _check("statistic", statistic, ("mean_prob", "geometric_mean", "product"))
        _check("baseline", baseline, ("initial", "current", "none"))
        self._statistic: Statistic = statistic
        self._baseline: Baseline = baseline
        self._baseline_mode = baseline_mode
        self._kept: OrderedDict[int, float] = OrderedDict()

    def check(self, modes: Sequence[str]) -> None:
        """Raise a ConfigError if `baseline_mode` is none of the run's modes."""
        if self._baseline_mode is not None and self._baseline_mode not in modes:
            near = difflib.get_close_matches(self._baseline_mode, modes, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"modes.kinds has {', '.join(modes)}"
            raise ConfigError(f"baseline_mode: there is no mode '{self._baseline_mode}'; {hint}")

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        mode: Sequence[str],
        wants_thought: Sequence[bool],
        gold: Sequence[str],
        prompt: Sequence[Prompt],
        policy: PolicyHandle,
    ) -> list[float]:
        """One value in [0, 1] a response.

        Raises:
            DataError: a prompt has an empty reference answer.
        """
        queries: dict[int, AnswerQuery] = {}
        for i, (sampled, name) in enumerate(zip(ids, mode, strict=True)):
            target = _target(policy, prompt[i], name, gold[i])
            start = policy.format.answer_start(sampled, name)
            if start is not None:
                prefix = tuple(sampled[:start])
                queries[i] = AnswerQuery(prompt=prompt[i], mode=name, prefix_ids=prefix, target_ids=target)
        values = [0.0] * len(ids)
        for i, value in zip(queries, self._ask(policy, list(queries.values())), strict=True):
            values[i] = value
        if self._baseline != "none":
            thought = [i for i in queries if wants_thought[i]]
            bare = [self._without_thought(policy, prompt[i], mode[i], gold[i]) for i in thought]
            for i, base in zip(thought, self._baselines(policy, bare), strict=True):
                values[i] = max(0.0, values[i] - base)
        return values

    def _ask(self, policy: PolicyHandle, queries: Sequence[AnswerQuery], *, initial: bool = False) -> list[float]:
        # Responses with one prefix, as all of a mode without thought have, are one question.
        places: dict[tuple[int, str, tuple[int, ...], tuple[int, ...]], int] = {}
        for query in queries:
            places.setdefault((id(query.prompt), query.mode, query.prefix_ids, query.target_ids), len(places))
        asked: list[AnswerQuery | None] = [None] * len(places)
        for query in queries:
            asked[places[(id(query.prompt), query.mode, query.prefix_ids, query.target_ids)]] = query
        found = policy.answer_logprobs([q for q in asked if q is not None], initial=initial) if places else []
        values = [statistic_of(logprobs, self._statistic) for logprobs in found]
        return [values[places[(id(q.prompt), q.mode, q.prefix_ids, q.target_ids)]] for q in queries]

    def _baselines(self, policy: PolicyHandle, bare: Sequence[AnswerQuery]) -> list[float]:
        if self._baseline == "current":
            return self._ask(policy, bare)
        keys = [_key(query) for query in bare]
        missing: Mapping[int, AnswerQuery] = {
            key: query for key, query in zip(keys, bare, strict=True) if key not in self._kept
        }
        found = dict(zip(missing, self._ask(policy, list(missing.values()), initial=True), strict=True))
        values = [found[key] if key in found else self._kept[key] for key in keys]
        for key, value in zip(keys, values, strict=True):
            self._kept[key] = value
            self._kept.move_to_end(key)
        while len(self._kept) > _KEPT_BASELINES:
            self._kept.popitem(last=False)
        return values

    def _without_thought(self, policy: PolicyHandle, prompt: Prompt, mode: str, gold: str) -> AnswerQuery:
        """The reference with nothing thought before it."""
        chat = policy.format
        chosen = self._baseline_mode
        if chosen is None:
            chosen = next((name for name in chat.modes if chat.thought(name) == "closed"), mode)
        return AnswerQuery(
            prompt=prompt,
            mode=chosen,
            prefix_ids=chat.no_thought_ids(chosen),
            target_ids=_target(policy, prompt, chosen, gold),
        )


def _target(policy: PolicyHandle, prompt: Prompt, mode: str, gold: str) -> tuple[int, ...]:
    target = policy.format.answer_ids(prompt, mode, gold) if gold.strip() else ()
    if not target:
        raise DataError(
            f"prompt {prompt.id} of source {prompt.source} has an empty reference answer, whose probability means "
            f"nothing; give the row an answer, or choose the reward by task or column"
        )
    return target


def _key(query: AnswerQuery) -> int:
    """Names what is asked by its content: two sources may name different prompts alike."""
    prompt = query.prompt
    texts = [part for message in prompt.messages for part in (message.role, message.text)]
    images = map(content_name, prompt.images)
    videos = ("videos", *(video.digest().hex() for video in prompt.videos)) if prompt.videos else ()
    return stable_seed(query.mode, *query.target_ids, "prompt", *texts, "images", *images, *videos)


def _check(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is '{value}'; choose one of {', '.join(known)}")
