"""The processor of a checkpoint folder, also where transformers' own wants torchvision.

Many processors of transformers hold a video processor, and those need torchvision, which is not installed here. Such a
processor is composed from its image processor on Pillow and its tokenizer; videos are refused with a clear error.
"""

from __future__ import annotations

from typing import Any

from hybrid_rl.config.model import VideoConfig
from hybrid_rl.errors import ConfigError

_VIDEO_OPTIONS = {"frames_per_second": "fps", "max_packages": "max_packages", "max_frames_per_package": "max_packing"}
"""Keys of `model.video`, and what processors call them."""


def set_video_options(processor: Any, config: VideoConfig | None) -> None:
    """Tell a processor which frames of videos to show.

    Raises:
        ConfigError: it takes no such settings.
    """
    if config is None:
        return
    options = getattr(processor, "video_options", None)
    if options is None:
        raise ConfigError(
            f"model.video: the policy's processor ({type(processor).__name__}) takes no videos; remove the section"
        )
    given = {_VIDEO_OPTIONS[name]: value for name, value in config.model_dump(exclude_none=True).items()}
    processor.video_options = options.with_changes(given)


def load_processor(folder: str, config: Any) -> Any:
    """Processor of a folder, or its tokenizer for a model of text.

    Args:
        config: the model's config, which says which processor belongs to it.

    Raises:
        ValueError, OSError, KeyError: as transformers does, for a folder without one.
    """
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.utils.import_utils import is_torchvision_available

    processor_class: Any = PROCESSOR_MAPPING.get(type(config), None)
    wants_videos = processor_class is not None and "video_processor" in processor_class.get_attributes()
    if wants_videos and not is_torchvision_available():
        return _composed(folder, processor_class)
    return AutoProcessor.from_pretrained(folder, trust_remote_code=False)


def _composed(folder: str, processor_class: Any) -> Any:
    from transformers import AutoTokenizer

    # The one that `transformers` itself exports insists on torchvision.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return compose_processor(processor_class, image_processor, tokenizer)


def compose_processor(processor_class: Any, image_processor: Any, tokenizer: Any) -> Any:
    """A processor without its video processor.

    Raises:
        ValueError: it has further parts.
    """
    given = {
        "image_processor": image_processor,
        "tokenizer": tokenizer,
        "video_processor": _NoVideos(image_processor),
        "chat_template": getattr(tokenizer, "chat_template", None),
    }
    wanted = set(processor_class.get_attributes()) - given.keys()
    if wanted:
        raise ValueError(
            f"{processor_class.__name__} also needs {', '.join(sorted(wanted))}, which cannot be made here"
        )
    return _without_videos(processor_class)(
        **{k: v for k, v in given.items() if k in processor_class.get_attributes() or k == "chat_template"}
    )


def _without_videos(processor_class: Any) -> Any:
    """The processor class, content without a video processor; it saves itself under its own name and without one."""

    def check(self: Any, name: str, argument: Any) -> Any:
        if isinstance(argument, _NoVideos):
            return _NoVideos
        return processor_class.check_argument_for_proper_class(self, name, argument)

    def to_dict(self: Any) -> dict[str, Any]:
        found: dict[str, Any] = processor_class.to_dict(self)
        found.pop("video_processor", None)
        return found

    members = {"check_argument_for_proper_class": check, "to_dict": to_dict, "__module__": processor_class.__module__}
    return type(processor_class.__name__, (processor_class,), members)


class _NoVideos:
    """In the place of a video processor. What is asked of it (sizes, modes) the image processor answers."""

    _auto_class = None

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_image_processor":
            raise AttributeError(name)
        return getattr(self._image_processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("videos need transformers' video processor, which needs torchvision; give images instead")
