"""The sides of `benchmarks.update`: the same gradient in four forms, on the same weights, prompts and responses.

- `packed`: ours, each prompt once with its responses behind it, no padding.
- `unshared`: ours, no padding, but every response behind a prompt of its own.
- `sorted`: our padded rows, which put responses of like length together.
- `padded`: transformers' forward pass on rows as they come, padded to the longest of all, at the micro-batch size that
  is fastest here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.grpo_cases import Workload
from benchmarks.grpo_ours import make_config
from hybrid_rl.backbones.packing import Packing
from hybrid_rl.machine.kernels import KernelChoice
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.templates import PromptInputs
from hybrid_rl.updates.forward import batches_of, response_logprobs
from hybrid_rl.updates.packed import packed_tokens
from hybrid_rl.updates.padded import padded_tokens
from hybrid_rl.updates.pass_memory import PassMemory, learning_pass
from hybrid_rl.updates.rows import Row
from hybrid_rl.workers.setup import measured_first

SIDES = ("packed", "unshared", "sorted", "padded")
_MICRO_BATCHES = (4, 8, 16, 32)


class UpdateSide:
    """A policy that is up, and one pass of gradient over a workload. The optimizer is left out: it is the same."""

    def __init__(self, work: Workload, folder: Path, threads: int, side: str, *, fast: bool) -> None:
        torch.set_num_threads(threads)
        config = make_config(work, folder, threads)
        self.kernels: KernelChoice = measured_first(config)
        self._fast = fast
        self._side, self._max_tokens = side, config.train.max_tokens_per_micro_batch
        policy = load_policy(config.model, config.modes, seed=0, search=config.search, trainable=True)
        self._policy = policy if side in ("packed", "unshared") else replace(policy, packing=Packing(None))
        self._rows = rows_of(policy, work, shared=side != "unshared")
        self._weights = [(-1.0) ** i / work.response_tokens for i in range(len(self._rows))]
        self.micro_batch = 0
        if side == "padded":
            tried = {size: self._timed(size) for size in _MICRO_BATCHES if size <= len(self._rows)}
            self.micro_batch = min(tried, key=tried.__getitem__)

    def run(self) -> dict[str, float]:
        """Forward and backward over all rows."""
        forwarded = self._forwarded()
        wall = self._timed(self.micro_batch)
        gradients = [p.grad.norm() for p in self._policy.model.parameters() if p.grad is not None]
        return {
            "wall": wall,
            "forwarded_tokens": float(forwarded),
            "forwarded_tokens_per_s": forwarded / wall,
            "gradient_norm": float(torch.stack(gradients).norm()),
        }

    def _timed(self, micro_batch: int) -> float:
        self._policy.model.zero_grad(set_to_none=True)
        start = time.perf_counter()
        with self.kernels.matmul() if self._fast else contextlib.nullcontext():
            batches = self._batches(micro_batch)
            with learning_pass(self._rows, batches) as memory:
                for batch in batches:
                    losses = self._transformers(batch) if micro_batch else self._ours(batch, memory)
                    losses.backward()
        return time.perf_counter() - start

    def _batches(self, micro_batch: int) -> list[list[int]]:
        if not micro_batch:
            return batches_of(self._policy, self._rows, self._max_tokens)
        indices = range(len(self._rows))
        return [list(indices[i : i + micro_batch]) for i in range(0, len(indices), micro_batch)]

    def _forwarded(self) -> int:
        batches = self._batches(self.micro_batch)
        if self._side in ("packed", "unshared"):
            return packed_tokens(self._rows, batches)
        if self._side == "sorted":
            return padded_tokens(self._rows, batches)
        return len(self._rows) * sum(self._widths())

    def _widths(self) -> tuple[int, int]:
        """Of the longest prompt and the longest response."""
        return max(len(row.inputs.ids) for row in self._rows), max(len(row.response) for row in self._rows)

    def _ours(self, batch: Sequence[int], memory: PassMemory) -> torch.Tensor:
        output = response_logprobs(self._policy, [self._rows[i] for i in batch], memory)
        weights_B = torch.tensor([self._weights[i] for i in batch])
        return (output.logprobs_BL.sum(-1) * weights_B).sum()

    def _transformers(self, batch: Sequence[int]) -> torch.Tensor:
        """Prompts padded on the left, responses on the right, as trainers do; logits of the responses alone."""
        width, longest = self._widths()
        ids_BT = torch.zeros(len(batch), width + longest, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for b, row in enumerate(self._rows[i] for i in batch):
            columns = slice(width - len(row.inputs.ids), width + len(row.response))
            ids_BT[b, columns] = torch.tensor([*row.inputs.ids, *row.response])
            mask_BT[b, columns] = 1
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        with self._policy.autocast():
            logits_BLV = self._policy.model(
                input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, logits_to_keep=longest + 1
            ).logits[:, :-1]
        logprobs_BLV = logits_BLV.float().log_softmax(-1)
        logprobs_BL = logprobs_BLV.gather(-1, ids_BT[:, width:, None])[..., 0] * mask_BT[:, width:]
        return (logprobs_BL.sum(-1) * torch.tensor([self._weights[i] for i in batch])).sum()


def rows_of(policy: Policy, work: Workload, *, shared: bool) -> list[Row]:
    """Random responses of the workload's lengths. Unshared, each has a prompt object of its own."""
    generator = torch.Generator().manual_seed(0)
    encode: Callable[[str], list[int]] = policy.processor.encode
    rows = []
    for text, lengths in zip(work.texts, work.lengths, strict=True):
        inputs = PromptInputs(tuple(encode(text)), {})
        for length in lengths:
            response = torch.randint(100, work.sizes.vocabulary, (length,), generator=generator)
            rows.append(Row(inputs if shared else PromptInputs(inputs.ids, {}), tuple(response.tolist())))
    return rows
