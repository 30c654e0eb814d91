"""The responses of a call in the making, as tensors: a step samples and records all rows without a loop over them.

Legend: R = responses of the call, B = rows in flight, L = most tokens of a response, S = stop ids of a mode (at most),
V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hybrid_rl.policy import Policy
from hybrid_rl.records import Finish, Generation, Request
from rollouts.sampling import sample_tokens
from rollouts.thinking_budget import Budgets

_FREE = -1
"""Where a forced token would stand: this one is sampled."""


class Responses:
    """Says what the next tokens are, and keeps them. A response begins with the tokens of `mode_token`."""

    def __init__(self, policy: Policy, requests: Sequence[Request], budgets: Budgets) -> None:
        chat, device = policy.format, policy.device
        self._policy, self._requests = policy, requests
        self._mode_tokens = [chat.forced_ids(request.mode) for request in requests]
        self._budgets = [budgets.of(request) for request in requests]
        R, L = len(requests), max(request.max_new_tokens for request in requests)
        self._ids_RL = torch.zeros(R, L, dtype=torch.long, device=device)
        self._logprobs_RL = torch.zeros(R, L, device=device)
        self._uniforms_RL = torch.from_numpy(_uniforms(requests, L)).to(device)
        self._forced_RL = torch.full((R, L), _FREE, dtype=torch.long)
        for row, ids in enumerate(self._mode_tokens):
            self._force(row, 0, ids)
        for row, budget in enumerate(self._budgets):
            token = budget.forced() if budget is not None else None
            if token is not None:  # a budget of 0 tokens
                self._force(row, len(self._mode_tokens[row]), (token,))
        self._forced_RL = self._forced_RL.to(device)
        self._limits_R = torch.tensor([request.max_new_tokens for request in requests], device=device)
        self._stops_RS = _stops([chat.stop_ids(request.mode) for request in requests]).to(device)
        # At temperature 0 the most likely token is taken; its log-probability is that of temperature 1.
        self._temperatures_R = torch.tensor([request.temperature or 1.0 for request in requests], device=device)
        self._greedy_R = torch.tensor([request.temperature == 0 for request in requests], device=device)
        self._lengths_R = torch.zeros(R, dtype=torch.long, device=device)
        self.watch([])

    def watch(self, rows: Sequence[int]) -> None:
        """From now on these responses are in flight, in this order."""
        rows_B = torch.tensor(rows, dtype=torch.long, device=self._lengths_R.device)
        self._rows, self._rows_B = rows, rows_B
        self._temperatures_B1 = self._temperatures_R[rows_B, None]
        self._limits_B, self._stops_BS = self._limits_R[rows_B], self._stops_RS[rows_B]
        greedy_B = self._greedy_R[rows_B]
        self._greedy_B = greedy_B if bool(greedy_B.any()) else None
        self._limited = [b for b, row in enumerate(rows) if self._budgets[row] is not None]
        self._may_force = bool(self._limited) or any(self._mode_tokens[row] for row in rows)

    def step(self, logits_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the next token of every row, or take the forced one, and record it.

        Returns:
            The tokens [B], and whether they are the last of their responses [B].
        """
        place = (self._rows_B, self._lengths_R[self._rows_B])
        logprobs_BV = self._policy.logprobs(logits_BV, self._temperatures_B1)
        tokens_B, logprobs_B = sample_tokens(logprobs_BV, self._uniforms_RL[place])
        free_B = None
        if self._greedy_B is not None:
            tokens_B = torch.where(self._greedy_B, logprobs_BV.argmax(-1), tokens_B)
        if self._may_force:
            forced_B = self._forced_RL[place]
            free_B = forced_B == _FREE
            tokens_B = torch.where(free_B, tokens_B, forced_B)
        if self._greedy_B is not None or free_B is not None:
            logprobs_B = logprobs_BV.gather(-1, tokens_B[:, None])[:, 0]
        self._ids_RL[place], self._logprobs_RL[place] = tokens_B, logprobs_B
        self._lengths_R[self._rows_B] = place[1] + 1
        stopped_B = (tokens_B[:, None] == self._stops_BS).any(-1)
        if free_B is not None:
            stopped_B &= free_B
        self._follow(tokens_B)
        return tokens_B, stopped_B | (place[1] + 1 == self._limits_B)

    def generation(self, row: int) -> Generation:
        """What has become of a request."""
        length = int(self._lengths_R[row])
        ids, logprobs = self._ids_RL[row, :length].tolist(), self._logprobs_RL[row, :length].tolist()
        sampled = (self._forced_RL[row, :length] == _FREE).tolist()
        # A mode token may be trained as the model's choice (`modes.forced_tokens`); what closes a thought never is.
        of_mode = len(self._mode_tokens[row])
        kept = [x if free or i < of_mode else 0.0 for i, (x, free) in enumerate(zip(logprobs, sampled, strict=True))]
        finish, budget = Finish.LENGTH, self._budgets[row]
        if sampled[-1] and ids[-1] in self._policy.format.stop_ids(self._requests[row].mode):
            finish = Finish.BUDGET if budget is not None and budget.closed_by_force else Finish.STOP
        return Generation(ids=tuple(ids), logprobs=tuple(kept), sampled=tuple(sampled), finish=finish)

    def _follow(self, tokens_B: Tensor) -> None:
        """Thinking budgets see what has come, and may force what comes next."""
        if not self._limited:
            return
        tokens, lengths = tokens_B.tolist(), self._lengths_R[self._rows_B].tolist()
        for b in self._limited:
            row, length = self._rows[b], lengths[b]
            budget = self._budgets[row]
            assert budget is not None
            if length <= len(self._mode_tokens[row]):
                continue
            budget.add(tokens[b])
            if (token := budget.forced()) is not None:
                self._force(row, length, (token,))

    def _force(self, row: int, start: int, ids: Sequence[int]) -> None:
        room = self._forced_RL[row, start : start + len(ids)]
        room.copy_(torch.tensor(ids[: len(room)], dtype=torch.long))


def _uniforms(requests: Sequence[Request], columns: int) -> np.ndarray:
    """The random numbers of responses, each a stream of its own that depends on nothing but its seed [R, L].

    float32 on purpose: the largest value is far enough below 1 that scaling by a total cannot round up to it.
    """
    numbers_RL = np.zeros((len(requests), columns), dtype=np.float32)
    for row, request in enumerate(requests):
        stream = np.random.Generator(np.random.Philox(request.seed))
        numbers_RL[row, : request.max_new_tokens] = stream.random(request.max_new_tokens, dtype=np.float32)
    return numbers_RL


def _stops(stop_ids: Sequence[tuple[int, ...]]) -> Tensor:
    """Stop ids as rows of like width, filled up with what no token is [R, S]."""
    width = max(1, *(len(ids) for ids in stop_ids))
    return torch.tensor([[*ids, *[_FREE] * (width - len(ids))] for ids in stop_ids])
