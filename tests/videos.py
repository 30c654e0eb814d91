"""Films whose frames tell their own number, and films of handwritten digits, made on the spot."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIZE = (64, 48)
"""Width and height in pixels: eight bars of eight pixels, one per bit of the frame's number."""


def numbered_frame(number: int) -> Image.Image:
    bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8) * 255
    return Image.fromarray(np.repeat(bits, 8)[None, :, None].repeat(SIZE[1], 0).repeat(3, 2))


def number_of(frame: Image.Image) -> int:
    middle = np.asarray(frame)[SIZE[1] // 2, 4::8, 1]
    return sum(int(value > 127) << bit for bit, value in enumerate(middle))


def write_film(
    path: Path, num_frames: int, fps: int = 30, codec: str = "libx264", key_every: int = 12, turn: int = 0
) -> str:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", key_every
        stream.thread_count = 1
        if turn:
            stream.set_display_rotation(turn)
        for number in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_image(numbered_frame(number))))
        container.mux(stream.encode(None))
    return str(path)


def write_digits(path: Path, digits: str, seed: int = 0, duration_ms: int = 300) -> str:
    """A GIF of handwritten digits (scikit-learn), one after the other, each on a strip of 40 x 40 pixels."""
    bundle = load_digits()
    chance = np.random.default_rng(seed)
    frames = []
    for digit in digits:
        pixels = chance.choice(bundle.images[bundle.target == int(digit)]) / 16 * 255
        frames.append(Image.fromarray(pixels.astype(np.uint8)).resize((40, 40)))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration_ms)
    return str(path)
