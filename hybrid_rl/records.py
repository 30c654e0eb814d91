"""What flows through a training step, in order. Reading this file is reading the system.

    Prompt -> Request (one response asked for) -> Rollout (the response) -> Score -> Sample (what the loss sees)

Records are frozen; new knowledge wraps old (`Sample(rollout, score, ...)`), nothing is filled in later.
Lengths in brackets: [L] = one entry per generated token of the response, the stop token included.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from hybrid_rl.images import ImageRef
from hybrid_rl.videos import VideoRef

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of the conversation. Images of the prompt, then its videos, stand in order before the text of the first
    user turn."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question with its reference answer.

    Attributes:
        id: unique within its source and stable between runs.
        source: name of the data source (`data.sources`).
        task: picks the reward where a reward is given `by_task`, and splits the metrics.
        gold: the reference answer, as text.
        thought: a reference chain of thought for supervised stages; empty where the data has none.
        columns: every other column of the data row; rewards may ask for them by name.
    """

    id: str
    source: str
    task: str
    messages: tuple[Message, ...]
    gold: str
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()
    thought: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_media(self) -> bool:
        """Whether there is anything to see."""
        return bool(self.images or self.videos)


class Finish(StrEnum):
    """Why a response ended.

    STOP: the model stopped. BUDGET: it stopped too, after its thought had been closed by force at the thinking budget.
    LENGTH: its budget of new tokens ran out, whatever became of the thought.
    """

    STOP = "stop"
    BUDGET = "budget"
    LENGTH = "length"


class Outcome(StrEnum):
    """What became of scoring one response. Anything but OK leaves the statistics of the group.

    ABSTAIN: the reward has no verdict. TIMEOUT: it went over its limit of time or memory. ERROR: it failed.
    """

    OK = "ok"
    ABSTAIN = "abstain"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One response to generate. The requests of a `group` share prompt and mode and are compared with each other.

    Attributes:
        mode: a key of `modes.kinds`.
        group: the baseline's unit, `prompt_id/mode@step.place`.
        index: which response of the group this is, from 0.
        seed: seeds this response's own random stream, so that it does not depend on how work is spread.
        max_new_tokens: budget of generated tokens, the stop token included.
        temperature: of the sampling; 0 takes the most likely token, which is for evaluation only.
        max_think_tokens: thinking budget: a thought that has so many tokens is closed by force. None: no such limit.
        place: of the prompt in its step; requests of one prompt and place answer the same draw, whatever their modes.
        mode_share: share of the responses of this draw, or of the step's prompts of this source, that are asked for in
            this mode: the probability with which the mode was assigned.
    """

    prompt: Prompt
    mode: str
    group: str
    index: int
    seed: int
    max_new_tokens: int
    temperature: float
    max_think_tokens: int | None = None
    place: int = 0
    mode_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What an engine returns for a request.

    Attributes:
        ids: generated token ids [L].
        logprobs: log-probability of each token under the distribution it was drawn from, in nats; of no meaning where
            the token was forced [L].
        sampled: False where the engine forced the token; forced tokens are never trained on [L].
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampled: tuple[bool, ...]
    finish: Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response as `ChatFormat.parse` reads it.

    Attributes:
        text: the decoded response without its stop token; special tokens are kept.
        thought: text of the think block; empty where there is none.
        answer: the final answer; None where the thought was never closed, so that no answer exists.
        closed: the response has a final answer part: its thought, if the mode opens one, was closed.
        leaked: the think blocks are not those that the mode asks for: any in a mode without thought, none or several
            in a mode with thought.
        chosen: where the mode leaves the choice to the model: the mode whose `mode_token` the response begins with;
            empty otherwise.
    """

    text: str
    thought: str
    answer: str | None
    closed: bool
    leaked: bool
    chosen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A finished response with its provenance.

    Attributes:
        versions: oldest and newest policy version that produced one of its tokens.
    """

    request: Request
    generation: Generation
    response: Response
    versions: tuple[int, int]

    @property
    def well_formed(self) -> bool:
        """Ended by itself, with exactly the think block that its mode asks for, be it closed at a thinking budget."""
        return self.generation.finish is not Finish.LENGTH and not self.response.leaked

    @property
    def closed_by_budget(self) -> bool:
        """Its thought was closed by force at the thinking budget, and an answer that ended by itself followed."""
        return self.generation.finish is Finish.BUDGET

    @property
    def num_sampled_tokens(self) -> int:
        return sum(self.generation.sampled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The reward of one response. A reward that has parts of its own returns one too, with `value` and `parts`.

    Attributes:
        value: weighted sum of the parts; meaningless unless `outcome` is OK.
        parts: unweighted value of each reward by its name in the config, and of its own parts as `name.part`.
        outcome: OK if every applicable part is; otherwise the gravest of theirs. A part that is standardised may
            abstain without that.
        outcomes: of each applicable part, by its name.
        errors: what went wrong, by part, where the outcome is ERROR; names the response.
        terms: what each part adds to `value`: its weight times its value, standardised if the config says so.
        seconds: how long each part took for this response.
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome = Outcome.OK
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerQuery:
    """A reference answer behind a sampled thought, or behind none: the log-probabilities of its tokens are asked for.

    Attributes:
        prefix_ids: sampled ids up to where the answer begins; empty for an answer right behind the prompt.
        target_ids: of the answer.
    """

    prompt: Prompt
    mode: str
    prefix_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response as the loss sees it.

    Attributes:
        advantages: one value per token; scalar estimators repeat theirs [L].
        trained: False where the sample is left out of the loss (no score, or a truncation that is masked).
        mode_token: the first token is trained as the choice of the mode, even where the engine forced it.
        start_logprobs: log-probability of each token under the policy that the training step began with, nats [L];
            empty where the loss takes those of its own forward pass.
    """

    rollout: Rollout
    score: Score
    advantages: tuple[float, ...]
    trained: bool
    mode_token: bool = False
    start_logprobs: tuple[float, ...] = ()

    @property
    def loss_mask(self) -> tuple[bool, ...]:
        """True for the tokens that the loss is computed on [L]."""
        sampled = self.rollout.generation.sampled
        if not self.trained:
            return (False,) * len(self.advantages)
        return (True, *sampled[1:]) if self.mode_token and sampled else sampled

    @property
    def old_logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token under the distribution that it was drawn from, nats [L].

        A mode token that was forced was drawn from the assignment of modes, not from the policy: its probability is the
        mode's share (importance correction as AdaptThink's, arXiv 2505.13417, section 3.2).
        """
        generation = self.rollout.generation
        if self.mode_token and not generation.sampled[0]:
            return (math.log(self.rollout.request.mode_share), *generation.logprobs[1:])
        return generation.logprobs


def stable_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on the process or the platform)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
