"""A batch may mix text, pictures and videos in any order: every sample answers as if it were alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model import MiniCPMVForConditionalGeneration, MiniCPMVProcessor, tiny_minicpmv

PLACE = "(<image>./</image>)"
STEPS = 5
Sample = tuple[str, list[Image.Image], list[list[int]]]


def picture(seed: int, width: int = 60, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


SAMPLES: dict[str, Sample] = {
    "text": ("Count to three, slowly.", [], []),
    "picture": (f"{PLACE}\nWhat?", [picture(1)], [[-1]]),
    "video": (f"{PLACE}\n{PLACE}\n{PLACE}\n{PLACE}\nThen?", [picture(seed) for seed in range(2, 6)], [[0, 3, 6], [9]]),
    "cut": (f"Big: {PLACE}", [picture(7, 170, 90)], [[-1]]),
}


@pytest.fixture(scope="module")
def tiny() -> tuple[MiniCPMVForConditionalGeneration, MiniCPMVProcessor]:
    return tiny_minicpmv(3, max_slice_nums=4)


def prepare(processor: MiniCPMVProcessor, names: tuple[str, ...]) -> Any:
    texts, images, ticks = zip(*(SAMPLES[name] for name in names), strict=True)
    return processor(text=list(texts), images=list(images), temporal_ids=list(ticks), return_tensors="pt")


def answers(model: Any, inputs: Any) -> Tensor:
    tokens: Tensor = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, eos_token_id=-1)
    return tokens[:, inputs["input_ids"].shape[1] :]


@torch.no_grad()
def argmax_steps(model: Any, inputs: Any) -> Tensor:
    """Greedy answers without a cache: the whole forward again for every token."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(STEPS):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(**{**inputs, "input_ids": ids, "attention_mask": mask}, position_ids=positions).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return ids[:, inputs["input_ids"].shape[1] :]


def test_every_order_answers_as_each_alone(tiny: Any) -> None:
    model, processor = tiny
    alone = {name: answers(model, prepare(processor, (name,)))[0].tolist() for name in SAMPLES}
    assert len(prepare(processor, ("cut",))["image_bound"][0]) > 1  # really cut into cells
    for order in itertools.permutations(SAMPLES):
        got = answers(model, prepare(processor, order)).tolist()
        assert got == [alone[name] for name in order], order


def test_generation_is_argmax_step_by_step(tiny: Any) -> None:
    model, processor = tiny
    for order in (("video", "text", "picture"), ("text", "cut", "video")):
        inputs = prepare(processor, order)
        assert torch.equal(answers(model, inputs), argmax_steps(model, inputs))


def test_media_decide_what_is_answered(tiny: Any) -> None:
    """Without its media a sample's logits differ: the equalities above are not those of blind models."""
    model, processor = tiny
    for name in ("picture", "video", "cut"):
        inputs = prepare(processor, (name,))
        with torch.no_grad():
            seeing = model(**inputs).logits[:, -1]
            inputs["pixel_values"] = [[-strip for strip in inputs["pixel_values"][0]]]
            assert (model(**inputs).logits[:, -1] - seeing).abs().max() > 1e-4, name


def test_time_of_frames_counts(tiny: Any) -> None:
    model, processor = tiny
    inputs = prepare(processor, ("video",))
    with torch.no_grad():
        early = model(**inputs).logits[:, -1]
        inputs["temporal_ids"] = [[[100, 103, 106], [109]]]
        assert (model(**inputs).logits[:, -1] - early).abs().max() > 1e-6
