"""A trained policy as a folder of its own: for this package, for transformers, and for upstream's code and vLLM.

Training changes weights and nothing else, so everything but the weights is taken from the folder that was trained from,
byte for byte: its tokenizer, its processors and the python files that its `auto_map` names. They are copied, not run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.lora import read_adapter
from hybrid_rl.policy import load_policy
from hybrid_rl.saved import Saved
from hybrid_rl.stages.cache import store

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".index.json")
_SHARD_SIZE = "5GB"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        what: for people.
        note: what the folder cannot do; None if there is nothing to say.
    """

    what: str
    note: str | None


def export(saved: Saved, folder: Path, *, adapter_only: bool = False) -> Exported:
    """Write a checkpoint as a model folder, its adapter merged into the weights, or the adapter alone.

    Raises:
        RunFolderError: the folder is there and not empty, or cannot be written.
        ConfigError: `adapter_only` without an adapter.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RunFolderError(f"{folder} is there already and not empty; name another folder")
    if adapter_only and saved.config.model.lora is None:
        raise ConfigError("--adapter-only: the run trained all weights, without model.lora; export it without the flag")
    found: list[Exported] = []

    def write(temporary: str) -> None:
        write_into = _write_adapter if adapter_only else _write_model
        found.append(write_into(saved, Path(temporary)))

    try:
        if folder.is_dir():
            folder.rmdir()
        store(folder.absolute(), write)
    except RunFolderError:
        raise
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written: {error}") from error
    return found[0]


def _write_adapter(saved: Saved, folder: Path) -> Exported:
    read_adapter(Path(saved.checkpoint))  # a damaged one must not travel on
    for name in _ADAPTER_FILES:
        if not (Path(saved.checkpoint) / name).is_file():
            raise RunFolderError(f"{saved.checkpoint} has no {name}; restore it, or export another checkpoint")
        shutil.copyfile(Path(saved.checkpoint) / name, folder / name)
    return Exported(f"the adapter of {saved.config.model.path}, in the form of peft", None)


def _write_model(saved: Saved, folder: Path) -> Exported:
    config = saved.config.model
    source = Path(config.path) if config.path else None
    if source is not None and not (source / "config.json").is_file():
        raise ConfigError(
            f"{source}, which the run was trained from, is not there any more, and an export takes its tokenizer and "
            f"settings from it; put it back, or set model.path in the run's config.yaml to where it is now"
        )
    described = json.loads((source / "config.json").read_text(encoding="utf-8")) if source else {}
    dtype = "bfloat16" if _dtype_of(described) == "bfloat16" else "float32"
    policy = load_policy(
        config.model_copy(update={"device": "cpu", "dtype": dtype}),
        saved.config.modes,
        seed=saved.config.run.seed,
        search=saved.config.search,
        checkpoint=saved.checkpoint,
    )
    model = policy.model if policy.lora is None else policy.lora.merge()
    model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
    if source is not None:
        for path in _companions(source):
            shutil.copyfile(path, folder / path.name)
    else:
        policy.processor.save_pretrained(folder)
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written = with_both_spellings({**described, "dtype": dtype, "torch_dtype": dtype})
    (folder / "config.json").write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    merged = ", the adapter merged into them" if policy.lora is not None else ""
    num_weights = sum(p.numel() for p in model.parameters())
    return Exported(f"{num_weights:,} weights in {dtype}{merged}", _what_is_missing(written, folder, model))


def _companions(source: Path) -> Iterator[Path]:
    """Files of a checkpoint folder that are no weights and say nothing of them."""
    for path in sorted(source.iterdir()):
        is_weights = path.name.endswith(_WEIGHT_SUFFIXES) or path.name in _ADAPTER_FILES
        is_about_another = path.name == "config.json" or path.name.upper().startswith(("README", "."))
        if path.is_file() and not is_weights and not is_about_another:
            yield path


def with_both_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """A model config with the keys of transformers 5 and those that readers of transformers 4 look for.

    `rope_parameters` was `rope_theta` and `rope_scaling`. Inner configs are treated alike.
    """
    found = {
        key: with_both_spellings(value) if key.endswith("_config") and value else value for key, value in config.items()
    }
    rope = found.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        found.setdefault("rope_theta", rope["rope_theta"])
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        is_plain = scaling.get("rope_type", "default") == "default" and len(scaling) <= 1
        found.setdefault("rope_scaling", None if is_plain else scaling)
    if "dtype" in found:
        found.setdefault("torch_dtype", found["dtype"])
    return found


def _dtype_of(config: dict[str, Any]) -> Any:
    return config.get("dtype") or config.get("torch_dtype")


def _what_is_missing(config: dict[str, Any], folder: Path, model: Any) -> str | None:
    """Why upstream's code and vLLM cannot load the folder; None if they can."""
    if type(model).__module__.startswith("transformers."):
        return None
    modules = {str(target).partition(".")[0] for target in config.get("auto_map", {}).values()}
    absent = sorted(name for name in modules if not (folder / f"{name}.py").is_file())
    if modules and not absent:
        return None
    reason = f"lacks {absent[0]}.py" if absent else "brought no auto_map files"
    return f"hybrid-rl loads this folder, but upstream's code and vLLM do not: the source checkpoint {reason}"
