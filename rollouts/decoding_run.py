"""The loop of a call: extend every response in flight by a token, let go what has ended, let in what waits.

Legend: B = responses in flight.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from hybrid_rl.rollout_figures import RolloutFigures
from rollouts.responses import Responses
from rollouts.row_decoder import RowDecoder
from rollouts.slots import Slots


class DecodingRun:
    """Args:
    group_of: the group of each response, by number.
    """

    def __init__(self, decoder: RowDecoder, slots: Slots, responses: Responses, group_of: Sequence[int]) -> None:
        self._decoder, self._slots, self._responses, self._group_of = decoder, slots, responses, group_of
        self._tokens_B = torch.empty(0, dtype=torch.long)
        self._steps = self._row_steps = 0
        self._prefill_s = self._total_s = 0.0

    def until_some_end(self) -> list[int]:
        """Go on until responses have ended; returns which. None are left once none is returned."""
        start = self._now()
        ended: list[int] = []
        while not ended and self._extend():
            ended = self._let_go()
        self._total_s += self._now() - start
        return ended

    def figures(self) -> RolloutFigures:
        """What the run has done so far."""
        return RolloutFigures(
            prefill_tokens=self._decoder.prefill_tokens,
            decode_steps=self._steps,
            row_steps=self._row_steps,
            padded_tokens=self._decoder.padded_tokens,
            prefill_seconds=self._prefill_s,
            decode_seconds=self._total_s - self._prefill_s,
        )

    def _extend(self) -> bool:
        """One token for every response in flight and for those that come now; False where there is none."""
        decoder, slots = self._decoder, self._slots
        logits = []
        if slots.rows:
            logits.append(decoder.decode(self._tokens_B))
            self._steps, self._row_steps = self._steps + 1, self._row_steps + len(slots.rows)
        if new := slots.fill() if decoder.joins or not slots.rows else []:
            began = self._now()
            logits.append(decoder.admit([self._group_of[row] for row in new]))
            self._prefill_s += self._now() - began
            self._responses.watch(slots.rows)
        if not logits:
            return False
        self._tokens_B, self._ended_B = self._responses.step(torch.cat(logits) if len(logits) > 1 else logits[0])
        return True

    def _let_go(self) -> list[int]:
        """The responses whose last token has come leave their slots."""
        if not bool(self._ended_B.any()):
            return []
        ended = set(torch.nonzero(self._ended_B)[:, 0].tolist())
        rows = self._slots.rows
        keep = [b for b in range(len(rows)) if b not in ended]
        self._decoder.keep(keep, self._slots.keep(keep))
        self._responses.watch(self._slots.rows)
        self._tokens_B = self._tokens_B[torch.tensor(keep, dtype=torch.long, device=self._tokens_B.device)]
        return [row for b, row in enumerate(rows) if b in ended]

    def _now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self._tokens_B.device.type == "cuda":
            torch.cuda.synchronize(self._tokens_B.device)
        return time.perf_counter()
