"""Videos: which frames, in which packages, from files and lists, through the processor's public calls."""

import json
import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from videos import SIZE, number_of, numbered_frame, write_film

import model.video
from model import PAPER_VIDEO, MiniCPMVImageProcessor, MiniCPMVProcessor, VideoOptions, choose_frames, tiny_minicpmv
from model.byte_tokenizer import byte_tokenizer
from model.video import VideoFile, open_clip
from model.video_sampling import keep_frames

GOLDEN = Path(__file__).parents[2] / "shared" / "fixtures" / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")


@pytest.fixture(scope="module")
def processor() -> MiniCPMVProcessor:
    return MiniCPMVProcessor(
        MiniCPMVImageProcessor(scale_resolution=56, image_feature_size=8, max_slice_nums=4), byte_tokenizer()
    )


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two seconds at 30 frames a second."""
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4", 60)


def blocks(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]}]


def inputs(processor: MiniCPMVProcessor, conversation: Any, **options: Any) -> Any:
    return processor.apply_chat_template(conversation, tokenize=True, return_dict=True, **options)


def words(processor: MiniCPMVProcessor, ids: list[int]) -> str:
    """The prompt with the runs of placeholders short."""
    return str(processor.tokenizer.decode(ids)).replace("<unk>" * 8, "8")


# Frame choice.


def test_a_short_film_shows_single_frames_from_the_middle_of_each_third_of_a_second() -> None:
    choice = choose_frames(30, 30.0, VideoOptions(fps=3))
    assert choice.indices == (5, 15, 25)
    # 0.1667 s, 0.5 s, 0.8333 s: the nearest tenths.
    assert choice.packages == ((2,), (5,), (8,))


def test_a_long_film_packs_frames_once_the_packages_run_out() -> None:
    choice = choose_frames(3600, 30.0, VideoOptions(fps=3))  # 120 s at 3 a second are 360 frames for 180 packages
    assert len(choice.indices) == 360 and {len(p) for p in choice.packages} == {2}
    longest = choose_frames(36000, 30.0, VideoOptions(fps=3))
    assert len(longest.indices) == 540 and len(longest.packages) == 180


def test_ticks_are_cut_as_the_released_helper_cuts_them() -> None:
    # A frame at exactly 4.3 s: the multiple of 0.1 nearest to it is 4.3, and 4.3 / 0.1 is 42.99...
    assert choose_frames(100, 10.0, VideoOptions(fps=10)).packages[43] == (42,)


def test_the_range_of_the_paper_is_1080_frames_at_ten_a_second() -> None:
    choice = choose_frames(108 * 30, 30.0, PAPER_VIDEO)
    assert len(choice.indices) == 1080 and len(choice.packages) == 180 and {len(p) for p in choice.packages} == {6}
    assert choose_frames(30, 30.0, PAPER_VIDEO).indices == tuple(range(1, 30, 3))


def test_a_single_frame_is_a_film() -> None:
    assert choose_frames(1, 30.0, VideoOptions()).indices == (0,)  # 0.1 frames by the formula


@given(
    st.integers(1, 20000), st.floats(0.5, 120), st.sampled_from([0.5, 1, 3, 5, 10]), st.integers(1, 6), st.booleans()
)
@settings(max_examples=150)
def test_choices_stay_inside_the_film_and_the_budget(n: int, rate: float, fps: float, most: int, kept: bool) -> None:
    options = VideoOptions(fps=fps, max_packing=most)
    choice = keep_frames(n, options) if kept else choose_frames(n, rate, options)
    assert list(choice.indices) == sorted(choice.indices)
    assert choice.indices[0] >= 0 and choice.indices[-1] < n
    assert len(choice.indices) <= 180 * most and len(choice.packages) <= 181
    assert sum(map(len, choice.packages)) == len(choice.indices) and {len(p) for p in choice.packages[:-1]} <= {
        len(choice.packages[0])
    }
    assert max(choice.packages[-1]) <= math.ceil(n / (fps if kept else rate) * 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0}, "fps of a video"),
        ({"fps": math.nan}, "fps of a video"),
        ({"max_packing": 7}, "must be 1 to 6 frames"),
        ({"packing": 0}, "packing of a video"),
        ({"frames": 3}, "no option frames; there are fps"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoOptions().with_changes(changes)


@needs_golden
def test_released_frame_choices() -> None:
    for row in json.loads((GOLDEN / "video_sampling.json").read_text())["rows"]:
        options = VideoOptions(fps=row["choose_fps"], packing=row["force_packing"])
        choice = choose_frames(row["n_video_frames"], row["avg_fps"], options)
        assert list(choice.indices) == row["frame_index"]
        assert [list(p) for p in choice.packages] == row["temporal_ids"]


def test_releases_without_time_show_pictures() -> None:
    choice = choose_frames(3000, 30.0, VideoOptions(fps=1, max_packages=64, max_packing=1, timed=False))
    assert len(choice.indices) == 64 and set(choice.packages) == {(-1,)}


# Files.


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.h264", "libx264")])
def test_a_file_gives_the_frames_that_are_asked_for(tmp_path: Path, name: str, codec: str) -> None:
    clip = open_clip(write_film(tmp_path / name, 60, codec=codec))
    assert clip.num_frames == 60 and clip.size == SIZE
    for indices in ([0, 5, 5, 6, 37, 59], [59], list(range(0, 60, 13))):
        assert [number_of(frame) for frame in clip.frames(indices)] == indices


def test_a_film_taken_sideways_is_shown_upright(tmp_path: Path) -> None:
    clip = open_clip(write_film(tmp_path / "phone.mp4", 4, turn=-90))  # to be turned a quarter to the right
    assert clip.size == (SIZE[1], SIZE[0])
    (frame,) = clip.frames([3])
    assert number_of(frame.rotate(90, expand=True)) == 3


def test_only_the_stretches_around_chosen_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = VideoFile.open(write_film(tmp_path / "a.mp4", 120, key_every=10))
    assert file.times is not None
    starts: list[int] = []
    restart = model.video._restart

    def noted(container: Any, time: int) -> Any:
        starts.append(time)
        return restart(container, time)

    monkeypatch.setattr(model.video, "_restart", noted)
    assert [number_of(frame) for frame in file.frames([3, 95])] == [3, 95]
    assert starts == [file.key_time(file.times[95])]  # straight to the last key frame before frame 95
    assert 85 <= file.times.index(starts[0]) <= 95


@pytest.mark.parametrize(
    "name", ["none.mp4", "words.mp4", "words.txt", "empty.mp4", "picture.png", "list.m3u8", "sound.mp4"]
)
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("words"):
        path.write_text("no film " * 100)
    elif name == "empty.mp4":
        path.touch()
    elif name == "picture.png":
        Image.new("RGB", (8, 8)).save(path)
    elif name == "list.m3u8":
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/film.ts\n")
    elif name == "sound.mp4":
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("aac", rate=8000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 8000
            container.mux(stream.encode(silence))
            container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=f"{name} (is not|cannot be read as) a video"):
        open_clip(str(path))


def test_a_film_cut_short_is_refused(tmp_path: Path, film: str) -> None:
    half = tmp_path / "half.mp4"
    half.write_bytes(Path(film).read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"half\.mp4 cannot be read as a video: it is damaged or cut short .*moov"):
        open_clip(str(half))


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([], "without frames"),
        (7, "must be a file name, a list of frames or an array, got int"),
        (np.zeros((4, 4), np.uint8), "must be \\[T, H, W, C\\]"),
        ("http://example.org/film.mp4", "is no local file"),
    ],
)
def test_other_things_are_refused(video: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_clip(video)


@pytest.mark.parametrize("videos", [[[]], [[[]]], [np.zeros((0, 4, 4, 3), np.uint8)], ()])
def test_a_video_without_frames_is_refused_in_a_prompt(videos: Any) -> None:
    processor = MiniCPMVProcessor(MiniCPMVImageProcessor(), byte_tokenizer())
    with pytest.raises(ValueError, match=r"video without frames|1 video placeholders for 0 videos"):
        processor(text="(<video>./</video>)", videos=videos)


def test_an_empty_list_beside_a_text_without_placeholder_is_a_sample_without_videos() -> None:
    processor = MiniCPMVProcessor(MiniCPMVImageProcessor(), byte_tokenizer())
    assert processor(text="No film.", videos=[[]])["pixel_values"] == [[]]


# Prompts.


def test_a_film_is_one_line_per_package(processor: MiniCPMVProcessor, film: str) -> None:
    conversation = blocks({"type": "video", "video": film, "fps": 3, "packing": 2}, "What happens?")
    assert processor.apply_chat_template(conversation) == (
        "<|im_start|>user\n(<video>./</video>)\nWhat happens?<|im_end|>\n"
    )
    out = inputs(processor, conversation)
    package = "<image>8</image>"  # no number, one view
    assert words(processor, out["input_ids"][0]) == (
        f"<|im_start|>user\n{package}\n{package}\n{package}\nWhat happens?<|im_end|>\n"
    )
    assert out["temporal_ids"] == [[[2, 5], [8, 12], [15, 18]]]
    assert len(out["pixel_values"][0]) == 6 and out["image_bound"][0].shape == (3, 2)


def test_a_file_and_its_frames_give_the_same(processor: MiniCPMVProcessor, film: str) -> None:
    frames = list(open_clip(film).frames(range(60)))
    from_file = inputs(processor, blocks({"type": "video", "video": film}))
    from_list = inputs(processor, blocks({"type": "video", "video": frames, "source_fps": 30}))
    arrays = np.stack([np.asarray(frame) for frame in frames])
    from_array = processor(
        text="<|im_start|>user\n(<video>./</video>)<|im_end|>\n", videos={"video": arrays, "source_fps": 30}
    )
    for other in (from_list, from_array):
        assert other["input_ids"] == from_file["input_ids"] and other["temporal_ids"] == from_file["temporal_ids"]
        for one, two in zip(other["pixel_values"][0], from_file["pixel_values"][0], strict=True):
            assert torch.equal(one, two)


def test_frames_without_a_rate_are_all_shown(processor: MiniCPMVProcessor) -> None:
    frames = [numbered_frame(i) for i in range(5)]
    out = processor(text="(<video>./</video>)", videos=frames, videos_kwargs={"fps": 2, "packing": 3})
    assert out["temporal_ids"] == [[[0, 5, 10], [15, 20]]]


def test_media_mix_in_any_order_in_a_batch(processor: MiniCPMVProcessor) -> None:
    wide, tall = Image.new("RGB", (100, 40), "red"), Image.new("RGB", (40, 100), "blue")
    video = {"type": "video", "video": [numbered_frame(i) for i in range(4)], "packing": 2}
    image, other = ({"type": "image", "image": picture} for picture in (wide, tall))
    samples = [
        blocks(image, video, "a", other),
        blocks("no media"),
        blocks(video, image),
        blocks(video, video, "b"),
    ]
    together = inputs(processor, samples, return_tensors="pt")
    for i, sample in enumerate(samples):
        alone = inputs(processor, sample)
        length = len(alone["input_ids"][0])
        assert together["input_ids"][i][-length:].tolist() == alone["input_ids"][0]
        shift = together["input_ids"].shape[1] - length
        assert torch.equal(together["image_bound"][i], alone["image_bound"][0] + shift)
        assert together["temporal_ids"][i] == alone["temporal_ids"][0]
        for one, two in zip(together["pixel_values"][i], alone["pixel_values"][0], strict=True):
            assert torch.equal(one, two)
        marks = alone["image_bound"][0].tolist()
        assert all(set(alone["input_ids"][0][a:b]) == {processor.image_token_id} for a, b in marks)
        assert len(marks) == len(alone["temporal_ids"][0])
    first = words(processor, inputs(processor, samples[0])["input_ids"][0])
    cell, package = "<slice>8</slice>", "<image>8</image>"
    assert first == (
        f"<|im_start|>user\n<image_id>0</image_id>{package}{cell * 3}\n{package}\n{package}\na\n"
        f"<image_id>1</image_id>{package}{cell}\n{cell}\n{cell}<|im_end|>\n"
    )
    assert together["temporal_ids"][0] == [[-1]] * 4 + [[0, 3], [7, 10]] + [[-1]] * 4


def test_a_model_reads_a_mixed_batch_as_it_reads_each_sample() -> None:
    model, small = tiny_minicpmv(0, num_hidden_layers=1)
    video = {"type": "video", "video": [numbered_frame(i) for i in range(5)], "packing": 3}
    image = {"type": "image", "image": Image.new("RGB", (70, 40), "red")}
    samples = [blocks(video, "a"), blocks(image, "b"), blocks("c")]
    with torch.no_grad():
        together = model(**inputs(small, samples, return_tensors="pt")).logits[:, -1]
        for row, sample in zip(together, samples, strict=True):
            alone = model(**inputs(small, sample, return_tensors="pt")).logits[0, -1]
            assert torch.allclose(row, alone, atol=1e-4)


def test_text_that_looks_like_a_video_stays_text(processor: MiniCPMVProcessor) -> None:
    text = "Write (<video>./</video>) and (<image>./</image>) here: <slice>"
    out = inputs(processor, blocks(text))
    assert out["temporal_ids"] == [[]] and text in processor.tokenizer.decode(out["input_ids"][0])


def test_wrong_numbers_of_videos_are_refused(processor: MiniCPMVProcessor, film: str) -> None:
    with pytest.raises(ValueError, match="0 video placeholders for 1 videos"):
        processor(text="none", videos=film)
    with pytest.raises(ValueError, match="2 video placeholders for 1 videos"):
        processor(text="(<video>./</video>)" * 2, videos=[film])
    with pytest.raises(ValueError, match="The texts have 1 video placeholders for 2 videos"):
        processor(text=["(<video>./</video>)", "a"], videos=[film, film])
    with pytest.raises(ValueError, match="A video block needs one of video, url, path"):
        inputs(processor, blocks({"type": "video"}))
    with pytest.raises(ValueError, match="no option speed"):
        inputs(processor, blocks({"type": "video", "video": film, "speed": 2}))
    with pytest.raises(ValueError, match="describe 2 frames in packages of at least one, but it has 3"):
        processor(text="(<video>./</video>)", videos={"video": [numbered_frame(0)] * 3, "temporal_ids": [[0, 1]]})
    with pytest.raises(ValueError, match="Frame 1 of a video has 8 x 8 pixels, the first one 64 x 48"):
        processor(text="(<video>./</video>)", videos=[numbered_frame(0), Image.new("RGB", (8, 8))])


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 12),
    st.sampled_from([None, 2.0, 30.0]),
    st.sampled_from([None, 1, 3]),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_counts_are_the_lengths_of_prompts(
    size: tuple[int, int], num_frames: int, rate: float | None, packing: int | None, most: int
) -> None:
    processor = _COUNTER
    options: dict[str, Any] = {"packing": packing, "max_slice_nums": most}
    frames = [Image.new("RGB", size)] * num_frames
    out = processor(text="(<video>./</video>)", videos={"video": frames, "source_fps": rate}, videos_kwargs=options)
    assert len(out["input_ids"][0]) == processor.video_token_count(*size, num_frames, rate, **options)
    out = processor(text="(<image>./</image>)", images=frames[0], max_slice_nums=most)
    assert len(out["input_ids"][0]) == processor.image_token_count(*size, max_slice_nums=most)


_COUNTER = MiniCPMVProcessor(MiniCPMVImageProcessor(scale_resolution=28, image_feature_size=4), byte_tokenizer())


def test_540_frames_are_180_packages_of_the_released_size() -> None:
    released = MiniCPMVProcessor(MiniCPMVImageProcessor(), byte_tokenizer())
    # 64 features and two markers a package, and a line break between two of them.
    assert released.video_token_count(1920, 1080, 36000, 30.0) == 180 * 66 + 179


def test_settings_of_videos_are_saved(processor: MiniCPMVProcessor, tmp_path: Path) -> None:
    mine = MiniCPMVProcessor(processor.image_processor, processor.tokenizer, video_options=PAPER_VIDEO)
    mine.save_pretrained(tmp_path)
    assert MiniCPMVProcessor.from_pretrained(tmp_path).video_options == PAPER_VIDEO
    assert processor.video_options == VideoOptions()


@needs_golden
@pytest.mark.parametrize("name", ["video_packages", "video_sliced"])
def test_released_videos_as_video_blocks(name: str) -> None:
    """The card gives frames as pictures; a video block with the same times makes the same inputs."""
    index = json.loads((GOLDEN / "index.json").read_text())
    scenario = index["files"][f"full_{name}.safetensors"]["scenario"]
    settings_of = index["image_processor_of_full_scenarios"]
    keys = ("max_slice_nums", "scale_resolution", "patch_size", "image_feature_size", "use_image_id")
    small = MiniCPMVProcessor(
        MiniCPMVImageProcessor(**{k: settings_of[k] for k in keys if k in settings_of}), byte_tokenizer()
    )
    tensors = load_file(GOLDEN / f"full_{name}.safetensors")
    ticks = scenario["processor_kwargs"]["temporal_ids"]
    frames = _recorded_frames(tensors, sum(map(len, ticks)))
    question = scenario["prompts"][0].split("(<image>./</image>)\n")[-1].split("<|im_end|>")[0]
    video = {
        "type": "video",
        "video": frames,
        "temporal_ids": ticks,
        "max_slice_nums": scenario["processor_kwargs"]["max_slice_nums"],
    }
    out = inputs(small, blocks(video, question), add_generation_prompt=True, enable_thinking=False)
    unk = "<unk>" * small.image_processor.image_feature_size
    assert small.tokenizer.decode(out["input_ids"][0]) == scenario["prompt_final_text"][0].replace("{U}", unk)
    assert out["temporal_ids"] == scenario["temporal_ids"]
    assert torch.equal(out["image_bound"][0], tensors["prompt.image_bound.0"].long())
    assert out["input_ids"] == tensors["prompt.input_ids"].tolist()
    assert [len(strips) for strips in out["pixel_values"]] == scenario["n_pixel_tensors"]
    for i, strip in enumerate(out["pixel_values"][0]):
        assert torch.equal(strip, (tensors[f"pixel_u8.0.{i}"].float() / 255 - 0.5) / 0.5)


def _recorded_frames(tensors: dict[str, torch.Tensor], count: int) -> list[np.ndarray[Any, Any]]:
    images = [tensors[name].numpy() for name in sorted(tensors) if name.startswith("image.0.")]
    assert len(images) == count
    return images
