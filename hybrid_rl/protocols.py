"""The seams of the system: what a plug-in looks like. Every built-in satisfies the same Protocol as a third-party one.

Where a config key takes a `target`, it names one of these by `module:name` or `file.py:name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hybrid_rl.records import AnswerQuery, Generation, Prompt, Request, Response, Score

if TYPE_CHECKING:
    from torch import Tensor

    from hybrid_rl.backbones.layout import Decoding
    from hybrid_rl.chat_format import PromptInputs
    from hybrid_rl.scorer_pool.verdict import Verdict
    from hybrid_rl.scoring.calls import Call

Split = Literal["train", "eval"]
Weights = Mapping[str, npt.NDArray[np.generic]]
"""Parameter name -> array. bfloat16 tensors travel as uint16 views; `hybrid_rl.workers.weights` converts."""


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
    `without_answer`, what it counts as where it is not called (0; None abstains). A method `check()` is called once
    before a run; it raises a `PluginError` if the reward cannot work.
    """

    def __call__(self, **wanted: Any) -> float | Score | Sequence[float | Score | None] | None: ...


class PolicyHandle(Protocol):
    """The policy as a reward sees it."""

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


class Backbone(Protocol):
    """How a transformers model is called for training and sampling; the only place that knows where images go in it.

    Laws (tested for every backbone): the images of a prompt are encoded once a call, however many rows share the
    prompt; a row does not depend on the rows beside it; `prefill` and `decode` give the logits of `response_logits`.
    Shapes: U = distinct prompts, B = rows, L = longest response, V = vocabulary.
    """

    def prefill(self, model: Any, inputs: Sequence[PromptInputs]) -> tuple[Tensor, Decoding]:
        """Forward each prompt once: the logits that predict the first response token [U, V], and the memory."""
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
    ) -> Tensor:
        """Logits that predict each token of each response behind its prompt [B, L, V]; anything in the padding."""
        ...


class RolloutEngine(Protocol):
    """Generates responses with the weights it was last given.

    An engine class is built as `Engine(policy, **args)` with a `hybrid_rl.policy.Policy`; the policy's weights are
    replaced in place between calls.
    """

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One generation per request, in order. Requests of a group are adjacent and share prompt and mode."""
        ...


class ModeSchedule(Protocol):
    """Decides which prompt is answered in which mode."""

    def assign(self, step: int, num_prompts: int) -> list[str]:
        """The mode of each prompt of a step, `num_prompts` long."""
        ...
