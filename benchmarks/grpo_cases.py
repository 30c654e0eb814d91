"""The cases of `benchmarks.grpo_step`: which prompts, which lengths of responses, which settings of either side.

A prompt is a row of words, each one token; its first word is its number, so that either side knows which lengths its
responses are to have. Lengths are forced and equal on both sides, and so are weights, prompts and threads.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

FIRST_NUMBER = 10
"""Word of the first prompt; the second begins with the next one."""
FIRST_WORD = 100
"""Words from here on fill the prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Shape of the policy (Qwen3; `vision_*` of Qwen2.5-VL's tower), and how many prompts and responses a step has."""

    hidden_size: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 64
    mlp_size: int = 1536
    vocabulary: int = 8192
    vision_layers: int = 6
    vision_size: int = 256
    image_side: int = 224
    images_per_prompt: int = 3
    prompts: int = 8
    group: int = 8
    shorten: int = 1
    """Lengths of prompts and responses are divided by this."""


SIZES = {
    "30m": Sizes(),
    "tiny": Sizes(
        hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_size=96, vocabulary=512, vision_layers=1,
        vision_size=32, image_side=56, images_per_prompt=2, prompts=2, group=2, shorten=16,
    ),
}  # fmt: skip
"""`30m`: 29.4 million parameters. `tiny`: to see that everything runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A comparison.

    Attributes:
        prompt_lengths: tokens of the prompts, taken in turn.
        long, short: lengths of the responses to prompts of even and of odd number: from, to.
        dtype: what both sides compute in; bfloat16 by autocast in the update.
        peer_tuned: the peer gets oneDNN's float32 products and an allocator that keeps freed memory, as ours does.
        tower: None for text; else images, with the vision tower `trained` or `frozen`.
        peer: `trl`, or `in_process`: ours without Ray, against ours with it.
    """

    name: str
    prompt_lengths: tuple[int, ...] = (128,)
    long: tuple[int, int] = (256, 256)
    short: tuple[int, int] = (16, 32)
    dtype: str = "float32"
    peer_tuned: bool = False
    tower: str | None = None
    peer: str = "trl"


_P128 = Case(name="text_p128")
_P512 = Case(name="text_p512", prompt_lengths=(512,))
DEFAULT = ("text_p128", "text_p512")
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        _P128,
        _P512,
        replace(_P128, name="text_p128_peer_tuned", peer_tuned=True),
        replace(_P512, name="text_p512_peer_tuned", peer_tuned=True),
        replace(_P128, name="text_p128_bfloat16", dtype="bfloat16"),
        replace(_P512, name="text_p512_bfloat16", dtype="bfloat16"),
        replace(_P128, name="mixed_prompts", prompt_lengths=(64, 512, 128, 256, 96, 384, 192, 448)),
        replace(_P128, name="equal_lengths", long=(136, 136), short=(136, 136)),
        replace(_P128, name="long_1024", long=(1024, 1024)),
        Case(name="images_trained", prompt_lengths=(64,), tower="trained"),
        Case(name="images_frozen", prompt_lengths=(64,), tower="frozen"),
        replace(_P128, name="ray_overhead", peer="in_process"),
    )
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A case at a size.

    Attributes:
        texts: the prompts.
        lengths: of the responses of each prompt, in tokens.
    """

    case: Case
    sizes: Sizes
    texts: list[str] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)

    @classmethod
    def of(cls, case: Case, sizes: Sizes) -> Workload:
        """The same in every process."""
        numbers = random.Random(0)
        made = cls(case, sizes)
        for p in range(sizes.prompts):
            length = max(2, case.prompt_lengths[p % len(case.prompt_lengths)] // sizes.shorten)
            words = [numbers.randrange(FIRST_WORD, sizes.vocabulary) for _ in range(length - 1)]
            made.texts.append(" ".join(f"w{word}" for word in (FIRST_NUMBER + p, *words)))
            low, high = case.long if p % 2 == 0 else case.short
            spread = high - low + 1
            drawn = [low + (p * sizes.group + g) * 5 % spread for g in range(sizes.group)]
            made.lengths.append([max(1, n // sizes.shorten) for n in drawn])
        return made

    @property
    def longest(self) -> int:
        return max(map(max, self.lengths))

    @property
    def response_tokens(self) -> int:
        return sum(map(sum, self.lengths))


def reward(ids: list[int]) -> float:
    """A reward that costs nothing and differs between responses; the same on both sides."""
    return float(sum(ids) % 7)


def pictures(sizes: Sizes, prompt: int) -> list[bytes]:
    """The images of a prompt as PNG: noise, all different."""
    import io

    import torch
    from PIL import Image

    generator = torch.Generator().manual_seed(prompt)
    found = []
    for _ in range(sizes.images_per_prompt):
        pixels = torch.randint(256, (sizes.image_side, sizes.image_side, 3), generator=generator, dtype=torch.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


def peer_environment(case: Case) -> Mapping[str, str | None]:
    """What the peer's process is given beside threads: its defaults, or the allocator that ours has."""
    plain: dict[str, str | None] = {"OMP_WAIT_POLICY": None}
    if not case.peer_tuned:
        return plain
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    return {**plain, **keep, "MALLOC_TOP_PAD_": str(64 * 2**20)}
