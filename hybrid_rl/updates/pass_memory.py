"""What the micro-batches of one pass over rows have in common, and compute once: pictures, and prompts.

A prompt whose responses are spread over several micro-batches is forwarded by itself when the first of them comes, and
goes backwards once, when the last of them has (`cuts`). So the responses of a group need not be in memory together.

Micro-batches go forwards and backwards one after the other: none may go forwards before the last one went backwards.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from hybrid_rl.backbones.kept_prompt import KeptPrompt
from hybrid_rl.backbones.vision_memory import VisionMemory
from hybrid_rl.updates.cuts import Cuts
from hybrid_rl.updates.rows import Row
from hybrid_rl.updates.vision_once import LearningVision


class PassMemory:
    """Args:
    rows, batches: of the pass; none where it is a single micro-batch.
    vision: what the pictures were encoded to; with a gradient, one that gathers it.
    cut: whether micro-batches go backwards to the prompt and no further, until `settle`.
    """

    def __init__(
        self,
        rows: Sequence[Row] = (),
        batches: Sequence[Sequence[int]] = (),
        vision: VisionMemory | None = None,
        *,
        cut: bool = True,
    ) -> None:
        self.vision = vision or VisionMemory()
        self._cut = cut
        shows = Counter(prompt for batch in batches for prompt in {id(rows[i].inputs) for i in batch})
        self._left = {prompt: count for prompt, count in shows.items() if count > 1}
        self._kept: dict[int, tuple[KeptPrompt, Cuts]] = {}

    def is_part(self, rows: Sequence[Row]) -> bool:
        """Whether these rows, of a micro-batch, are all to one prompt that has further ones elsewhere."""
        prompts = {id(row.inputs) for row in rows}
        return len(prompts) == 1 and prompts <= self._left.keys()

    def take_prompt(self, rows: Sequence[Row], forward: Callable[[], KeptPrompt]) -> KeptPrompt:
        """The prompt of the next micro-batch for which `is_part` holds, forwarded if this is its first one."""
        key = id(rows[0].inputs)
        if key not in self._kept:
            cuts = Cuts()
            kept = forward()
            self._kept[key] = kept.mapped(cuts.leaf) if self._cut else kept, cuts
        self._left[key] -= 1
        return self._kept[key][0]

    def settle(self, *, all_done: bool = False) -> None:
        """Let go of the prompts whose micro-batches have all been, and send their gradients back."""
        for key in [key for key in self._kept if all_done or self._left[key] <= 0]:
            _, cuts = self._kept.pop(key)
            cuts.send_back()


@contextlib.contextmanager
def learning_pass(rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> Iterator[PassMemory]:
    """For the micro-batches of an optimizer step, which go forwards and backwards inside the block."""
    vision = LearningVision()
    memory = PassMemory(rows, batches, vision)
    yield memory
    memory.settle(all_done=True)
    vision.send_back()
