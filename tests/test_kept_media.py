"""Images are decoded once for what they show, by whoever needs them, within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hybrid_rl import images
from hybrid_rl.config import Config
from hybrid_rl.images import FileImage, InlineImage, open_image
from hybrid_rl.kept_inputs import processor_digest
from hybrid_rl.kept_media import MEDIA, MediaMemory, keep_media
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Message, Prompt


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the images that were decoded; the memory is empty before and after."""
    names: list[str] = []
    decode = images._decode

    def noting(data: bytes, ref: images.ImageRef) -> Image.Image:
        names.append(ref.name)
        return decode(data, ref)

    monkeypatch.setattr(images, "_decode", noting)
    keep_media(0)
    keep_media(64)
    yield names
    keep_media(0)


def picture(path: Path, red: int) -> FileImage:
    Image.new("RGB", (40, 30), (red, 50, 90)).save(path)
    return FileImage(str(path))


def asked(*refs: images.ImageRef) -> Prompt:
    return Prompt(id="p", source="s", task="t", messages=(Message(role="user", text="What?"),), gold="", images=refs)


def test_the_second_pass_of_an_epoch_decodes_nothing(tiny_policy: Policy, decoded: list[str], tmp_path: Path) -> None:
    prompts = [asked(picture(tmp_path / f"{i}.png", 40 * i)) for i in range(4)]
    first = [tiny_policy.format.inputs(prompt, "long") for prompt in prompts]
    assert len(decoded) == 4
    again = [tiny_policy.format.inputs(prompt, "long") for prompt in prompts]
    assert len(decoded) == 4 and again == first
    other_mode = tiny_policy.format.inputs(prompts[0], "short")
    assert len(decoded) == 4 and other_mode.ids != first[0].ids


def test_what_sampling_has_made_can_be_trained_on(tiny_policy: Policy, decoded: list[str], tmp_path: Path) -> None:
    prompt = asked(picture(tmp_path / "a.png", 3))
    with torch.inference_mode():
        made = tiny_policy.format.inputs(prompt, "long")
    assert made.media["pixel_values"] and not any(pixels.is_inference() for pixels in made.media["pixel_values"])
    assert tiny_policy.format.inputs(prompt, "long") is made


def test_a_changed_file_is_seen(tiny_policy: Policy, decoded: list[str], tmp_path: Path) -> None:
    prompt = asked(picture(tmp_path / "a.png", 0))
    before = tiny_policy.format.inputs(prompt, "long").media["pixel_values"]
    picture(tmp_path / "a.png", 255)
    after = tiny_policy.format.inputs(prompt, "long").media["pixel_values"]
    assert len(decoded) == 2 and not torch.equal(before[0], after[0])


def test_equal_content_under_two_names_is_decoded_once(decoded: list[str], tmp_path: Path) -> None:
    one, two = picture(tmp_path / "one.png", 7), picture(tmp_path / "two.png", 7)
    inline = InlineImage((tmp_path / "one.png").read_bytes())
    assert len({open_image(ref).tobytes() for ref in (one, two, inline)}) == 1
    assert len(decoded) == 1


def test_who_paints_on_an_image_paints_on_a_copy(decoded: list[str], tmp_path: Path) -> None:
    ref = picture(tmp_path / "a.png", 7)
    open_image(ref).putpixel((0, 0), (255, 255, 255))
    assert open_image(ref).getpixel((0, 0)) == (7, 50, 90)


def test_workers_of_a_process_share_what_equal_processors_made(
    small_config: Callable[..., Config], tiny_policy: Policy, decoded: list[str], tmp_path: Path
) -> None:
    config = small_config()
    another = load_policy(config.model, config.modes, seed=0, search=config.search)
    assert processor_digest(another.processor) == processor_digest(tiny_policy.processor)
    prompt = asked(picture(tmp_path / "a.png", 3))
    assert another.format.inputs(prompt, "long") is tiny_policy.format.inputs(prompt, "long")
    another.processor.chat_template = "{{ messages }}"
    assert processor_digest(another.processor) != processor_digest(tiny_policy.processor)


def test_without_a_memory_every_pass_decodes(tiny_policy: Policy, decoded: list[str], tmp_path: Path) -> None:
    keep_media(0)
    prompt = asked(picture(tmp_path / "a.png", 3))
    for _ in range(2):
        tiny_policy.format.inputs(prompt, "long")
    assert len(decoded) == 2 and MEDIA.num_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=40))
def test_the_memory_keeps_its_bound_and_never_mixes_values_up(uses: list[tuple[int, int]]) -> None:
    memory = MediaMemory(200)
    for key, size in uses:
        value = memory.get((key, size), lambda: torch.full((size,), key, dtype=torch.uint8))  # noqa: B023
        assert value.tolist() == [key] * size
        assert memory.num_bytes <= 200


def test_what_was_used_longest_ago_goes_first() -> None:
    memory, made = MediaMemory(20), []

    def use(key: str) -> None:
        memory.get(key, lambda: made.append(key) or torch.zeros(8, dtype=torch.uint8))  # type: ignore[func-returns-value]

    for key in "abacab":
        use(key)
    assert made == ["a", "b", "c", "b"]  # c took the place of b, b that of c; a was used in between
