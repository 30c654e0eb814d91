"""Finished warm-ups, kept by a digest of everything that decides their outcome."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from hybrid_rl.config import Config
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.plugins import load

_LOOKED_AT = 64
"""Prompts that stand for the data, beside the files that sources name."""
_OWN = Path(__file__).resolve().parent.parent
_OWN_CODE = (
    *("chat_format.py", "policy.py", "parts.py", "images.py", "videos.py", "records.py"),
    *("algorithm", "backbones", "data", "stages", "updates"),
)
"""Code of ours, beside plug-ins, that a supervised step runs through."""


def cache_folder(config: Config) -> Path:
    """Where the warm-up of a config is, or would be, kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hybrid-rl" / "warmup" / _digest(config)


def store(folder: Path, save: Callable[[str], None]) -> None:
    """Have `save` fill the folder, in one move; a folder that another run has filled meanwhile stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        save(str(temporary.absolute()))
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(config: Config) -> str:
    """Settings, code, data and library versions; not the number of threads or what GRPO does later."""
    assert config.warmup is not None
    settings = {
        "seed": config.run.seed,
        "model": config.model.model_dump(mode="json"),
        "warmup": config.warmup.model_dump(mode="json", exclude={"cache"}),
        "kinds": {
            name: {"template_args": kind.template_args, "prefill": kind.prefill, "mode_token": kind.mode_token}
            for name, kind in config.modes.kinds.items()
        },
        "max_tokens_per_micro_batch": config.train.max_tokens_per_micro_batch,
        "gpu": torch.cuda.is_available(),
        "versions": {name: version(name) for name in ("torch", "transformers", "scikit-learn", "pillow", "numpy")},
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in [*sorted(set(_code(config))), *_data_files(config)]:
        digest.update(path.read_bytes())
    for prompt in make_mixture(config.warmup.sources, "train", config.run.seed, config.search).first(_LOOKED_AT):
        digest.update(repr((prompt.id, prompt.messages, prompt.gold, prompt.thought)).encode())
        for image in prompt.images:
            digest.update(image.read_bytes())
        for video in prompt.videos:
            digest.update(video.digest())
    return digest.hexdigest()[:24]


def _data_files(config: Config) -> Iterator[Path]:
    """Files that the arguments of a source name."""
    assert config.warmup is not None
    for source in config.warmup.sources.values():
        for value in source.args.values():
            candidates = [Path(folder, value) for folder in config.search] if isinstance(value, str) else []
            yield from [path for path in candidates if path.is_file()][:1]


def _code(config: Config) -> Iterator[Path]:
    for name in _OWN_CODE:
        path = _OWN / name
        yield from [path] if path.is_file() else path.rglob("*.py")
    targets = [config.model.builder, *(s.target for s in (config.warmup.sources if config.warmup else {}).values())]
    for target in targets:
        path = Path(inspect.getfile(load(target, config.search)))
        # A plug-in inside a package is decided by the whole package, as the model is.
        yield from path.parent.rglob("*.py") if (path.parent / "__init__.py").exists() else [path]
