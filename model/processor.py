"""Conversations, pictures and videos to model inputs: chat template, slicing, packing and token spans in one object."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .assembly import Assembler, CallOptions
from .batching import pictures_per_text, videos_per_text
from .chat_template import CHAT_TEMPLATE
from .image_processing import MiniCPMVImageProcessor
from .messages import copied, flattened, images_of, videos_of, without_media
from .prompt import MEDIA_MARKERS, LiteralText, unused_cut
from .video_sampling import UNTIMED_VIDEO, VideoOptions
from .visuals import frame_choice

if TYPE_CHECKING:
    from .video import Clip

# What callers of processors pass out of habit and what changes nothing here.
_IGNORED_KEYWORDS = {"add_special_tokens", "return_attention_mask", "audio", "do_sample_frames"}
# What `apply_chat_template` hands on; every other keyword is the template's.
_CALL_KEYWORDS = tuple(CallOptions.__dataclass_fields__)
_FIRST_WITH_TIME = 4.5
_READS_BLOCKS = re.compile(r"""\.type\b|\[['"]type['"]\]""")
"""Found in chat templates for which content may be a list of blocks."""


class MiniCPMVProcessor(ProcessorMixin):
    """Prepares MiniCPM-V inputs.

    Args:
        image_processor: slices and packs pictures.
        tokenizer: a fast tokenizer that has the marker tokens.
        chat_template: Jinja source. None means that of 4.5, or the tokenizer's own if that knows no switch for
            thinking, as those of the earlier releases.
        video_options: how videos are shown; a dict sets some fields of `VideoOptions`, None none.
    """

    image_processor: MiniCPMVImageProcessor
    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        image_processor: MiniCPMVImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or _template_of(tokenizer), **kwargs)
        if not isinstance(video_options, VideoOptions):
            video_options = VideoOptions().with_changes(video_options)
        self.video_options: VideoOptions = video_options

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. Beside a `config.json` of a release before 4.5 videos are pictures without time."""
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        defaults = processor.video_options == VideoOptions()
        if defaults and _is_before_time(str(pretrained_model_name_or_path)):
            processor.video_options = UNTIMED_VIDEO
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Settings as they are saved."""
        return {**super().to_dict(), "video_options": self.video_options.to_dict()}

    @property
    def model_input_names(self) -> list[str]:
        """Keys of what a call returns."""
        return ["input_ids", "attention_mask", "pixel_values", "tgt_sizes", "image_bound", "temporal_ids"]

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder token, whose embeddings the image features replace."""
        return self.placeholder_token_ids[0]

    @cached_property
    def placeholder_token_ids(self) -> tuple[int, ...]:
        """Ids that only the processor may write and a policy must never sample; the placeholder comes first."""
        return tuple(map(self._token_id, MEDIA_MARKERS))

    def image_token_count(
        self,
        width: int,
        height: int,
        *,
        max_slice_nums: int | None = None,
        use_image_id: bool | None = None,
        number: int = 0,
    ) -> int:
        """Prompt tokens that a picture of this size in pixels becomes, markers and number included.

        By arithmetic alone. `number` is the picture's place in the conversation, from 0: its digits are tokens as well.

        Raises:
            ValueError: a picture without pixels.
        """
        columns, rows = self.image_processor.plan(width, height, max_slice_nums).grid or (0, 0)
        numbered = self.image_processor.use_image_id if use_image_id is None else use_image_id
        slices = (1 + columns * rows) * (self.image_processor.image_feature_size + 2)
        return slices + max(rows - 1, 0) + (2 + len(str(number)) if numbered else 0)

    def video_token_count(
        self,
        width: int,
        height: int,
        num_frames: int,
        source_fps: float | None = None,
        **options: Any,
    ) -> int:
        """Prompt tokens that a video becomes, markers included, by arithmetic alone.

        Args:
            width, height: of its frames, in pixels.
            num_frames: of the whole video.
            source_fps: its frames per second; None for a list of frames that were chosen already.
            options: fields of `VideoOptions` to replace.

        Raises:
            ValueError: a video without frames or pixels, or an unknown option.
        """
        settings = self.video_options.with_changes(options)
        num_packages = len(frame_choice(num_frames, source_fps, settings).packages)
        package = self.image_token_count(width, height, max_slice_nums=settings.max_slice_nums, use_image_id=False)
        return num_packages * package + num_packages - 1  # each on a line of its own

    def open_clip(self, video: Any) -> Clip:
        """A video as this processor reads it; a block or a call may hold the clip instead.

        Raises:
            ValueError: not a video, or one without frames.
        """
        from .video import open_clip  # PyAV, which prompts without video do not need

        return open_clip(video)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        *,
        truncation: bool | str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Rendered text, pictures and videos to model inputs.

        Args:
            images: [sample][picture]; one list serves a single text, or several texts in the order of their
                placeholders. None for text alone. A picture is anything `to_rgb` takes.
            text: one rendered prompt or several, `(<image>./</image>)` where a picture goes and `(<video>./</video>)`
                where a video does. Other marker tokens in it are taken literally.
            videos: [sample][video], or one list like `images`. A video is a file name, a list of frames, an array
                [T, H, W, C], or a dict with one of these as "video" beside options for it alone: `VideoOptions`
                fields, `source_fps` of a list, or `temporal_ids` [package] of ticks to take every frame as it is.
            truncation: must be false; a cut could fall into a picture's tokens.
            kwargs:
                max_slice_nums, use_image_id: replace the image processor's own, for pictures.
                temporal_ids: [sample][package] of ticks in tenths of a second, for pictures that are video frames: the
                    frames of a package share one set of tokens. [package] serves a single text.
                videos_kwargs: `VideoOptions` fields for all videos of the call.
                padding: pad ids and mask to the longest, or with "max_length" to that. Implied by `return_tensors`.
                padding_side: "left", where generation needs it, or "right".
                max_length: refuse longer prompts.
                return_tensors: "pt" for tensors of ids and mask.

        Returns:
            Lists over samples: `input_ids`, `attention_mask`, `pixel_values` [sample][slice] of [3, P, P * L],
            `tgt_sizes` [sample] of [num_slices, 2], `image_bound` [sample] of [num_packages, 2] and `temporal_ids`
            [sample][package].

        Raises:
            ValueError: pictures or videos and placeholders differ in number, one of them cannot be read or has no
                pixels, the frames of a package are cut differently, or a prompt would have to be truncated.
        """
        call = {name: kwargs.pop(name) for name in _CALL_KEYWORDS if name in kwargs}
        if unknown := kwargs.keys() - _IGNORED_KEYWORDS:
            raise TypeError(f"The processor takes no argument {', '.join(sorted(unknown))}.")
        if text is None:
            raise ValueError("The processor needs text; a picture alone is the text '(<image>./</image>)'.")
        _refuse_truncation(truncation)
        texts = [text] if isinstance(text, str) else list(text)
        return self._assembler.batch(
            [[rendered] for rendered in texts],
            pictures_per_text(images, texts),
            videos_per_text(videos, texts),
            CallOptions(**call),
        )

    def apply_chat_template(  # type: ignore[override]  # returns more than text, as transformers' own does
        self,
        conversation: Any,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render one conversation or a list of them, and make model inputs of them if `tokenize`.

        Text of messages is taken literally when it is tokenised: markers, placeholders and turn boundaries in it stay
        ordinary characters; a picture comes from an image block only, `{"type": "image", "image": ...}`, a video from
        `{"type": "video", "video": ...}`, which may hold the options of a video in `__call__`. `enable_thinking` and
        other template variables, and the options of `__call__`, are keywords.

        Returns:
            The text, or a list of texts for a list of conversations. With `tokenize` what `__call__` returns, lists
            over samples even for one conversation; its `input_ids` alone without `return_dict`.

        Raises:
            ValueError: as `__call__`, and for image and video blocks that name none.
        """
        options = {**kwargs, **(processor_kwargs or {}), "return_tensors": return_tensors}
        call = {name: options.pop(name) for name in _CALL_KEYWORDS if name in options}
        _refuse_truncation(options.pop("truncation", None))
        template = chat_template or self.chat_template
        options.update(chat_template=chat_template, add_generation_prompt=add_generation_prompt)
        batched = bool(conversation) and not isinstance(conversation[0], dict)
        conversations = list(conversation) if batched else [conversation]
        # Templates of text-only models, and of earlier releases, know strings only.
        prepare = copied if not isinstance(template, str) or _READS_BLOCKS.search(template) else flattened
        if not tokenize:
            texts = super().apply_chat_template(prepare(conversations), tokenize=False, **options)
            return texts if batched else texts[0]
        cut = unused_cut(conversations)
        # Pictures are taken out first: they are not text, and a path to one must not be changed.
        marked = self._control_text.mark(without_media(conversations), cut)
        texts = super().apply_chat_template(prepare(marked), tokenize=False, **options)
        features = self._assembler.batch(
            [rendered.split(cut) for rendered in texts],
            [images_of(c) for c in conversations],
            [videos_of(c) for c in conversations],
            CallOptions(**call),
        )
        return features if return_dict else features["input_ids"]

    @property
    def _assembler(self) -> Assembler:
        return Assembler(
            image_processor=self.image_processor,
            encode_all=self._encode_all,
            literal=self._media_text,
            placeholder_id=self.image_token_id,
            pad_id=self.tokenizer.pad_token_id,
            videos=self.video_options,
        )

    @cached_property
    def _media_text(self) -> LiteralText:
        return LiteralText(MEDIA_MARKERS)

    @cached_property
    def _control_text(self) -> LiteralText:
        """Guards messages: markers, and tokens like <|im_end|>. Tags for boxes and points are the user's to write."""
        special = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        # A video's placeholder is no token, but rendered text is searched for it.
        return LiteralText({*MEDIA_MARKERS, "<video>./</video>", *(t for t in special if t.startswith("<|"))})

    def _token_id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(found, int):
            raise ValueError(f"The tokenizer has no {token}, which MiniCPM-V prompts need.")
        return found

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        return ids


def _template_of(tokenizer: Any) -> str:
    """The tokenizer's own chat template if it is another than 4.5's, which `CHAT_TEMPLATE` renders with blocks."""
    own = getattr(tokenizer, "chat_template", None)
    return own if isinstance(own, str) and "enable_thinking" not in own else CHAT_TEMPLATE


def _is_before_time(folder: str) -> bool:
    """Whether the model beside the processor has a resampler without time."""
    config = Path(folder) / "config.json"
    version = json.loads(config.read_text()).get("version") if config.is_file() else None
    try:
        return version is not None and float(version) < _FIRST_WITH_TIME
    except (TypeError, ValueError):
        return False  # no version of this family; loading the model says so


def _refuse_truncation(truncation: Any) -> None:
    if truncation not in (None, False, "do_not_truncate"):
        raise ValueError("Prompts are never truncated: it could cut a picture's tokens. Set max_length to refuse them.")
