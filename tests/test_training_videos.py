"""Prompts with videos: decoded once, encoded once, learned from exactly; whole runs read them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL, make_groups
from PIL import Image
from test_backbones import picture, trainer_logprobs
from test_updates_packed import assert_same, learned, padded
from videos import number_of, numbered_frame, write_digits, write_film

from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config import load_config
from hybrid_rl.film_strip import film_strip
from hybrid_rl.images import inline_png
from hybrid_rl.insight.evaluator import blind
from hybrid_rl.insight.prompt_view import view_prompt
from hybrid_rl.kept_media import MEDIA, keep_media
from hybrid_rl.loggers import first_groups
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import Message, Prompt, Request, Rollout, Score
from hybrid_rl.updates.forward import batches_of, response_logprobs
from hybrid_rl.updates.pass_memory import learning_pass
from hybrid_rl.updates.rows import Row
from hybrid_rl.videos import FileVideo, FrameVideo, InlineVideo, VideoRef
from model.video import VideoFile
from rollouts.torch_engine import TorchEngine

DIGITS = ("123", "4567", "89")
BUDGETS = ["modes.kinds.short.max_new_tokens=7", "modes.kinds.long.max_new_tokens=12"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for number, digits in enumerate(DIGITS):
        write_digits(folder / f"{digits}.gif", digits, seed=number)
    write_film(folder / "numbers.mp4", num_frames=90)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The videos whose frames were decoded; the memory is empty before and after."""
    names: list[str] = []
    frames = VideoFile.frames

    def noting(self: VideoFile, indices: Sequence[int]) -> Iterator[Image.Image]:
        names.append(Path(self.path).name)
        return frames(self, indices)

    monkeypatch.setattr(VideoFile, "frames", noting)
    keep_media(0)
    keep_media(64)
    yield names
    keep_media(0)


def policy_of(*overrides: str, trainable: bool = False) -> Policy:
    config = load_config(DEFAULT_CONFIG, [*SMALL, *BUDGETS, *overrides])
    return load_policy(config.model, config.modes, seed=0, search=config.search, trainable=trainable)


def asked(*videos: VideoRef, text: str = "Read the digits.", images: Sequence[int] = ()) -> Prompt:
    shown = tuple(map(picture, images))
    return Prompt(
        id=text, source="s", task="t", messages=(Message(role="user", text=text),), gold="", images=shown, videos=videos
    )


def film(films: Path, digits: str) -> FileVideo:
    return FileVideo(str(films / f"{digits}.gif"))


def prompts_of(films: Path) -> list[Prompt]:
    """Two show the same video, one beside another, one a picture and a video, one nothing."""
    first, second, third = (film(films, digits) for digits in DIGITS)
    return [
        asked(first, text="Read."),
        asked(second, first, text="Read all of it."),
        asked(third, text="And this?", images=[1]),
        asked(text="Nothing to see."),
    ]


def requests_of(films: Path) -> list[Request]:
    modes = load_config(DEFAULT_CONFIG, [*SMALL, *BUDGETS]).modes
    return make_requests(prompts_of(films), ["short", "long"] * 2, modes, step=1, num_responses=3, seed=0)


# --- what the policy is shown ----------------------------------------------------------------------------------------


def test_a_video_stands_behind_the_images_and_before_the_text(films: Path) -> None:
    policy = policy_of()
    prompt = asked(film(films, "123"), text="Read", images=[0])
    view = view_prompt(policy.format, prompt, "long", policy.forbidden_ids, 8)
    parts = [piece.part for piece in view.pieces if piece.part != "prefilled"]
    assert parts.index("image") < parts.index("video") < len(parts) - parts[::-1].index("video") < len(parts)
    bare = view_prompt(policy.format, replace(prompt, videos=()), "long", policy.forbidden_ids, 8)
    assert sum(p.count for p in view.pieces if p.part == "image") == sum(
        p.count for p in bare.pieces if p.part == "image"
    )


def test_the_policy_sees_the_processors_own_choice_of_frames(films: Path) -> None:
    policy = policy_of()
    path = str(films / "numbers.mp4")
    inputs = policy.format.inputs(asked(FileVideo(path)), "long")
    message = {"role": "user", "content": [{"type": "video", "video": path}, {"type": "text", "text": "x"}]}
    plain = policy.processor.apply_chat_template([message], tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs.media["temporal_ids"] == plain["temporal_ids"][0] and len(inputs.media["temporal_ids"]) == 9
    for ours, theirs in zip(inputs.media["pixel_values"], plain["pixel_values"][0], strict=True):
        assert torch.equal(ours, theirs)


def test_the_config_chooses_frames_and_a_checkpoint_keeps_the_choice(films: Path, tmp_path: Path) -> None:
    clip = asked(FileVideo(str(films / "numbers.mp4")))
    policy = policy_of("model.video={frames_per_second: 2.0, max_packages: 2, max_frames_per_package: 2}")
    (first, second) = policy.format.inputs(clip, "long").media["temporal_ids"]
    assert len(first) == len(second) == 2
    policy.processor.save_pretrained(tmp_path)
    assert type(policy.processor).from_pretrained(tmp_path).video_options == policy.processor.video_options
    assert len(policy_of("model.video={frames_per_second: 1.0}").format.inputs(clip, "long").media["temporal_ids"]) == 3


def test_files_bytes_and_frames_show_the_same(films: Path, tmp_path: Path) -> None:
    policy = policy_of()
    path = films / "123.gif"
    clip = policy.format.clip(FileVideo(str(path)))
    single = tuple(inline_png(frame) for frame in clip.frames(range(clip.num_frames)))
    given = [FileVideo(str(path)), InlineVideo(path.read_bytes()), FrameVideo(single, clip.source_fps)]
    found = [policy.format.inputs(asked(video), "short") for video in given]
    assert len({inputs.ids for inputs in found}) == 1
    for inputs in found[1:]:
        assert inputs.media["temporal_ids"] == found[0].media["temporal_ids"]
        assert all(map(torch.equal, inputs.media["pixel_values"], found[0].media["pixel_values"]))
    chosen_already = policy.format.inputs(asked(FrameVideo(single)), "short").media["temporal_ids"]
    assert chosen_already == [[0], [3], [7]] and found[0].media["temporal_ids"] != chosen_already


def test_a_blanked_video_has_the_same_tokens_and_shows_nothing(films: Path) -> None:
    policy = policy_of()
    prompt = asked(film(films, "4567"), images=[0])
    sighted, blanked = (policy.format.inputs(p, "long") for p in (prompt, blind(prompt)))
    assert blanked.ids == sighted.ids and blanked.media["temporal_ids"] == sighted.media["temporal_ids"]
    assert max(float(pixels.std(correction=0)) for pixels in blanked.media["pixel_values"]) < 1e-5
    assert min(float(pixels.std(correction=0)) for pixels in sighted.media["pixel_values"]) > 0.1
    assert policy.format.inputs(blind(blind(prompt)), "long").media["temporal_ids"] == blanked.media["temporal_ids"]


def test_prompts_with_videos_travel_to_other_processes(films: Path) -> None:
    refs = (film(films, "123"), InlineVideo(b"film"), FrameVideo((inline_png(numbered_frame(1)),), 2.0))
    prompt = blind(asked(*refs))
    assert pickle.loads(pickle.dumps(prompt)) == prompt and hash(prompt.videos)
    assert [ref.digest() for ref in prompt.videos] != [ref.digest() for ref in refs]


def test_a_strip_shows_frames_from_left_to_right(films: Path) -> None:
    policy = policy_of()
    strip = film_strip(policy.format.clip(FileVideo(str(films / "numbers.mp4"))))
    assert strip.size == (4 * 64 + 6, 48)
    numbers = [number_of(strip.crop((66 * i, 0, 66 * i + 64, 48))) for i in range(4)]
    assert numbers == [11, 33, 56, 78]


def test_loggers_are_shown_a_strip_behind_the_images(films: Path, make_rollout: Callable[..., Rollout]) -> None:
    prompt = asked(film(films, "123"), images=[1])
    groups = make_groups([make_rollout(prompt=prompt)], [Score(value=1.0)], eps=1e-4, min_std=1e-6)
    (sample,) = first_groups(groups, policy_of().format.clip)
    assert [image.size for image in sample.images] == [(110, 60), (3 * 80 + 2 * 2, 80)]


# --- kept by content -------------------------------------------------------------------------------------------------


def test_both_modes_every_pass_and_every_name_decode_a_video_once(
    films: Path, decoded: list[str], tmp_path: Path
) -> None:
    policy = policy_of()
    copy = tmp_path / "copy.gif"
    copy.write_bytes((films / "123.gif").read_bytes())
    for path in (films / "123.gif", copy):
        for mode in ("short", "long"):
            for _ in range(2):
                policy.format.inputs(asked(FileVideo(str(path))), mode)
    assert decoded == ["123.gif"]


def test_a_changed_video_is_seen(decoded: list[str], tmp_path: Path) -> None:
    policy, path = policy_of(), tmp_path / "a.gif"
    prompt = asked(FileVideo(write_digits(path, "12")))
    before = policy.format.inputs(prompt, "long").media["pixel_values"]
    write_digits(path, "21")
    after = policy.format.inputs(prompt, "long").media["pixel_values"]
    assert len(decoded) == 2 and not torch.equal(before[0], after[0])


def test_a_video_beyond_the_memory_is_read_frame_by_frame(films: Path, decoded: list[str]) -> None:
    policy = policy_of()
    keep_media(0)
    for _ in range(2):
        policy.format.inputs(asked(film(films, "89")), "long")
    assert decoded == ["89.gif"] * 2 and MEDIA.num_bytes == 0


# --- sampling and learning -------------------------------------------------------------------------------------------


def test_sampler_and_trainer_agree_and_encode_each_package_once(films: Path) -> None:
    policy, requests = policy_of(), requests_of(films)
    engine = TorchEngine(policy)
    generations = engine.generate(requests)
    for found, generation in zip(trainer_logprobs(policy, requests, generations), generations, strict=True):
        torch.testing.assert_close(found, torch.tensor(generation.logprobs), atol=1e-4, rtol=0)
    packages = {
        json.dumps([ticks, pixels.tolist()])
        for prompt in prompts_of(films)
        for inputs in [policy.format.inputs(prompt, "long")]
        for ticks, pixels in zip(
            inputs.media.get("temporal_ids", ()), inputs.media.get("pixel_values", ()), strict=True
        )
    }
    assert engine.figures.vision_encodes == engine.figures.unique_images == len(packages) > 6


def rows_of(policy: Policy, films: Path) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for prompt, mode, lengths in zip(
        prompts_of(films), ("short", "long") * 2, ((5, 1, 9), (3, 3), (7, 2), (4,)), strict=True
    ):
        inputs = policy.format.inputs(prompt, mode)
        rows += [
            Row(inputs, tuple(torch.randint(30, 90, (length,), generator=generator).tolist()), 0.8)
            for length in lengths
        ]
    return rows


PACKED = "model.video={max_packages: 1, max_frames_per_package: 6}"
"""Several frames in a package."""


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("overrides", [(), (PACKED,)], ids=["frames", "packages"])
def test_packed_and_shared_is_padded_and_unshared(overrides: tuple[str, ...], frozen: bool, films: Path) -> None:
    policy = policy_of(*overrides, trainable=True)
    vision = [p for name, p in policy.model.named_parameters() if name.startswith(("vpm.", "resampler."))]
    for parameter in vision:
        parameter.requires_grad_(not frozen)
    policy.model.train()
    rows = rows_of(policy, films)
    largest = max(len(ticks) for row in rows for ticks in row.inputs.media.get("temporal_ids", ()))
    assert (largest > 1) == bool(overrides)
    logprobs, gradient = learned(policy, rows, max_tokens=max(row.length for row in rows) + 8)
    expected, wanted = learned(padded(policy), rows)
    assert policy.packing.notices == [] and all(policy.packing.trusted.values())
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=1e-5)
    assert gradient.keys() == wanted.keys()
    assert_same(gradient, wanted)
    assert all((p.grad is None) == frozen for p in vision)


def test_each_package_goes_through_the_tower_once_an_update(films: Path) -> None:
    policy = policy_of(trainable=True)
    rows = rows_of(policy, films)
    learned(policy, rows)  # the first batch of its kind is also compared with padded rows
    encoded: list[int] = []
    policy.model.vpm.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    batches = batches_of(policy, rows, max(row.length for row in rows) + 8)
    assert len(batches) > 2
    with learning_pass(rows, batches) as memory:
        for batch in batches:
            response_logprobs(policy, [rows[i] for i in batch], memory).logprobs_BL.sum().backward()
    assert sum(encoded) == memory.vision.encodes == memory.vision.num_unique


def test_what_a_video_shows_and_when_matters(films: Path) -> None:
    """Frames in the opposite order are another prompt: time is seen."""
    policy = policy_of()
    frames = tuple(inline_png(numbered_frame(number)) for number in (3, 100, 200))
    prompts = [asked(FrameVideo(frames)), asked(FrameVideo(frames[::-1])), asked(FrameVideo(frames[:1] * 3))]
    rows = [Row(policy.format.inputs(prompt, "short"), (40, 41)) for prompt in prompts]
    with torch.no_grad():
        forwards, backwards, still = response_logprobs(policy, rows).logprobs_BL
    assert not torch.allclose(forwards, backwards, atol=1e-4) and not torch.allclose(forwards, still, atol=1e-4)
