"""Pictures of every kind a user may have: odd modes, odd sizes, real photographs, pages, and damaged files."""

import base64
import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from hybrid_rl.errors import DataError
from hybrid_rl.images import FileImage, open_image
from hybrid_rl.insight.thumbnails import thumbnail
from model import MiniCPMVImageProcessor, MiniCPMVProcessor
from model.byte_tokenizer import byte_tokenizer
from model.pictures import MAX_PIXELS, to_rgb

RELEASED = MiniCPMVImageProcessor()
PROCESSOR = MiniCPMVProcessor(RELEASED, byte_tokenizer())


def colour(image: Any, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    return to_rgb(image).getpixel(at)  # type: ignore[return-value]


def page() -> Image.Image:
    """A page of text at 150 dots per inch."""
    canvas = Image.new("L", (1240, 1754), 255)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 28)
    lines = "\n".join(f"{line}. The quick brown fox jumps over the lazy dog, {line * 37} times." for line in range(40))
    ImageDraw.Draw(canvas).multiline_text((80, 80), lines, font=font, fill=0)
    return canvas


REAL = {
    "photograph": lambda: Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)),
    "scan": lambda: Image.fromarray(load_sample_images().images[0]),
    "flower": lambda: load_sample_images().images[1],
    "page": page,
    "transparent": lambda: Image.open(
        matplotlib.cbook.get_sample_data("Minduka_Present_Blue_Pack.png", asfileobj=False)
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_pictures_are_cut_and_counted_alike(name: str) -> None:
    image = REAL[name]()
    rgb = to_rgb(image)
    plan = RELEASED.plan(*rgb.size)
    out = PROCESSOR(text="(<image>./</image>)", images=[image])
    assert len(out["input_ids"][0]) == PROCESSOR.image_token_count(*rgb.size)
    assert out["tgt_sizes"][0].tolist() == [list(grid) for grid in plan.patch_grids(14)]
    assert len(out["pixel_values"][0]) == len(out["image_bound"][0]) == plan.num_slices
    # Back from the strip of the overview to a small picture: it is the picture that went in.
    rows, columns = out["tgt_sizes"][0][0].tolist()
    strip = out["pixel_values"][0][0].reshape(3, 14, rows, columns, 14).permute(2, 1, 3, 4, 0)
    overview = (strip.reshape(rows * 14, columns * 14, 3) + 1) / 2 * 255
    expected = np.asarray(rgb.resize(plan.source, Image.Resampling.BICUBIC), dtype=np.float32)
    assert np.abs(overview.numpy() - expected).max() < 0.01
    assert expected.std() > 5  # not an empty page


@pytest.mark.parametrize(
    ("size", "source"),
    [((1, 1), (448, 448)), ((1, 1500), (14, 17346)), ((1, 10000), (14, 44800)), ((10000, 1), (39998, 14))],
)
def test_extreme_shapes_are_shown_whole(size: tuple[int, int], source: tuple[int, int]) -> None:
    out = RELEASED(Image.new("RGB", size, "red"))
    assert RELEASED.plan(*size).source == source
    assert out["tgt_sizes"][0].tolist() == [[source[1] // 14, source[0] // 14]]
    assert out["pixel_values"][0][0].shape == (3, 14, source[0] * source[1] // 14)


def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    values = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for image in (values, torch.from_numpy(values.astype(np.int32)), str(tmp_path / "deep.png")):
        assert [colour(image, (x, 0)) for x in range(3)] == [(0, 0, 0), (100, 100, 100), (255, 255, 255)]


def of_every_kind(image: Image.Image, path: Path) -> list[Any]:
    """The same picture as a file, an opened file and base64 data."""
    image.save(path)
    return [str(path), Image.open(path), base64.b64encode(path.read_bytes()).decode()]


DEEP = {
    "floats to 1": (np.array([[0, 0.5, 1]], np.float32), [0, 127, 255]),
    "floats to 255": (np.array([[0, 127.9, 255]], np.float32), [0, 127, 255]),
    "floats that overshoot": (np.array([[-0.1, 0.5, 1.1]], np.float32), [0, 127, 255]),
    "16 bits": (np.array([[0, 25600, 65535]], np.uint16), [0, 100, 255]),
    "16 bits, dark": (np.array([[0, 255, 256]], np.uint16), [0, 0, 1]),
    "16 of 32 bits": (np.array([[0, 25600, 65535]], np.int32), [0, 100, 255]),
    "8 of 32 bits": (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
}
BEYOND = {
    "heights": (np.array([[-9, 300, 1000]], np.float32), "floats"),
    "no numbers": (np.array([[0, np.nan, 1]], np.float32), "floats"),
    "32 bits": (np.array([[0, 9, 2**31 - 1]], np.int32), "or 0 to 65535"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_is_scaled_alike_here_and_in_hybrid_rl(tmp_path: Path, name: str) -> None:
    values, expected = DEEP[name]
    for image in of_every_kind(Image.fromarray(values), tmp_path / "deep.tif"):
        assert [colour(image, (x, 0)) for x in range(3)] == [(v,) * 3 for v in expected]
    assert np.array_equal(open_image(FileImage(str(tmp_path / "deep.tif"))), to_rgb(tmp_path / "deep.tif"))


@pytest.mark.parametrize("name", BEYOND)
def test_values_that_are_no_brightness_are_refused_by_name(tmp_path: Path, name: str) -> None:
    values, message = BEYOND[name]
    for image in of_every_kind(Image.fromarray(values), tmp_path / "deep.tif")[:2]:
        with pytest.raises(ValueError, match=rf"deep\.tif has values that are no brightness.*{message}"):
            to_rgb(image)
    with pytest.raises(DataError, match=rf"deep\.tif cannot be decoded \(its .*{message}"):
        open_image(FileImage(str(tmp_path / "deep.tif")))


def test_a_picture_at_an_address_is_read_like_a_file(tmp_path: Path) -> None:
    Image.fromarray(DEEP["16 bits"][0]).save(tmp_path / "deep.png")
    (tmp_path / "words.png").write_text("words")
    handler = partial(SilentHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert colour(f"{address}/deep.png", (1, 0)) == (100, 100, 100)
        with pytest.raises(ValueError, match=r"words\.png is not an image of a known format"):
            to_rgb(f"{address}/words.png")
        with pytest.raises(ValueError, match=r"gone\.png cannot be read as an image: .*404"):
            to_rgb(f"{address}/gone.png")
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_modes_become_rgb() -> None:
    assert colour(Image.new("CMYK", (2, 2), (0, 255, 255, 0))) == (255, 0, 0)
    assert colour(Image.new("1", (2, 2), 1)) == (255, 255, 255)
    assert colour(Image.new("RGBA", (2, 2), (9, 8, 7, 0))) == (9, 8, 7)  # dropped, not blended
    assert colour(np.ones((2, 2), dtype=bool)) == (255, 255, 255)
    assert colour(np.full((2, 2, 3), 0.5, dtype=np.float32)) == (127, 127, 127)


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    assert [colour(str(tmp_path / "palette.png"), (x, 0)) for x in (0, 1)] == [(255, 0, 0), (0, 255, 0)]


def test_the_first_frame_of_a_gif_is_shown(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), name) for name in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert colour(tmp_path / "two.gif") == (255, 0, 0)
    with Image.open(tmp_path / "two.gif") as opened:
        opened.seek(1)
        assert colour(opened) == (255, 0, 0) and opened.tell() == 1
        assert colour(opened.copy()) == (0, 0, 255)
    opened = Image.open(tmp_path / "two.gif")
    opened.seek(1)
    opened.load()
    opened.close()
    with pytest.raises(ValueError, match=r"two\.gif stands at frame 1 and cannot go back to its first"):
        to_rgb(opened)


def test_a_page_of_a_document_is_the_one_that_was_turned_to(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 4), name) for name in ("red", "blue")]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "two.tif") as opened:
        opened.seek(1)
        assert colour(opened) == (0, 0, 255)


def test_a_picture_stands_as_its_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    sideways = Image.new("RGB", (40, 20), "white")
    sideways.paste("black", (0, 0, 20, 20))
    sideways.save(tmp_path / "phone.png", exif=exif)
    for image in (tmp_path / "phone.png", Image.open(tmp_path / "phone.png")):
        upright = to_rgb(image)
        assert upright.size == (20, 40)
        assert (upright.getpixel((10, 5)), upright.getpixel((10, 35))) == ((0, 0, 0), (255, 255, 255))
        assert to_rgb(upright).size == (20, 40)  # once, not again
    assert np.array_equal(open_image(FileImage(str(tmp_path / "phone.png"))), upright)
    shown = thumbnail(tmp_path, "phone.png")
    assert Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))).size == (20, 40)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["RGB", "L", "RGBA", "CMYK", "I;16", "P", "1", "LA"]))
@settings(max_examples=60)
def test_any_mode_of_any_size_becomes_rgb_of_that_size(width: int, height: int, mode: str) -> None:
    rgb = to_rgb(Image.new(mode, (width, height)))
    assert rgb.mode == "RGB" and rgb.size == (width, height)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (0, 4)), r"of 0 x 4 pixels has nothing to encode"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) has nothing to encode"),
        (np.zeros((2, 2, 2, 3), np.uint8), r"must be \[H, W\], \[H, W, C\] or \[C, H, W\]"),
        (np.full((2, 2, 3), np.nan, np.float32), r"floats must hold values from 0 to 1, got nan"),
        (np.full((2, 2, 3), 200.0), r"floats must hold values from 0 to 1, got 200"),
        (np.full((2, 2, 3), -3), r"must hold values from 0 to 255, or 0 to 65535, got -3"),
        (7, r"An image must be a Pillow image, a file name, a numpy array or a tensor, got int"),
        (np.array([["a", "b"]]), r"must hold real numbers, got values of type <U1"),
        ("http://127.0.0.1:9/x.png", r"http://127\.0\.0\.1:9/x\.png cannot be read as an image: .*refused"),
        ("no/such/file.png", r"no/such/file\.png cannot be read as an image: there is no such file"),
    ],
)
def test_what_is_no_picture_is_refused(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(image)


def test_a_picture_of_20000_by_20000_is_refused_by_its_limit(tmp_path: Path) -> None:
    bomb = Image.new("1", (20000, 20000))
    with pytest.raises(ValueError, match=f"20000 x 20000 pixels has more than the limit of {MAX_PIXELS}"):
        to_rgb(bomb)
    bomb.save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=rf"bomb\.png has more pixels than the limit of {MAX_PIXELS}"):
        to_rgb(str(tmp_path / "bomb.png"))
    with pytest.raises(ValueError, match=f"more than the limit of {MAX_PIXELS}"):
        to_rgb(np.broadcast_to(np.uint8(0), (20000, 20000)))


@pytest.mark.parametrize("opened", [False, True])
def test_damaged_files_are_refused_by_name(tmp_path: Path, opened: bool) -> None:
    buffer = io.BytesIO()
    page().save(buffer, "JPEG")
    half = tmp_path / "half.jpg"
    half.write_bytes(buffer.getvalue()[:20000])
    with pytest.raises(ValueError, match=r"half\.jpg is damaged and cannot be decoded: .*truncated"):
        to_rgb(Image.open(half) if opened else str(half))
    with pytest.raises(ValueError, match=r"half\.jpg is damaged"):
        PROCESSOR.apply_chat_template(
            [{"role": "user", "content": [{"type": "image", "path": str(half)}]}], tokenize=True
        )


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_data_are_read_like_a_file(prefix: str) -> None:
    """Of a size that no file name has, with 16 bits a pixel, damaged, and far too large."""

    def encoded(image: Image.Image, share: float = 1.0) -> str:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()
        return prefix + base64.b64encode(content[: int(share * len(content))]).decode()

    grey = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (50, 80), dtype=np.uint16))
    assert len(encoded(grey)) > 4096
    assert np.array_equal(to_rgb(encoded(grey)), to_rgb(grey))
    with pytest.raises(ValueError, match=r"\.\.\. is damaged and cannot be decoded"):
        to_rgb(encoded(grey, share=0.5))
    with pytest.raises(ValueError, match=rf"\.\.\. has more pixels than the limit of {MAX_PIXELS}"):
        to_rgb(encoded(Image.new("1", (20000, 20000))))


def test_a_tensor_in_bfloat16_is_a_picture() -> None:
    levels = torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)
    assert colour(levels[:, None, None].expand(3, 5, 5)) == (0, 127, 255)


def test_words_are_no_picture(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"words\.png is not an image of a known format"):
        to_rgb(tmp_path / "words.png")


def test_prompts_are_refused_rather_than_cut() -> None:
    image = Image.new("RGB", (448, 448))
    text = "Look: (<image>./</image>) What is it?"
    length = len(PROCESSOR(text=text, images=image)["input_ids"][0])
    assert PROCESSOR(text=text, images=image, max_length=length)
    with pytest.raises(ValueError, match="max_length 40 would cut it, inside the tokens 10 to 74 of an image"):
        PROCESSOR(text=text, images=image, max_length=40)
    with pytest.raises(ValueError, match=rf"has {length} tokens; max_length {length - 1} would cut it. Raise"):
        PROCESSOR(text=text, images=image, max_length=length - 1)
    for truncation in (True, "longest_first"):
        with pytest.raises(ValueError, match="Prompts are never truncated"):
            PROCESSOR(text=text, images=image, truncation=truncation)
    padded = PROCESSOR(text=text, images=image, padding="max_length", max_length=length + 3)
    assert padded["attention_mask"][0][:4] == [0, 0, 0, 1] and len(padded["input_ids"][0]) == length + 3
