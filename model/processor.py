"""Conversations and pictures to model inputs: chat template, slicing, packing and token spans in one object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_utils import load_image

from .batching import order_by_package, packages_of, pictures_per_text, refuse_longer, sequences
from .chat_template import CHAT_TEMPLATE, IMAGE_PLACEHOLDER
from .image_processing import MiniCPMVImageProcessor, to_rgb
from .messages import copied, images_of, without_images
from .prompt import (
    MEDIA_MARKERS,
    EncodedPrompt,
    LiteralText,
    Piece,
    encode_pieces,
    image_pieces,
    interleave,
    unused_cut,
)
from .slicing import SlicePlan

# What callers of processors pass out of habit and what changes nothing here.
_IGNORED_KEYWORDS = {"add_special_tokens", "return_attention_mask", "audio", "do_sample_frames"}
# What `apply_chat_template` hands on to `__call__`; every other keyword is the template's.
_CALL_KEYWORDS = (
    "max_slice_nums",
    "use_image_id",
    "temporal_ids",
    "padding",
    "padding_side",
    "return_tensors",
    "max_length",
)


class MiniCPMVProcessor(ProcessorMixin):
    """Prepares MiniCPM-V inputs.

    Args:
        image_processor: slices and packs pictures.
        tokenizer: a fast tokenizer that has the marker tokens.
        chat_template: Jinja source; None means the released behaviour.
    """

    image_processor: MiniCPMVImageProcessor
    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        image_processor: MiniCPMVImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE, **kwargs)

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

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: None = None,
        *,
        max_slice_nums: int | None = None,
        use_image_id: bool | None = None,
        temporal_ids: Any = None,
        padding: bool | str | None = None,
        padding_side: str = "left",
        return_tensors: str | None = None,
        max_length: int | None = None,
        truncation: bool | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Rendered text and pictures to model inputs.

        Args:
            images: [sample][picture]; one list serves a single text, or several texts in the order of their
                placeholders. None for text alone.
            text: one rendered prompt or several, `(<image>./</image>)` where a picture goes. Other marker tokens in
                it are taken literally.
            max_slice_nums, use_image_id: replace the image processor's own.
            temporal_ids: [sample][package] of ticks in tenths of a second, for pictures that are video frames: the
                frames of a package share one set of tokens. [package] serves a single text.
            padding: pad ids and mask to the longest. Implied by `return_tensors`.
            padding_side: "left", where generation needs it, or "right".
            return_tensors: "pt" for tensors of ids and mask.
            max_length: most tokens a prompt may have; a longer one is refused, not cut.

        Returns:
            Lists over samples: `input_ids`, `attention_mask`, `pixel_values` [sample][slice] of [3, P, P * L],
            `tgt_sizes` [sample] of [num_slices, 2], `image_bound` [sample] of [num_packages, 2] and `temporal_ids`
            [sample][package].

        Raises:
            ValueError: pictures and placeholders differ in number, a picture has no pixels, the frames of a package
                are cut differently, a prompt is longer than `max_length`, or truncation is asked for.
        """
        if unknown := kwargs.keys() - _IGNORED_KEYWORDS:
            raise TypeError(f"The processor takes no argument {', '.join(sorted(unknown))}.")
        if text is None or videos is not None or truncation:
            raise ValueError("The processor needs text, takes video as frames with temporal_ids, and never truncates.")
        texts = [text] if isinstance(text, str) else list(text)
        return self._batch(
            [[rendered] for rendered in texts],
            pictures_per_text(images, texts),
            temporal_ids,
            max_slice_nums=max_slice_nums,
            use_image_id=use_image_id,
            padding=padding,
            padding_side=padding_side,
            return_tensors=return_tensors,
            max_length=max_length,
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
        ordinary characters; a picture comes from an image block only. `enable_thinking` and other template
        variables, and the options of `__call__`, are keywords.

        Returns:
            The text, or a list of texts for a list of conversations. With `tokenize` what `__call__` returns, lists
            over samples even for one conversation; its `input_ids` alone without `return_dict`.

        Raises:
            ValueError: as `__call__`, and for image blocks without a picture.
        """
        options = {**kwargs, **(processor_kwargs or {}), "return_tensors": return_tensors}
        call = {name: options.pop(name) for name in _CALL_KEYWORDS if name in options}
        if options.pop("truncation", None):
            raise ValueError("Prompts are never truncated: it could cut a picture's tokens.")
        options.update(chat_template=chat_template, add_generation_prompt=add_generation_prompt)
        batched = bool(conversation) and not isinstance(conversation[0], dict)
        conversations = list(conversation) if batched else [conversation]
        if not tokenize:
            texts = super().apply_chat_template(copied(conversations), tokenize=False, **options)
            return texts if batched else texts[0]
        cut = unused_cut(conversations)
        # Pictures are taken out first: they are not text, and a path to one must not be changed.
        images = [
            [load_image(image) if isinstance(image, str) else image for image in images_of(c)] for c in conversations
        ]
        marked = self._control_text.mark(without_images(conversations), cut)
        texts = super().apply_chat_template(marked, tokenize=False, **options)
        features = self._batch(
            [rendered.split(cut) for rendered in texts], images, call.pop("temporal_ids", None), **call
        )
        return features if return_dict else features["input_ids"]

    @cached_property
    def _media_text(self) -> LiteralText:
        return LiteralText(MEDIA_MARKERS)

    @cached_property
    def _control_text(self) -> LiteralText:
        """Guards messages: markers, and tokens like <|im_end|>. Tags for boxes and points are the user's to write."""
        special = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        return LiteralText({*MEDIA_MARKERS, *(token for token in special if token.startswith("<|"))})

    def _token_id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(found, int):
            raise ValueError(f"The tokenizer has no {token}, which MiniCPM-V prompts need.")
        return found

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _batch(
        self,
        texts: list[list[str]],
        images: list[list[Any]],
        temporal_ids: Any,
        *,
        max_slice_nums: int | None = None,
        use_image_id: bool | None = None,
        padding: bool | str | None = None,
        padding_side: str = "left",
        return_tensors: str | None = None,
        max_length: int | None = None,
    ) -> BatchFeature:
        """Inputs of samples whose text comes as runs to tokenise one by one."""
        if len(texts) != len(images):
            raise ValueError(f"There are images for {len(images)} samples and text for {len(texts)}.")
        numbered = self.image_processor.use_image_id if use_image_id is None else use_image_id
        packages = packages_of(temporal_ids, images)
        prompts: list[EncodedPrompt] = []
        media: dict[str, list[Any]] = {"pixel_values": [], "tgt_sizes": [], "temporal_ids": []}
        for runs, sample, groups in zip(texts, images, packages, strict=True):
            pictures = [to_rgb(image) for image in sample]
            plans = [self.image_processor.plan(*picture.size, max_slice_nums) for picture in pictures]
            prompts.append(self._prompt(runs, plans, groups, numbered))
            slices, grids, ticks = self._media(pictures, plans, groups)
            media["pixel_values"].append(slices)
            media["tgt_sizes"].append(torch.tensor(grids, dtype=torch.long).reshape(-1, 2))
            media["temporal_ids"].append(ticks)
        refuse_longer(prompts, max_length)
        padded = (padding not in (None, False, "do_not_pad")) or return_tensors is not None
        text = sequences(prompts, self.tokenizer.pad_token_id, padding_side, padded, return_tensors)
        return BatchFeature({**text, **media})

    def _prompt(
        self, runs: list[str], plans: list[SlicePlan], groups: list[list[int]], numbered: bool
    ) -> EncodedPrompt:
        """Ids and spans of one sample; `groups` are the ticks of each package, whose first frame shows the tokens."""
        width = self.image_processor.image_feature_size
        shown: list[list[Piece] | None] = []
        for group in groups:
            grid = plans[len(shown)].grid
            shown.append(image_pieces(grid, width, len(shown) if numbered else None))
            shown += [None] * (len(group) - 1)
        # Cuts never fall inside a placeholder of ours, so each run holds whole ones.
        counts = [run.count(IMAGE_PLACEHOLDER) for run in runs]
        if sum(counts) != len(shown):
            raise ValueError(f"The text has {sum(counts)} image placeholders for {len(shown)} images.")
        pieces: list[Piece] = []
        for run, count in zip(runs, counts, strict=True):
            pieces += interleave(run, shown[:count], self._media_text)
            shown = shown[count:]
        return encode_pieces(pieces, self._encode, self.image_token_id)

    def _media(
        self, pictures: list[Image.Image], plans: list[SlicePlan], groups: list[list[int]]
    ) -> tuple[list[Tensor], list[tuple[int, int]], list[list[int]]]:
        """Slices, their patch grids and the ticks of every package of one sample."""
        slices = [self.image_processor.slices(*pair) for pair in zip(pictures, plans, strict=True)]
        order, ticks = order_by_package([len(s) for s in slices], groups)
        grids = [plan.patch_grids(self.image_processor.patch_size) for plan in plans]
        return [slices[frame][i] for frame, i in order], [grids[frame][i] for frame, i in order], ticks
