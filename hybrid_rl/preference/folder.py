"""Preference models in folders: what is written, and what a folder is.

A preference model on a policy's backbone is saved as the backbone's checkpoint folder, which loads as it did before, or
as its adapter, with two files beside it: the scalar head, and how prompts are rendered. Nothing in a folder names code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hybrid_rl.config.model import LoraConfig, ModelConfig
from hybrid_rl.config.section import Section
from hybrid_rl.errors import ConfigError, RunFolderError
from hybrid_rl.lora import ADAPTER_FILE
from hybrid_rl.policy import device_and_dtype, load_policy
from hybrid_rl.preference.classifier import SequenceClassifier, check_classifier, check_weights
from hybrid_rl.preference.judged import PreferenceScorer
from hybrid_rl.preference.scalar_head import PreferenceModel, Rendering, ScalarHead
from hybrid_rl.quiet import quiet_transformers

HEAD_FILE = "preference_head.safetensors"
DESCRIPTION_FILE = "preference.json"
_WEIGHT = "weight"


class Description(Section):
    """What a folder says of its preference model."""

    rendering: Rendering
    thought_tags: list[str] = Field(min_length=2, max_length=2)
    parts: dict[str, list[str]]
    lora: LoraConfig | None
    base: str | None
    """Folder of the frozen weights under an adapter."""


def new_preference_model(
    config: ModelConfig, rendering: Rendering, *, seed: int, search: Sequence[str] = ()
) -> PreferenceModel:
    """A policy's backbone with a new scalar head, ready for training.

    Raises:
        ConfigError: see `load_policy` and `PreferenceModel`.
    """
    policy = load_policy(config, rendering.modes, seed=seed, search=search, trainable=True)
    return PreferenceModel(policy, config, rendering, seed=seed)


def save_preference_model(model: PreferenceModel, folder: Path) -> None:
    """Write a folder that `open_scorer` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    policy, config = model.policy, model.config
    if policy.lora is not None:
        policy.lora.save(folder)
    else:
        with model.with_vocabulary_head():
            policy.model.save_pretrained(folder)
    policy.processor.save_pretrained(folder)
    save_file({_WEIGHT: model.head.weight.detach().float().cpu().contiguous()}, folder / HEAD_FILE)
    description = Description(
        rendering=model.rendering,
        thought_tags=config.thought_tags,
        parts=config.parts,
        lora=config.lora,
        base=str(Path(config.path).absolute()) if config.lora is not None and config.path else None,
    )
    # Last: without it the folder is no preference model.
    (folder / DESCRIPTION_FILE).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")


def check_folder(folder: str) -> None:
    """What can be known of a preference model without loading its weights.

    Raises:
        ConfigError: the folder is none.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f"preference model {folder}: there is no such folder; check the path")
    if (path / DESCRIPTION_FILE).is_file() or (path / HEAD_FILE).is_file():
        lora = _describe(path).lora
        _head_width(path)
        if lora is None:
            check_weights(folder, [file for file in path.glob("*.safetensors") if file.name != HEAD_FILE])
        elif not (path / ADAPTER_FILE).is_file():
            raise ConfigError(f"preference model {folder}: {ADAPTER_FILE} is missing; save the model anew")
    elif (path / "config.json").is_file():
        quiet_transformers()
        check_classifier(folder)
    else:
        raise ConfigError(
            f"preference model {folder} has neither {DESCRIPTION_FILE} nor config.json; give the folder of a sequence "
            f"classifier, or what `hybrid_rl.preference` has saved"
        )


def open_scorer(folder: str, options: ModelConfig, search: Sequence[str] = ()) -> PreferenceScorer:
    """Load the preference model of a folder.

    Args:
        options: where and how it is computed: `device`, `dtype`, and `modules` and `backbone` for a policy's backbone.
            The rest is not looked at.
        search: folders against which `backbone` is resolved.

    Raises:
        ConfigError: the folder is none, or does not load.
    """
    check_folder(folder)
    try:
        if (Path(folder) / DESCRIPTION_FILE).is_file():
            return _load_preference_model(folder, options, search)
        return SequenceClassifier(folder, *device_and_dtype(options))
    except (ConfigError, RunFolderError) as error:
        sentence = str(error)
        if sentence.startswith("preference model"):
            raise
        raise ConfigError(f"preference model {folder}: {sentence}") from error


def _load_preference_model(folder: str, options: ModelConfig, search: Sequence[str]) -> PreferenceModel:
    path = Path(folder)
    described = _describe(path)
    config = ModelConfig(
        path=described.base if described.lora is not None else folder,
        modules=options.modules,
        device=options.device,
        dtype=options.dtype,
        backbone=options.backbone,
        parts=described.parts,
        lora=described.lora,
        thought_tags=described.thought_tags,
    )
    adapter = folder if described.lora is not None else None
    policy = load_policy(config, described.rendering.modes, seed=0, search=search, checkpoint=adapter)
    head = ScalarHead(_head_width(path))
    head.load_state_dict(load_file(path / HEAD_FILE))
    return PreferenceModel(policy, config, described.rendering, head)


def _describe(path: Path) -> Description:
    file = path / DESCRIPTION_FILE
    try:
        return Description.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"preference model {path}: {DESCRIPTION_FILE} is missing; save the model anew") from error
    except (ValidationError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"preference model {path}: {DESCRIPTION_FILE} is damaged: {reason}") from error


def _head_width(path: Path) -> int:
    """Width of the scalar head of a folder."""
    file = path / HEAD_FILE
    if not file.is_file():
        raise ConfigError(f"preference model {path}: its scalar head, {HEAD_FILE}, is missing; save the model anew")
    try:
        with safe_open(file, framework="pt") as stored:
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"preference model {path}: {HEAD_FILE} cannot be read: {error}") from error
    shape = shapes.get(_WEIGHT, ())
    if set(shapes) != {_WEIGHT} or len(shape) != 2 or shape[0] != 1:
        raise ConfigError(f"preference model {path}: {HEAD_FILE} holds {shapes}, not one row '{_WEIGHT}'")
    return int(shape[1])
