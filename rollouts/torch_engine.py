"""The `torch` rollout engine: batched sampling on a transformers model with a KV cache.

The prompt of a group is prefilled once, its images encoded once, and its memory handed to all responses of the group.
A finished response leaves the batch at once, so short answers do not wait for long ones.

Legend: U = distinct prompts, B = responses in flight, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hybrid_rl.backbones.layout import Decoding
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.policy import Policy
from hybrid_rl.records import Finish, Generation, Request
from rollouts.sampling import sample_tokens
from rollouts.thinking_budget import Budgets, ThinkingBudget


@dataclass(slots=True)
class _Response:
    """A response in the making. It begins with the tokens of `mode_token`."""

    place: int
    request: Request
    uniforms: np.ndarray
    mode_token: tuple[int, ...]
    budget: ThinkingBudget | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def forced(self) -> int | None:
        """The token that comes next by force; None where it is sampled."""
        if len(self.ids) < len(self.mode_token):
            return self.mode_token[len(self.ids)]
        return self.budget.forced() if self.budget is not None else None

    def add(self, token: int, logprob: float, stop_ids: tuple[int, ...]) -> None:
        forced = self.forced is not None
        of_mode = len(self.ids) < len(self.mode_token)
        self.ids.append(token)
        # A mode token may be trained as the model's choice (`modes.forced_tokens`); what closes a thought never is.
        self.logprobs.append(0.0 if forced and not of_mode else logprob)
        self.sampled.append(not forced)
        if self.budget is not None and not of_mode:
            self.budget.add(token)
        if token in stop_ids and not forced:
            closed = self.budget is not None and self.budget.closed_by_force
            self.finish = Finish.BUDGET if closed else Finish.STOP
        elif len(self.ids) == self.request.max_new_tokens:
            self.finish = Finish.LENGTH


class TorchEngine:
    """See `hybrid_rl.protocols.RolloutEngine`.

    Args:
        policy: the policy to sample from.
        max_rows: most responses in flight together; bounds memory.
    """

    def __init__(self, policy: Policy, max_rows: int = 512) -> None:
        if max_rows < 1:
            raise ConfigError(f"rollout.args.max_rows is {max_rows}; it must be at least 1")
        self._policy = policy
        self._max_rows = max_rows
        self._budgets = Budgets(policy.format)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        responses = [
            _Response(
                place,
                request,
                _uniforms(request.seed, request.max_new_tokens),
                self._policy.format.forced_ids(request.mode),
                self._budgets.of(request),
            )
            for place, request in enumerate(requests)
        ]
        # Requests with the largest budgets share a batch, so that short ones do not keep it waiting.
        queue = sorted(responses, key=lambda r: -r.request.max_new_tokens)
        for start in range(0, len(queue), self._max_rows):
            self._run(queue[start : start + self._max_rows])
        return [
            Generation(
                ids=tuple(r.ids),
                logprobs=tuple(r.logprobs),
                sampled=tuple(r.sampled),
                finish=r.finish or Finish.LENGTH,
            )
            for r in responses
        ]

    def _run(self, active: list[_Response]) -> None:
        """Decode a batch of responses to their ends."""
        policy = self._policy
        decoding, logits_BV = self._prefill(active)
        while True:
            tokens_B = self._sample(active, logits_BV)
            keep = [b for b, r in enumerate(active) if r.finish is None]
            if not keep:
                return
            if len(keep) < len(active):
                keep_B = torch.tensor(keep, device=policy.device)
                active = [active[b] for b in keep]
                decoding.select(keep_B)
                tokens_B = tokens_B[keep_B]
            logits_BV = policy.decode(tokens_B, decoding)

    def _prefill(self, active: list[_Response]) -> tuple[Decoding, Tensor]:
        """Forward each distinct prompt once and hand its memory to all of its responses.

        Returns:
            The memory of all rows, and the logits that predict their first token [B, V].
        """
        policy = self._policy
        groups = list(dict.fromkeys(r.request.group for r in active))
        first = {r.request.group: r.request for r in reversed(active)}
        inputs = [policy.format.inputs(first[g].prompt, first[g].mode) for g in groups]
        self._check_lengths(active, dict(zip(groups, (len(i.ids) for i in inputs), strict=True)))
        logits_UV, decoding = policy.prefill(inputs)
        place = {g: u for u, g in enumerate(groups)}
        rows_B = torch.tensor([place[r.request.group] for r in active], device=policy.device)
        decoding.select(rows_B)
        return decoding, logits_UV[rows_B]

    def _sample(self, active: list[_Response], logits_BV: Tensor) -> Tensor:
        """Draw the next token of every response, or take the forced one, and record it."""
        device = self._policy.device
        # At temperature 0 the most likely token is taken; its log-probability is that of temperature 1.
        temperatures_B = torch.tensor([r.request.temperature or 1.0 for r in active], device=device)
        logprobs_BV = self._policy.logprobs(logits_BV, temperatures_B[:, None])
        uniforms_B = torch.tensor([r.uniforms[len(r.ids)] for r in active], device=device)
        tokens_B, logprobs_B = sample_tokens(logprobs_BV, uniforms_B)
        for b, response in enumerate(active):
            if response.forced is not None:
                tokens_B[b] = response.forced
                logprobs_B[b] = logprobs_BV[b, response.forced]
            elif response.request.temperature == 0:
                tokens_B[b] = logprobs_BV[b].argmax()
                logprobs_B[b] = logprobs_BV[b].max()
        for response, token, logprob in zip(active, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            response.add(token, logprob, self._policy.format.stop_ids(response.request.mode))
        return tokens_B

    def _check_lengths(self, active: list[_Response], prompt_lengths: dict[str, int]) -> None:
        limit = self._policy.context_length
        for response in active:
            request = response.request
            total = prompt_lengths[request.group] + request.max_new_tokens
            if total > limit:
                raise DataError(
                    f"prompt {request.prompt.id} has {prompt_lengths[request.group]} tokens and mode {request.mode} "
                    f"may add {request.max_new_tokens}, more than the context of {limit}; shorten the prompt or lower "
                    f"modes.kinds.{request.mode}.max_new_tokens"
                )


def _uniforms(seed: int, count: int) -> np.ndarray:
    """The random numbers of one response: its own stream, independent of every other response [count].

    float32 on purpose: the largest value is far enough below 1 that scaling by a total cannot round up to it.
    """
    return np.random.Generator(np.random.Philox(seed)).random(count, dtype=np.float32)
