"""Any other model of transformers with images, through its own forward pass.

The model is called with token ids and its own arguments, so that whatever it does with images (where features go, deep
features added in later layers, positions in several axes) stays its own business. Only its `get_image_features` is
answered from memory during the call: each distinct set of images is encoded once, however many rows show it.

Legend: U = distinct prompts, B = rows, P = longest prompt, L = longest response, T = columns, A = axes of the position
ids, N = length of a strip (see `layout`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_plan import AttentionPlan
from hybrid_rl.backbones.calling import (
    accepts,
    call,
    call_planned,
    decode,
    decode_planned,
    last_columns,
    on_device,
    planned_states,
    takes,
)
from hybrid_rl.backbones.kept_prompt import KeptPrompt
from hybrid_rl.backbones.layout import Decoding, Layout
from hybrid_rl.backbones.pack import Pack
from hybrid_rl.backbones.shared_attention import SharedAttentionPlan
from hybrid_rl.backbones.vision_memory import Piece, VisionMemory, answering
from hybrid_rl.templates import PromptInputs

_TOKEN_TYPES = "mm_token_type_ids"
"""Processor output with an entry a token: 0 text, 1 image, 2 video."""
_AXES = 3
"""M-RoPE: time, height, width (Qwen2-VL, arXiv 2409.12191)."""


class NativeBackbone:
    """See `hybrid_rl.protocols.Backbone`."""

    def prefill(self, model: Any, inputs: Sequence[PromptInputs], vision: VisionMemory) -> tuple[Tensor, Decoding]:
        rows = range(len(inputs))
        layout = Layout.of([len(i.ids) for i in inputs], rows, [0] * len(inputs))
        strip = _Strip.of(model, inputs, rows, [()] * len(inputs))
        arguments = {**strip.columns(model, layout.index_BT), "attention_mask": layout.attention_BT.to(model.device)}
        with strip.showing(model, rows, vision) as stand_in:
            output = call(model, 1, use_cache=True, **arguments, **stand_in)
        offsets_U = torch.tensor(strip.offsets, device=model.device)
        return output.logits[:, -1], Decoding(output.past_key_values, arguments["attention_mask"], offsets_U)

    def decode(self, model: Any, tokens_B: Tensor, decoding: Decoding) -> Tensor:
        return decode(model, tokens_B, decoding, _AXES if _has_axes(model) else None)

    def prefill_planned(
        self, model: Any, inputs: Sequence[PromptInputs], plan: AttentionPlan, vision: VisionMemory
    ) -> tuple[Tensor, list[int]]:
        lengths = [len(item.ids) for item in inputs]
        strip = _Strip.of(model, inputs, (), ())
        end_to_end_1N = torch.arange(1, 1 + sum(lengths))[None]  # behind the blank
        with strip.showing(model, range(len(inputs)), vision) as stand_in:
            arguments = {**strip.columns(model, end_to_end_1N), **stand_in}
            logits_1UV = call_planned(model, plan, last_columns(lengths, model.device), **arguments)
        return logits_1UV[0], [n + offset for n, offset in zip(lengths, strip.offsets, strict=True)]

    def decode_planned(self, model: Any, tokens_B: Tensor, positions_B: Tensor, plan: AttentionPlan) -> Tensor:
        return decode_planned(model, tokens_B, positions_B, plan, _AXES if _has_axes(model) else None)

    def response_logits(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        vision: VisionMemory,
    ) -> Tensor:
        layout = Layout.of([len(i.ids) for i in inputs], prompt_of_row, [len(r) for r in responses])
        strip = _Strip.of(model, inputs, prompt_of_row, responses)
        arguments = {**strip.columns(model, layout.index_BT), "attention_mask": layout.attention_BT.to(model.device)}
        with strip.showing(model, prompt_of_row, vision) as stand_in:
            output = call(model, layout.mask_BL.shape[1] + 1, use_cache=False, **arguments, **stand_in)
        # The column before the first response token predicts it; the last column predicts nothing of ours.
        logits_BLV: Tensor = output.logits[:, :-1]
        return logits_BLV

    def packed_states(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        vision: VisionMemory,
    ) -> Tensor:
        pack = Pack.of([len(i.ids) for i in inputs], prompt_of_row, [len(r) for r in responses])
        plan, columns_M = SharedAttentionPlan.of(pack, model.device), pack.predictors_M.to(model.device)
        strip = _Strip.of(model, inputs, prompt_of_row, responses)
        with strip.showing(model, pack.prompts, vision) as stand_in:
            return planned_states(model, plan, columns_M, **strip.columns(model, pack.index_N[None]), **stand_in)

    def keep_prompt(self, model: Any, item: PromptInputs, vision: VisionMemory) -> KeptPrompt:
        length = len(item.ids)
        strip = _Strip.of(model, [item], (), ())
        with strip.showing(model, [0], vision) as stand_in:
            columns = strip.columns(model, torch.arange(1, 1 + length)[None])  # behind the blank
            return KeptPrompt.of(model, length, length + strip.offsets[0], **columns, **stand_in)

    def states_behind(
        self, model: Any, kept: KeptPrompt, item: PromptInputs, responses: Sequence[Sequence[int]]
    ) -> Tensor:
        pack = Pack.behind(len(item.ids), [len(r) for r in responses])
        ids = torch.tensor([0, *item.ids, *(i for r in responses for i in r)])
        # Text alone, whose positions are the same on all axes: the pictures are in the kept keys.
        strip = _Strip(
            [], [], ids[pack.index_N], torch.zeros_like(pack.index_N), kept.positions_of(pack).expand(_AXES, -1)
        )
        return kept.states_behind(model, pack, **strip.columns(model, torch.arange(pack.num_tokens)[None]))


@dataclass(frozen=True, slots=True)
class _Strip:
    """The strip of `layout`, of whatever a model wants to know of each token.

    Attributes:
        media: of each prompt.
        offsets: how far the positions behind each prompt are ahead of its tokens.
        types_N: 0 text, 1 image, 2 video.
    """

    media: list[dict[str, Any]]
    offsets: list[int]
    ids_N: Tensor
    types_N: Tensor
    positions_AN: Tensor

    @classmethod
    def of(
        cls,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
    ) -> _Strip:
        media = [{k: on_device(v, model.device) for k, v in i.media.items() if v is not None} for i in inputs]
        prompts = [_positions(model, item, shown) for item, shown in zip(inputs, media, strict=True)]
        types = [t for item, shown in zip(inputs, media, strict=True) for t in _token_types(item, shown)]
        ids = [0, *(i for item in inputs for i in item.ids), *(i for r in responses for i in r)]
        return cls(
            media,
            [offset for _, offset in prompts],
            torch.tensor(ids),
            torch.tensor([0, *types, *(0 for r in responses for _ in r)]),
            _strip_positions(prompts, prompt_of_row, responses),
        )

    def columns(self, model: Any, index_BT: Tensor) -> dict[str, Tensor]:
        """Arguments of the forward pass, gathered from the strip."""
        positions_ABT = self.positions_AN[:, index_BT]
        found = {
            "input_ids": self.ids_N[index_BT],
            "position_ids": positions_ABT if _has_axes(model) else positions_ABT[0],
        }
        if accepts(model, _TOKEN_TYPES):
            found[_TOKEN_TYPES] = self.types_N[index_BT]
        return {name: tensor.to(model.device) for name, tensor in found.items()}

    @contextlib.contextmanager
    def showing(self, model: Any, prompts: Sequence[int], vision: VisionMemory) -> Iterator[dict[str, Any]]:
        """Inside the block the model sees the images of these prompts; its forward pass is given what this yields."""
        shown = [u for u in prompts if self.media[u]]
        if not shown:
            yield {}
            return
        pieces = [piece for u in shown for piece in _pieces(self.media[u])]
        features = vision.features(pieces, functools.partial(_encode, model))
        # The pixels of one prompt stand for all: the model hands them to `get_image_features` and nowhere else.
        stand_in = self.media[shown[0]].items()
        with answering(_inner(model), _join(features)):
            yield {k: v for k, v in stand_in if accepts(model, k) and k != _TOKEN_TYPES}


def _inner(model: Any) -> Any:
    """The module whose forward pass asks for image features."""
    base = getattr(model, "model", None)
    return base if hasattr(base, "get_image_features") else model


def _has_axes(model: Any) -> bool:
    return hasattr(_inner(model), "get_rope_index")


def _positions(model: Any, item: PromptInputs, media: Mapping[str, Any]) -> tuple[Tensor, int]:
    """Positions of a prompt's tokens [A, P], and what the next one's is ahead of P."""
    length = len(item.ids)
    if not media or not _has_axes(model):
        return torch.arange(length).expand(_AXES, -1), 0
    index = _inner(model).get_rope_index
    known = {k: v for k, v in media.items() if takes(index, k) and k != _TOKEN_TYPES}
    if takes(index, _TOKEN_TYPES):
        known[_TOKEN_TYPES] = torch.tensor([_token_types(item, media)], device=model.device)
    positions_A1P, offset = index(input_ids=torch.tensor([item.ids], device=model.device), **known)
    return positions_A1P[:, 0].cpu(), int(offset)


def _strip_positions(
    prompts: Sequence[tuple[Tensor, int]], prompt_of_row: Sequence[int], responses: Sequence[Sequence[int]]
) -> Tensor:
    """Positions along the strip [A, N]; a response goes on where its prompt ends."""
    strip = [torch.zeros(_AXES, 1, dtype=torch.long), *(positions for positions, _ in prompts)]
    for u, response in zip(prompt_of_row, responses, strict=True):
        start = prompts[u][0].shape[1] + prompts[u][1]
        strip.append(torch.arange(start, start + len(response)).expand(_AXES, -1))
    return torch.cat(strip, dim=1)


def _token_types(item: PromptInputs, media: Mapping[str, Any]) -> list[int]:
    """Type of each token of a prompt; what a mode prefills behind the processor's output is text."""
    found = media[_TOKEN_TYPES].flatten().tolist() if _TOKEN_TYPES in media else []
    return [*found, *(0 for _ in range(len(item.ids) - len(found)))]


def _pieces(media: Mapping[str, Any]) -> list[Piece]:
    """The images of a prompt one by one where its processor tells them apart (Qwen-VL), or all of them as one piece."""
    grids, pixels = media.get("image_grid_thw"), media.get("pixel_values")
    if not isinstance(grids, Tensor) or not isinstance(pixels, Tensor) or len(pixels) != int(grids.prod(-1).sum()):
        return [{k: v for k, v in media.items() if k != _TOKEN_TYPES}]
    patches = pixels.split(grids.prod(-1).tolist())
    return [{"pixel_values": p, "image_grid_thw": g[None]} for p, g in zip(patches, grids, strict=True)]


def _encode(model: Any, pieces: Sequence[Piece]) -> list[Any]:
    encode = _inner(model).get_image_features
    return [encode(**{k: v for k, v in piece.items() if takes(encode, k)}) for piece in pieces]


def _join(features: Sequence[Any]) -> Any:
    """Features of several pieces as if all had been encoded in one call."""
    first = features[0]
    if isinstance(first, Tensor):
        return torch.cat(list(features))
    if isinstance(first, (tuple, list)):  # an entry an image
        return [entry for item in features for entry in item]
    joined = {"pooler_output": _join([item.pooler_output for item in features])}
    if getattr(first, "deepstack_features", None) is not None:  # an entry a layer, each over all image tokens
        layers = zip(*(item.deepstack_features for item in features), strict=True)
        joined["deepstack_features"] = [torch.cat(layer) for layer in layers]
    return type(first)(**joined)
