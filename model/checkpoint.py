"""Strict loading: a checkpoint has every tensor of the model in its shape and no other, in safetensors files.

transformers fills gaps with random values and reports them in a table that scrolls by. Here it is an error, found in
the headers of the files before any weight is read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

EARS_AND_VOICE = (r"^apm\.", r"^audio", r"^tts\.")
"""Tensors of the omni models that hear and speak; they are loaded without."""

# Rotary frequencies, which old files store and nobody reads: they are computed.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class CheckpointError(ValueError):
    """A checkpoint does not fit the model; the message names the file and the tensor."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor is stored, and its shape."""

    file: str
    shape: tuple[int, ...]


def refuse_pickles(folder: Path) -> None:
    """Check that a local folder does not hold its weights in pickle files alone, which can run code when opened.

    Raises:
        CheckpointError: there are pickled weights and no safetensors file.
    """
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    if pickles := sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern)):
        raise CheckpointError(
            f"{folder / pickles[0]} holds pickled weights, which can run code when opened and are not loaded; "
            "convert them to safetensors first."
        )


def check_files(model: PreTrainedModel, files: Sequence[str], *, shapes: bool) -> None:
    """Compare the tensors in safetensors files with those that the model needs.

    Args:
        model: built, on whatever device; its weights are not touched.
        files: all files of the checkpoint.
        shapes: compare shapes too.

    Raises:
        CheckpointError: a file that cannot be read, or missing, extra or wrongly shaped tensors.
    """
    if any(not str(file).endswith(".safetensors") for file in files):
        raise CheckpointError(f"{files[0]} is no safetensors file; pickled weights can run code and are not loaded.")
    stored = _headers(files)
    needed = {name: _shape(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    _skip_ears_and_voice(stored)
    where = files[0] if len(files) == 1 else f"{Path(files[0]).parent} ({len(files)} files)"
    tied = {name for pair in model.all_tied_weights_keys.items() if stored.keys() & pair for name in pair}
    if missing := sorted(needed.keys() - stored.keys() - tied):
        first = missing[0]
        raise CheckpointError(f"{where} lacks the tensor {first} of shape {_text(needed[first])}{_more(missing)}.")
    if extra := sorted(stored.keys() - needed.keys()):
        raise CheckpointError(
            f"{stored[extra[0]].file} has a tensor {extra[0]} that the model of its config.json has no place for"
            f"{_more(extra)}."
        )
    wrong = sorted(name for name in needed.keys() & stored.keys() if stored[name].shape != needed[name])
    if shapes and wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{stored[first].file} has {first} of shape {_text(stored[first].shape)}, but config.json asks for "
            f"{_text(needed[first])}{_more(wrong)}."
        )


def _headers(files: Iterable[str]) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    stored[name] = Stored(str(file), tuple(opened.get_slice(name).get_shape()))
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing, though the checkpoint's index names it.") from None
        except SafetensorError as error:
            raise CheckpointError(f"{file} cannot be read, it may be cut short: {error}") from None
    return stored


def _skip_ears_and_voice(stored: dict[str, Stored]) -> None:
    """Take out what is not loaded, with a notice of the parts that it belongs to."""
    skipped = [name for name in stored if any(re.search(pattern, name) for pattern in EARS_AND_VOICE)]
    if skipped:
        parts = ", ".join(sorted({name.partition(".")[0] for name in skipped}))
        warnings.warn(
            f"{len(skipped)} tensors of {parts} are not loaded: this model reads text, pictures and video, "
            "and neither hears nor speaks.",
            stacklevel=2,
        )
    for name in list(stored):
        if name in skipped or _COMPUTED.search(name):
            del stored[name]


def _shape(tensor: Any) -> tuple[int, ...]:
    """Shape of a tensor; under ZeRO-3 a parameter is empty here and keeps its shape beside it."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def _text(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
