"""Cost of a video in this model and in Qwen2.5-VL: `python -m benchmarks.video_efficiency`.

Every measurement is a process of its own, so that peak memory is its own; the two models take turns. Timed is
`generate` from packed pixels: vision encoder, prefill and `--new-tokens` greedy tokens. Decoding and resizing of
frames are outside. Prints JSON. Paper (arXiv 2509.18154): 8.7 % of the time and 46.7 % of the memory, with the
released weights on a benchmark of long videos; here both models are small and random, and the parts that grow with
the number of visual tokens (prefill, its attention, the cache) are what is compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.report_form import case, print_report
from benchmarks.sides import peak_gib, resident_gib
from benchmarks.timing import machine
from benchmarks.video_models import Prepared, Sizes, clip, minicpmv, qwen

_MODELS = ("minicpmv", "qwen2_5_vl")
_MEASURED = ("wall", "time_to_first_token_s", "encoder_s", "peak_memory", "peak_above_start_gib", "visual_tokens")


class FirstToken:
    """Streamer that notes when the first new token arrives."""

    def __init__(self) -> None:
        self.puts = 0
        self.at_s = float("nan")

    def put(self, value: Any) -> None:
        """Called with the prompt first, then with every token."""
        self.puts += 1
        if self.puts == 2:
            self.at_s = time.perf_counter()

    def end(self) -> None:
        """Nothing to flush."""


class EncoderClock:
    """Seconds spent between the start of the first and the end of the last of some modules, by hooks."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self.total_s = 0.0
        self._start = 0.0
        for module in modules:
            module.register_forward_pre_hook(self._begin)
            module.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.total_s += time.perf_counter() - self._start


def prepare(name: str, frames: int, options: argparse.Namespace) -> Prepared:
    """Model and inputs."""
    sizes = Sizes(options.width, options.layers, options.vision_layers)
    video = clip(frames, options.side)
    return minicpmv(video, sizes, options.frames_per_package) if name == "minicpmv" else qwen(video, sizes)


@torch.no_grad()
def measure_one(name: str, frames: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run of one model in this process."""
    # A few frames first: libraries load their kernels, the allocator takes its first pages.
    warm = prepare(name, 2, options)
    warm.model.generate(**warm.inputs, max_new_tokens=2, do_sample=False)
    del warm
    ready = prepare(name, frames, options)
    model = ready.model
    clock = EncoderClock([model.vpm, model.resampler] if name == "minicpmv" else [model.model.visual])
    start_gib = resident_gib()  # interpreter, libraries, weights and packed pixels
    streamer = FirstToken()
    start = time.perf_counter()
    out = model.generate(**ready.inputs, max_new_tokens=options.new_tokens, do_sample=False, streamer=streamer)
    end = time.perf_counter()
    return {
        "visual_tokens": ready.visual_tokens,
        "new_tokens": out.shape[1] - ready.inputs["input_ids"].shape[1],
        "decoder_parameters": sum(p.numel() for p in _decoder(model, name).parameters()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "time_to_first_token_s": streamer.at_s - start,
        "wall": end - start,
        "encoder_s": clock.total_s,
        "peak_memory": peak_gib(),
        "peak_above_start_gib": peak_gib() - start_gib,
    }


def _decoder(model: Any, name: str) -> torch.nn.Module:
    decoder: torch.nn.Module = model.llm.model if name == "minicpmv" else model.model.language_model
    return decoder


def in_fresh_process(name: str, frames: int, arguments: Sequence[str]) -> dict[str, Any]:
    """`measure_one` in a process of its own.

    Raises:
        RuntimeError: it failed; the message ends with what it wrote.
    """
    command = [sys.executable, "-m", "benchmarks.video_efficiency", *arguments, "--only", name, str(frames)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} on {frames} frames ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(frames: int, runs: int, arguments: Sequence[str]) -> dict[str, Any]:
    """Both models in turn."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in _MODELS}
    for _ in range(runs):
        for name in _MODELS:
            samples[name].append(in_fresh_process(name, frames, arguments))
    measured = [[{key: run[key] for key in _MEASURED} for run in samples[name]] for name in _MODELS]
    found = case(f"frames_{frames}", *measured, frames=frames)
    fixed = ("new_tokens", "decoder_parameters", "parameters")
    shares = [found[side]["encoder_s"] / found[side]["wall"] for side in ("ours", "peer")]
    return found | {
        "models": {name: {key: samples[name][0][key] for key in fixed} for name in _MODELS},
        "encoder_share_of_time": dict(zip(_MODELS, shares, strict=True)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.video_efficiency", description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[60], help="lengths of the clip; 540 and 1080 as well")
    parser.add_argument("--side", type=int, default=448, help="pixels of a frame's side, a multiple of 28")
    parser.add_argument("--frames-per-package", type=int, default=6, help="frames that share 64 tokens")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens to generate")
    parser.add_argument("--width", type=int, default=512, help="features of the decoder, a multiple of 256")
    parser.add_argument("--layers", type=int, default=8, help="decoder layers")
    parser.add_argument("--vision-layers", type=int, default=7, help="encoder layers of MiniCPM-V; 32/27 times in Qwen")
    parser.add_argument("--runs", type=int, default=1, help="processes per model and length")
    parser.add_argument("--only", nargs=2, metavar=("MODEL", "FRAMES"), help="one measurement in this process")
    options = parser.parse_args(arguments)
    if options.only:
        print(json.dumps(measure_one(options.only[0], int(options.only[1]), options)))
        return
    names = ("side", "frames_per_package", "new_tokens", "width", "layers", "vision_layers")
    passed = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    print_report(
        [compare(frames, options.runs, passed) for frames in options.frames],
        peer="transformers' Qwen2.5-VL",
        sizes=asdict(Sizes(options.width, options.layers, options.vision_layers)),
        ratio_in_the_paper={"wall": 1 / 0.087, "peak_memory": 1 / 0.467},
        load_1_minute_after=machine()["load_1_minute"],
    )


if __name__ == "__main__":
    main()
