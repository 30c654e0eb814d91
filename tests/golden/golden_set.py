"""A golden set on disk, and the public classes built for it. Everything is read from the set; no size is known here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from golden.ledger import BadSet
from model import MiniCPMVForConditionalGeneration, MiniCPMVImageProcessor, MiniCPMVProcessor

IMAGE_PROCESSOR_OPTIONS = ("max_slice_nums", "scale_resolution", "patch_size", "image_feature_size", "use_image_id")


class Tensors(Mapping[str, Tensor]):
    """Tensors of one file, which remembers those nobody asked for: a value that is never looked at proves nothing."""

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                self.metadata: dict[str, str] = file.metadata() or {}
                self._tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                slices = {name: file.get_slice(name) for name in self._tensors}
                self.layout = {name: [slice_.get_dtype(), slice_.get_shape()] for name, slice_ in slices.items()}
        except SafetensorError as error:
            raise BadSet(f"{path} is no safetensors file, or cut short: {error}") from None
        self.unused = set(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        self.unused.discard(name)
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class GoldenSet:
    """One set directory and the shared files beside it."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise BadSet(f"{root} is not a directory; give the directory of a golden set, the one with index.json.")
        self.root = root
        self._tensors: dict[str, Tensors] = {}
        self.index = self.json("index.json")
        if not isinstance(self.index, dict) or not isinstance(self.index.get("files"), dict):
            raise BadSet(f"{root / 'index.json'} is no index of a golden set: it has no object named files.")
        for path in (root / "config.json", self.tiny_tokenizer_path, self.buckets_path, self.released_path):
            if not path.exists():
                raise BadSet(f"{path} is missing, which the set in {root} needs.")

    @property
    def tiny_tokenizer_path(self) -> Path:
        """Tokenizer of the tiny models, beside the set."""
        return self.root / self.index.get("tiny_tokenizer", "../tiny_tokenizer.json")

    @property
    def buckets_path(self) -> Path:
        """Position buckets, beside the set."""
        return self.root / "../position_buckets.safetensors"

    @property
    def released_path(self) -> Path:
        """Folder of the released tokenizer and settings, two levels up."""
        return self.root / "../../real_tokenizer"

    def json(self, name: str) -> Any:
        """A JSON file of the set."""
        path = self.root / name
        if not path.is_file():
            raise BadSet(f"{path} is missing; give the directory of a golden set.")
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise BadSet(f"{path} is no JSON file: {error}") from None

    def tensors(self, name: str) -> Tensors:
        """A safetensors file of the set; the same object every time."""
        if name not in self._tensors:
            path = self.root / name
            if not path.is_file():
                raise BadSet(f"{path} is missing, though the index names it.")
            self._tensors[name] = Tensors(path)
        return self._tensors[name]

    def opened(self) -> dict[str, Tensors]:
        """Files whose tensors have been asked for."""
        return self._tensors

    @cached_property
    def model(self) -> MiniCPMVForConditionalGeneration:
        """The model of the set in float32, without dropout."""
        return MiniCPMVForConditionalGeneration.from_pretrained(self.root, dtype=torch.float32).eval()

    @cached_property
    def tiny_processor(self) -> MiniCPMVProcessor:
        """Processor of the full-model scenarios."""
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(self.tiny_tokenizer_path), eos_token="<|im_end|>", pad_token="<|endoftext|>"
        )
        return MiniCPMVProcessor(image_processor_of(self.index["image_processor_of_full_scenarios"]), tokenizer)

    @property
    def released_processor(self) -> MiniCPMVProcessor:
        """Processor with the released vocabulary and settings."""
        settings = json.loads((self.released_path / "preprocessor_config.json").read_text())
        return MiniCPMVProcessor(image_processor_of(settings), released_tokenizer(self.released_path.resolve()))


def image_processor_of(settings: Mapping[str, Any]) -> MiniCPMVImageProcessor:
    """Image processor from a file's settings."""
    return MiniCPMVImageProcessor(**{name: settings[name] for name in IMAGE_PROCESSOR_OPTIONS if name in settings})


@cache
def released_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The released tokenizer; reading 150 thousand merges takes seconds, so it is read once."""
    tokenizer: PreTrainedTokenizerBase = Qwen2Tokenizer.from_pretrained(folder)
    return tokenizer
