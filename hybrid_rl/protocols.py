"""The seams of the system: what a plug-in looks like. Every built-in satisfies the same Protocol as a third-party one.

Where a config key takes a `target`, it names one of these by `module:name` or `file.py:name`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from hybrid_rl.records import AnswerQuery, Generation, Prompt, Request, Response, Score

if TYPE_CHECKING:
    from torch import Tensor

    from hybrid_rl.algorithm.advantage import GroupAdvantage
    from hybrid_rl.algorithm.baselines import Member, Progress
    from hybrid_rl.algorithm.policy_loss import PolicyTerms, TokenBatch
    from hybrid_rl.backbones.attention_plan import AttentionPlan
    from hybrid_rl.backbones.layout import Decoding
    from hybrid_rl.backbones.vision_memory import VisionMemory
    from hybrid_rl.scorer_pool.verdict import Verdict
    from hybrid_rl.scoring.calls import Call
    from hybrid_rl.templates import PromptInputs

Split = Literal["train", "eval"]
Thought = Literal["opened", "closed", "free"]
"""What the beginning of a response leaves in a mode: an open think block, a closed (empty) one, or the choice to the
model."""


@runtime_checkable
class PromptSource(Protocol):
    """An ordered, random-access collection of prompts.

    A source class is built as `Source(name=..., split=..., seed=..., **args)`; if it has a parameter `search`, it also
    gets the folders that paths are looked up in. It must give the same prompt for the same index in every process. The
    prompts of the two splits must not share their material.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Prompt: ...


class Reward(Protocol):
    """A reward: a function, sync or async, or a class built once with the `args` of its config entry and then called.

    It asks for what it needs by parameter name: `answer` (final answer; the reward is not called without one unless it
    also asks for `text` or `well_formed`), `thought`, `text`, `ids`, `mode`, `finish`, `well_formed`, `leaked`,
    `wants_thought`, `gold`, `task`, `prompt`, `images`, `group`, `index`, `policy` (a `PolicyHandle`) or any column of
    the data row. It returns a number, a `Score` with parts of its own, or None to abstain.

    It may declare, as attributes: `per` = "sample", "group" or "batch" (beyond a sample every name but `policy` is a
    list with one entry a response, and so is what it returns); `runs_in` = "pool", "inline", "async" or "actor";
    `without_answer`, what it counts as where it is not called (0; None abstains); `blames_reference`, that it abstains
    on a plain answer only for want of a readable reference, which is then refused before a run. A method `check()` is
    called once before a run, with the names of its `modes` if it asks for them; it raises a `PluginError` if the reward
    cannot work.
    """

    def __call__(self, **wanted: Any) -> float | Score | Sequence[float | Score | None] | None: ...


class PolicyHandle(Protocol):
    """The policy as a reward sees it, wherever its weights are."""

    @property
    def format(self) -> ChatFormat:
        """The chat format of the policy: where answers begin, and their ids."""
        ...

    def answer_logprobs(self, queries: Sequence[AnswerQuery], *, initial: bool = False) -> Sequence[tuple[float, ...]]:
        """Log-probability of each target token, in nats, at temperature 1, one tuple a query.

        Args:
            initial: under the policy as it was before the first step, instead of the one that sampled the rollouts.
        """
        ...


class RewardHost(Protocol):
    """A reward in a process of its own."""

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[list[Verdict]]]:
        """Send calls; what is returned waits for the verdicts on the responses of each."""
        ...


class ChatFormat(Protocol):
    """Text in, token ids out and back, for every mode. Nothing else in the project renders or splits text.

    Laws (tested for every format): `prompt_ids` equals the processor's own chat template; the prompt part of a target
    equals `prompt_ids`; `parse` returns the thought and answer that `target_ids` was given.
    """

    def prompt_ids(self, prompt: Prompt, mode: str) -> tuple[int, ...]:
        """Token ids of the prompt, ending where the response begins; the mode's prefilled tokens belong to it [P]."""
        ...

    def target_ids(
        self, prompt: Prompt, mode: str, thought: str, answer: str
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Ids of prompt and response, and the loss mask: True on response tokens, stop token included [P+L], [P+L]."""
        ...

    def parse(self, ids: Sequence[int], mode: str) -> Response:
        """Split generated ids into thought and final answer, as the reconstructed assistant turn has them."""
        ...

    def stop_ids(self, mode: str) -> tuple[int, ...]:
        """Ids that end a response."""
        ...

    def forced_ids(self, mode: str) -> tuple[int, ...]:
        """Ids that every response of the mode begins with; empty in most."""
        ...

    @property
    def modes(self) -> tuple[str, ...]:
        """Names of the modes, in the order of the config."""
        ...

    def thought(self, mode: str) -> Literal["opened", "closed", "free"]:
        """What the prompt of a mode leaves: an open think block, a closed one, or the choice to the model."""
        ...

    def answer_start(self, ids: Sequence[int], mode: str) -> int | None:
        """Where the final answer begins in the ids of a response; None where it has none.

        `ids[:start]` is what the model wrote before its answer: the thought, the closing tag and the blanks behind it.
        A mode whose prompt closes the thought begins with its answer, at 0.
        """
        ...

    def answer_ids(self, prompt: Prompt, mode: str, answer: str) -> tuple[int, ...]:
        """An answer as the template would write it behind a thought or, without one, behind the prompt [A]."""
        ...

    def no_thought_ids(self, mode: str) -> tuple[int, ...]:
        """What stands between prompt and answer if nothing is thought: () unless the prompt leaves a thought open."""
        ...


class Backbone(Protocol):
    """How a transformers model is called for training and sampling; the only place that knows where images go in it.

    One that also has the methods of `hybrid_rl.backbones.packing.PackingBackbone` is trained on packed responses.

    Laws (tested for every backbone): the images of a prompt are encoded once a call, however many rows share the
    prompt; a row does not depend on the rows beside it; `prefill` and `decode` give the logits of `response_logits`.
    Shapes: U = distinct prompts, B = rows, L = longest response, V = vocabulary.
    """

    def prefill(self, model: Any, inputs: Sequence[PromptInputs], vision: VisionMemory) -> tuple[Tensor, Decoding]:
        """Forward each prompt once: the logits that predict the first response token [U, V], and the memory.

        Images that `vision` remembers are not encoded again.
        """
        ...

    def decode(self, model: Any, tokens_B: Tensor, decoding: Decoding) -> Tensor:
        """Feed each row its next token [B]: the logits that predict the one behind it [B, V]. `decoding` goes on."""
        ...

    def response_logits(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        vision: VisionMemory,
    ) -> Tensor:
        """Logits that predict each token of each response behind its prompt [B, L, V]; anything in the padding."""
        ...


@runtime_checkable
class PlannedBackbone(Protocol):
    """What a backbone offers besides, if its models can be told how to attend (`backbones.attention_plan`).

    Law: the logits are those of `prefill` and `decode`. Shapes as in `Backbone`.
    """

    def prefill_planned(
        self, model: Any, inputs: Sequence[PromptInputs], plan: AttentionPlan, vision: VisionMemory
    ) -> tuple[Tensor, list[int]]:
        """Forward prompts end to end in one row, as the plan says.

        Returns:
            The logits that predict the first response token [U, V], and its position behind each prompt [U].
        """
        ...

    def decode_planned(self, model: Any, tokens_B: Tensor, positions_B: Tensor, plan: AttentionPlan) -> Tensor:
        """Feed each row its next token, at these positions: the logits that predict the one behind it [B, V]."""
        ...


class RolloutEngine(Protocol):
    """Generates responses with the weights it was last given.

    An engine class is built as `Engine(policy, **args)` with a `hybrid_rl.policy.Policy`; the policy's weights are
    replaced in place between calls.
    """

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One generation per request, in order. Requests of a group are adjacent and share prompt and mode.

        A response begins with the `forced_ids` of its mode, not sampled but with the policy's log-probability.
        """
        ...


@runtime_checkable
class StreamingEngine(RolloutEngine, Protocol):
    """An engine that hands out generations as they finish, so that these are scored while it goes on.

    Laws: `stream` yields each request once; `generate` returns the same generations, in the order of the requests. The
    order of a stream may depend on anything, what a generation holds may not. Weights stay until the stream is
    exhausted or closed; closed early, it drops what is in flight, and the engine can be called again.
    """

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Generation]]:
        """Pairs of a request's place in `requests` and its generation, each as soon as it is finished.

        The engine works while the next pair is asked for, and rests between. Scoring begins with whole groups, so an
        engine that has the choice finishes the responses of a group near to each other.
        """
        ...


class ModeSchedule(Protocol):
    """Decides which prompt is answered in which mode: a pure function of the step, so that a run resumes anywhere."""

    def assign(self, step: int, prompts: Sequence[Prompt], num_responses: int) -> list[Mapping[str, int]]:
        """For each prompt of a step, how many of its `num_responses` responses are in each mode; no zeros."""
        ...

    def shares(self, step: int, source: str | None = None) -> Mapping[str, float]:
        """The share of each mode that is asked for at a step, of one source or of all; empty where the data decide."""
        ...


class Estimator(Protocol):
    """How rewards of comparable responses become advantages, and which loss the tokens have (`train.estimator`).

    Attributes (plain ones will do):
        normalizer: the token weights it is published with, a name of `hybrid_rl.algorithm.normalizer`.
        clip_low, clip_high: the clip range it is published with.
        importance_correction: may be left out; True where the loss of a token can be multiplied by a weight of the
            token (`train.async_steps`).
    """

    @property
    def normalizer(self) -> str: ...

    @property
    def clip_low(self) -> float: ...

    @property
    def clip_high(self) -> float: ...

    def advantages(self, rewards: Sequence[float | None], *, eps: float, min_std: float) -> GroupAdvantage:
        """Advantages of one group; a response without a reward (None) leaves its statistics and gets 0."""
        ...

    def policy_loss(self, tokens: TokenBatch, *, clip_low: float, clip_high: float) -> PolicyTerms:
        """Loss of each token of a micro-batch, to be minimised."""
        ...


Estimate = Callable[[Sequence[float | None]], "GroupAdvantage"]
"""The estimator's advantages of comparable rewards."""


class Baseline(Protocol):
    """Which responses of a prompt are compared with which (`train.baseline`); built as `Baseline(**baseline_args)`.

    Attributes:
        joint: compares responses in different modes, so that these must be chosen by the model, unless `paired`.
        paired: is made for `modes.assign: paired` with as many responses in each of two modes.
        additive: may be asked about one part of the reward at a time (`train.aggregate: normalize_then_sum`).
        needs_mode_token: trains the token by which the model chooses its mode.
        mode_token_weight: weight of a separate mean over these tokens in the loss; None where they count as any other.
    """

    joint: bool
    paired: bool
    additive: bool
    needs_mode_token: bool
    mode_token_weight: float | None

    def advantages(
        self, groups: Sequence[Sequence[Member]], estimate: Estimate, progress: Progress
    ) -> list[GroupAdvantage]:
        """Advantages of the responses to one prompt; a group and a result for each mode that it was answered in."""
        ...
