"""A released folder as it is: tokenizer without tokenizer.json, remote class names, preprocessor settings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from model import (
    MiniCPMOProcessor,
    MiniCPMOTokenizer,
    MiniCPMVImageProcessor,
    MiniCPMVProcessor,
    MiniCPMVTokenizer,
    VideoOptions,
    tiny_minicpmv,
)
from model.byte_tokenizer import byte_tokenizer
from model.chat_template import CHAT_TEMPLATE

SHARED = Path(__file__).parents[2] / "shared" / "fixtures"
RELEASED = SHARED / "real_tokenizer"
needs_released = pytest.mark.skipif(not RELEASED.is_dir(), reason="the released tokenizer is not on this machine")
needs_golden = pytest.mark.skipif(
    not (SHARED / "minicpmv" / "dev").is_dir(), reason="the shared golden files are not on this machine"
)


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> bool:
        raise AssertionError("transformers asked whether to trust remote code")

    monkeypatch.setattr("builtins.input", refuse)


@pytest.fixture(scope="module")
def released() -> Any:
    return AutoProcessor.from_pretrained(RELEASED)


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((SHARED / "minicpmv" / "dev" / "processor.json").read_text())


@needs_released
@needs_golden
def test_the_released_folder_loads_as_a_processor(released: Any, golden: Any) -> None:
    assert type(released) is MiniCPMVProcessor and type(released.tokenizer) is MiniCPMVTokenizer
    slicer = released.image_processor
    assert (slicer.max_slice_nums, slicer.scale_resolution, slicer.image_feature_size) == (9, 448, 64)
    for case in golden["encodings"]:
        assert released.tokenizer.encode(case["text"]) == case["ids"], case["text"]
    for token, token_id in golden["special_token_ids"].items():
        assert released.tokenizer.convert_tokens_to_ids(token) == token_id
    assert len(released.tokenizer) == 151748
    assert (released.tokenizer.eos_token_id, released.tokenizer.pad_token_id) == (151645, 151643)
    visible = released.tokenizer.decode([151667, 198, 151668, 151645], skip_special_tokens=True)
    assert visible == "<think>\n</think>"


@needs_released
@needs_golden
def test_its_renderings_are_the_released_ones(released: Any, golden: Any) -> None:
    for case in golden["chat_template"]:
        options = {} if case["enable_thinking"] is None else {"enable_thinking": case["enable_thinking"]}
        options |= {"add_generation_prompt": case["add_generation_prompt"], "tools": case.get("tools")}
        assert released.apply_chat_template(case["messages"], **options) == case["text"], case["name"]
        assert released.tokenizer.apply_chat_template(case["messages"], tokenize=False, **options) == case["text"]


@needs_released
def test_video_tokens_of_the_released_vocabulary_are_counted(released: Any) -> None:
    frames = [Image.new("RGB", (640, 360))] * 7
    out = released(text="(<video>./</video>)", videos=frames, videos_kwargs={"packing": 3})
    assert len(out["input_ids"][0]) == released.video_token_count(640, 360, 7, packing=3) == 3 * 66 + 2
    assert out["tgt_sizes"][0].shape == (7, 2)


@needs_released
def test_saved_again_it_is_the_same(released: Any, tmp_path: Path) -> None:
    mine = MiniCPMVProcessor(
        MiniCPMVImageProcessor(max_slice_nums=4, norm_mean=(0.1, 0.2, 0.3), use_image_id=False),
        released.tokenizer,
        video_options={"fps": 5.0, "packing": 2},
    )
    mine.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.video_options == VideoOptions(fps=5.0, packing=2)
    assert loaded.image_processor.to_dict() == mine.image_processor.to_dict()
    assert loaded.chat_template == CHAT_TEMPLATE
    assert len(loaded.tokenizer) == len(released.tokenizer)
    text = "Wie? 12 <box>3</box> e\u0301 <think>\n\n</think>\n\n(<image>./</image>)"
    image = Image.new("RGB", (900, 600), "green")
    one, two = loaded(text=text, images=image), mine(text=text, images=image)
    assert one["input_ids"] == two["input_ids"]
    assert all(map(torch.equal, one["pixel_values"][0], two["pixel_values"][0]))


def _omni_folder(folder: Path) -> Path:
    """The files of an omni checkpoint that name its classes."""
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        shutil.copy(RELEASED / name, folder / name)

    def rewrite(name: str, **changes: Any) -> None:
        (folder / name).write_text(json.dumps(json.loads((RELEASED / name).read_text()) | changes))

    rewrite(
        "config.json",
        model_type="minicpmo",
        architectures=["MiniCPMO"],
        auto_map={"AutoConfig": "configuration_minicpm.MiniCPMOConfig", "AutoModel": "modeling_minicpmo.MiniCPMO"},
    )
    rewrite(
        "tokenizer_config.json",
        tokenizer_class="MiniCPMOTokenizerFast",
        auto_map={"AutoTokenizer": ["tokenization_minicpmo_fast.MiniCPMOTokenizerFast", None]},
    )
    rewrite(
        "preprocessor_config.json",
        processor_class="MiniCPMOProcessor",
        auto_map={
            "AutoProcessor": "processing_minicpmo.MiniCPMOProcessor",
            "AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor",
        },
    )
    return folder


@needs_released
def test_omni_names_are_known_too(released: Any, tmp_path: Path) -> None:
    folder = _omni_folder(tmp_path)
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is MiniCPMOProcessor and type(loaded.tokenizer) is MiniCPMOTokenizer
    assert type(AutoTokenizer.from_pretrained(folder)) is MiniCPMOTokenizer
    assert isinstance(AutoImageProcessor.from_pretrained(folder), MiniCPMVImageProcessor)
    text = "a (<image>./</image>) b"
    image = Image.new("RGB", (300, 300))
    assert loaded(text=text, images=image)["input_ids"] == released(text=text, images=image)["input_ids"]


@pytest.mark.parametrize(("version", "timed"), [(2.6, False), ("4.0", False), (4.5, True), (None, True)])
def test_releases_before_time_get_pictures_of_their_videos(tmp_path: Path, version: Any, timed: bool) -> None:
    tiny_minicpmv(0, num_hidden_layers=1)[1].save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "minicpmv", "version": version}))
    assert AutoProcessor.from_pretrained(tmp_path).video_options.timed is timed


def test_templates_that_know_strings_only_get_strings() -> None:
    """The earlier releases have ChatML templates without a switch, which are rendered as they are."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    processor = MiniCPMVProcessor(MiniCPMVImageProcessor(image_feature_size=2), tokenizer)
    image = {"type": "image", "image": Image.new("RGB", (9, 9))}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "<image> What?"}]}]
    ids = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)[0]
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<image_id>0</image_id><image><unk><unk></image>\n<image> What?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(processor.image_token_id) == 2
    assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 1


def test_the_model_refuses_a_prompt_that_was_cut_afterwards() -> None:
    model, processor = tiny_minicpmv(0, num_hidden_layers=1)
    inputs = processor(text="Hi (<image>./</image>)", images=Image.new("RGB", (40, 40)), return_tensors="pt")
    (start, stop) = inputs["image_bound"][0][0].tolist()
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name][:, : stop - 4]
    with pytest.raises(ValueError, match=f"span from {start} to {stop} in a sequence of {stop - 4} tokens"):
        model(**inputs)
