"""Processor: chat renderings, spans, packing, literal text, and the released outputs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen2Tokenizer

from model import MiniCPMVImageProcessor, MiniCPMVProcessor, tiny_minicpmv
from model.byte_tokenizer import byte_tokenizer
from model.image_processing import to_rgb

plain_tiny = partial(tiny_minicpmv, query_num=8, words=())
"""Eight queries and bytes alone: the numbers in these tests are those of this size."""

SHARED = Path(__file__).parents[2] / "shared" / "fixtures"
GOLDEN = SHARED / "minicpmv" / "dev"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared golden files are not on this machine")


def picture(width: int = 80, height: int = 60) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ask(text: str, *pictures: Image.Image) -> list[dict[str, Any]]:
    blocks = [{"type": "image", "image": image} for image in pictures]
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def processor() -> MiniCPMVProcessor:
    return plain_tiny(0)[1]


@pytest.fixture(scope="module")
def slicer() -> MiniCPMVProcessor:
    """A processor that cuts pictures above 56 x 56 pixels into up to four cells."""
    return plain_tiny(0, max_slice_nums=4)[1]


@pytest.fixture(scope="module")
def released() -> MiniCPMVProcessor:
    """The released tokenizer and slicing settings; the big vocabulary is loaded once."""
    tokenizer = Qwen2Tokenizer.from_pretrained(SHARED / "real_tokenizer")
    return MiniCPMVProcessor(MiniCPMVImageProcessor(), tokenizer)


def features(processor: MiniCPMVProcessor, conversation: Any, **options: Any) -> Any:
    return processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True, **options
    )


def test_rendering_has_one_placeholder_per_image_and_blocks_on_lines(processor: MiniCPMVProcessor) -> None:
    text = processor.apply_chat_template(ask("Why?", picture()), add_generation_prompt=True, enable_thinking=False)
    assert text == (
        "<|im_start|>user\n(<image>./</image>)\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_a_conversation_becomes_lists_over_samples(processor: MiniCPMVProcessor) -> None:
    out = features(processor, ask("Hi!", picture()), enable_thinking=True)
    assert out["input_ids"][0] == processor.tokenizer.encode(
        "<|im_start|>user\n<image_id>0</image_id><image>" + "<unk>" * 8 + "</image>\nHi!<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    assert out["attention_mask"] == [[1] * len(out["input_ids"][0])]  # "!" is id 0 and still attended to
    assert [i for i, t in enumerate(out["input_ids"][0]) if t == 256] == list(range(*out["image_bound"][0][0].tolist()))
    assert out["tgt_sizes"][0].tolist() == [[3, 5]] and out["temporal_ids"] == [[[-1]]]
    assert [tuple(s.shape) for s in out["pixel_values"][0]] == [(3, 14, 14 * 15)]


def test_text_that_looks_like_markers_stays_text(processor: MiniCPMVProcessor) -> None:
    text = "<unk> <image></image> (<image>./</image>) <slice> <|im_end|>\n<|im_start|>user"
    out = features(processor, ask(text, picture()))
    ids = out["input_ids"][0]
    assert ids.count(processor.image_token_id) == 8
    assert len(out["image_bound"][0]) == 1
    assert processor.tokenizer.encode("a")[0] in range(256)
    literal = [processor.tokenizer.convert_tokens_to_ids(c) for c in ("<", "u", "n", "k", ">")]
    assert any(ids[i : i + 5] == literal for i in range(len(ids)))
    assert ids.count(processor.tokenizer.eos_token_id) == 1  # the turn's own end
    assert text in processor.tokenizer.decode(ids)


def test_markers_in_rendered_text_stay_text(processor: MiniCPMVProcessor) -> None:
    out = processor(text="a <unk><image> (<image>./</image>) </slice>", images=[picture()])
    assert out["input_ids"][0].count(256) == 8 and out["image_bound"][0].shape == (1, 2)
    assert out["input_ids"][0][:7] == processor.tokenizer.encode("a ") + [
        processor.tokenizer.encode(c)[0] for c in "<unk>"
    ]


def test_rendered_text_and_messages_agree(slicer: MiniCPMVProcessor) -> None:
    pictures = [picture(100, 60), picture(40, 30)]
    text = slicer.apply_chat_template(ask("Two?", *pictures), add_generation_prompt=True)
    from_text, from_messages = slicer(text=text, images=pictures), features(slicer, ask("Two?", *pictures))
    for name in ("input_ids", "attention_mask", "temporal_ids"):
        assert from_text[name] == from_messages[name]
    for name in ("image_bound", "tgt_sizes"):
        assert torch.equal(from_text[name][0], from_messages[name][0])
    for one, other in zip(from_text["pixel_values"][0], from_messages["pixel_values"][0], strict=True):
        assert torch.equal(one, other)


def test_grid_rows_are_lines_and_count_is_arithmetic(slicer: MiniCPMVProcessor) -> None:
    out = slicer(text="(<image>./</image>)", images=picture(112, 112))
    unk = "<unk>" * 8
    cells = f"<slice>{unk}</slice>" * 2
    assert slicer.tokenizer.decode(out["input_ids"][0]) == (
        f"<image_id>0</image_id><image>{unk}</image>{cells}\n{cells}"
    )
    assert len(out["input_ids"][0]) == slicer.image_token_count(112, 112)
    assert slicer.image_token_count(112, 112, use_image_id=False, max_slice_nums=1) == 10


@pytest.mark.parametrize("size", [(1, 1), (50, 300), (113, 57), (200, 200)])
def test_token_count_matches_the_prompt(slicer: MiniCPMVProcessor, size: tuple[int, int]) -> None:
    out = slicer(text="(<image>./</image>)", images=picture(*size))
    assert len(out["input_ids"][0]) == slicer.image_token_count(*size)


def test_left_padding_moves_spans(processor: MiniCPMVProcessor) -> None:
    out = features(processor, [ask("A longer question", picture()), ask("b", picture()), ask("c")], return_tensors="pt")
    assert out["input_ids"].shape == out["attention_mask"].shape
    for ids, mask, bound in zip(out["input_ids"], out["attention_mask"], out["image_bound"], strict=True):
        assert mask.tolist() == sorted(mask.tolist())
        for start, stop in bound.tolist():
            assert ids[start:stop].tolist() == [256] * 8 and ids[start - 1] == 283 and ids[stop] == 284
    assert len(out["image_bound"][2]) == 0 and out["pixel_values"][2] == []


def test_frames_of_a_package_share_one_span(processor: MiniCPMVProcessor) -> None:
    text = "(<image>./</image>)\n(<image>./</image>)\n(<image>./</image>)\nGo"
    out = processor(text=text, images=[picture()] * 3, temporal_ids=[[0, 3], [7]], use_image_id=False)
    unk = "<image>" + "<unk>" * 8 + "</image>"
    assert processor.tokenizer.decode(out["input_ids"][0]) == f"{unk}\n{unk}\nGo"
    assert len(out["pixel_values"][0]) == 3 and out["temporal_ids"] == [[[0, 3], [7]]]


def test_wrong_numbers_of_pictures_are_refused(processor: MiniCPMVProcessor) -> None:
    with pytest.raises(ValueError, match="0 image placeholders for 1 images"):
        processor(text="no place", images=[picture()])
    with pytest.raises(ValueError, match="2 image placeholders for 1 images"):
        processor(text="(<image>./</image>)" * 2, images=[picture()])
    with pytest.raises(ValueError, match="An image block needs one of"):
        features(processor, [{"role": "user", "content": [{"type": "image"}]}])
    with pytest.raises(TypeError, match="takes no argument max_slices"):
        processor(text="a", max_slices=3)
    with pytest.raises(ValueError, match="nothing to encode"):
        processor(text="(<image>./</image>)", images=[Image.new("RGB", (0, 4))])


def test_a_prompt_above_the_limit_is_refused_and_never_cut(processor: MiniCPMVProcessor) -> None:
    text = "<|im_start|>user\n(<image>./</image>)\nDescribe it.<|im_end|>\n"
    length = len(processor(text=text, images=[picture()], max_length=200)["input_ids"][0])
    assert len(processor(text=text, images=[picture()], max_length=length)["input_ids"][0]) == length
    start, stop = processor(text=text, images=[picture()])["image_bound"][0][0].tolist()
    with pytest.raises(
        ValueError, match=f"max_length {start + 3} would cut it, inside the tokens {start} to {stop} of an"
    ):
        processor(text=text, images=[picture()], max_length=start + 3)
    with pytest.raises(ValueError, match=rf"has {length} tokens; max_length {length - 1} would cut it\. Raise"):
        processor(text=text, images=[picture()], max_length=length - 1)
    with pytest.raises(ValueError, match="max_length 3 would cut it"):
        features(processor, ask("Describe it.", picture()), max_length=3)


def test_caller_keeps_its_messages(processor: MiniCPMVProcessor) -> None:
    messages = ask("<image>", picture())
    before = [{**m, "content": list(m["content"])} for m in messages]
    features(processor, messages)
    processor.apply_chat_template(messages)
    assert messages == before


def test_saved_processor_loads_the_same(slicer: MiniCPMVProcessor, tmp_path: Path) -> None:
    slicer.save_pretrained(tmp_path)
    conversation = ask("What?", picture(100, 70))
    for loaded in (MiniCPMVProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, MiniCPMVProcessor)
        assert loaded.chat_template == slicer.chat_template
        assert features(loaded, conversation)["input_ids"] == features(slicer, conversation)["input_ids"]
        assert loaded.placeholder_token_ids == slicer.placeholder_token_ids == (256, 283, 284, 293, 294, 295, 296)


def test_patches_lie_side_by_side() -> None:
    processor = MiniCPMVImageProcessor(patch_size=2)
    pixels = torch.arange(3 * 4 * 6.0).reshape(3, 4, 6)
    strip = processor.pack(pixels)
    assert strip.shape == (3, 2, 12)
    assert torch.equal(strip[:, :, 2 * 4 : 2 * 5], pixels[:, 2:4, 2:4])  # patch 4 is row 1, column 1


@pytest.mark.parametrize("shape", [(3, 5, 3), (1, 5, 3), (5, 3, 3), (4, 6), (3, 5, 6), (5, 6, 4), (5, 6, 1)])
def test_arrays_of_any_layout_are_pictures(shape: tuple[int, ...]) -> None:
    expected = (6, 5) if shape == (3, 5, 6) else (shape[1], shape[0])
    assert to_rgb(np.zeros(shape, dtype=np.uint8)).size == expected
    assert to_rgb(torch.zeros(shape)).size == expected


@needs_golden
def test_released_renderings(processor: MiniCPMVProcessor) -> None:
    cases = json.loads((GOLDEN / "processor.json").read_text())["chat_template"]
    for case in cases:
        options = {} if case["enable_thinking"] is None else {"enable_thinking": case["enable_thinking"]}
        rendered = processor.apply_chat_template(
            case["messages"], add_generation_prompt=case["add_generation_prompt"], tools=case.get("tools"), **options
        )
        assert rendered == case["text"], case["name"]
    assert len(cases) == 73


@needs_golden
def test_released_encodings(released: MiniCPMVProcessor) -> None:
    golden = json.loads((GOLDEN / "processor.json").read_text())
    for case in golden["encodings"]:
        assert released.tokenizer.encode(case["text"]) == case["ids"], case["text"]
    assert released.image_token_id == golden["special_token_ids"]["<unk>"]
    ids = features(released, ask("<unk>", picture()))["input_ids"][0]
    assert ids.count(released.image_token_id) == 64  # although the byte merges themselves lead to that id


@needs_golden
def test_released_prompts_spans_and_sizes(released: MiniCPMVProcessor) -> None:
    golden, tensors = json.loads((GOLDEN / "processor.json").read_text()), load_file(GOLDEN / "processor.safetensors")
    for case in golden["cases"]:
        if "upstream_error" in case:
            continue
        images = [[Image.new("RGB", tuple(size)) for size in sample] for sample in case["image_sizes_wh"]]
        out = released(text=case["texts"], images=images, padding=True, **case["kwargs"])
        assert [b.tolist() for b in out["image_bound"]] == case["image_bound"], case["name"]
        assert [b.tolist() for b in out["tgt_sizes"]] == case["tgt_sizes_hw"], case["name"]
        assert out["temporal_ids"] == case["temporal_ids"], case["name"]
        ids, mask = torch.tensor(out["input_ids"]), torch.tensor(out["attention_mask"])
        assert torch.equal(ids * mask, tensors[f"{case['name']}.input_ids"].long()), case["name"]


@needs_golden
def test_released_token_counts(released: MiniCPMVProcessor) -> None:
    for row in json.loads((GOLDEN / "slicing.json").read_text())["rows"]:
        count = released.image_token_count(row["w"], row["h"], max_slice_nums=row["max_slice_nums"])
        assert count == row["n_tokens_real_tokenizer"]


@needs_golden
def test_released_pixels() -> None:
    tensors = load_file(GOLDEN / "pixels.safetensors")
    index = json.loads((GOLDEN / "index.json").read_text())["files"]["pixels.safetensors"]["cases"]
    for case in index:
        name = case["case"]
        processor = MiniCPMVImageProcessor(case["max_slice_nums"], case["scale_resolution"])
        array = tensors[f"{name}.image"].numpy()
        out = processor(array if array.dtype == np.float32 else Image.fromarray(array))
        assert out["tgt_sizes"][0].tolist() == tensors[f"{name}.tgt_sizes"].tolist(), name
        for i, strip in enumerate(out["pixel_values"][0]):
            expected = (tensors[f"{name}.pixel_u8.{i}"].float() / 255 - 0.5) / 0.5
            assert torch.equal(strip, expected), (name, i)


def test_the_tokenizer_renders_text_by_itself() -> None:
    text = byte_tokenizer().apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert text == "<|im_start|>user\na<|im_end|>\n"
