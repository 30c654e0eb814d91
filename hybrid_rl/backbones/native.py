"""Any other model of transformers with images, through its own forward pass.

The model is called with token ids and its own arguments, so that whatever it does with images (where features go, deep
features added in later layers, positions in several axes) stays its own business. Only its `get_image_features` is
answered from memory during the call: each distinct set of images is encoded once, however many rows show it.

Legend: U = distinct prompts, B = rows, P = longest prompt, L = longest response, T = P + L, A = axes of the position
ids, N = length of a strip (see `layout`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_plan import planned_attention
from hybrid_rl.backbones.calling import accepts, call, decode, on_device, states, takes
from hybrid_rl.backbones.features import answering, content_key, join
from hybrid_rl.backbones.layout import Decoding, Layout
from hybrid_rl.backbones.pack import Pack
from hybrid_rl.backbones.shared_attention import SharedAttentionPlan
from hybrid_rl.templates import PromptInputs

_TOKEN_TYPES = "mm_token_type_ids"
"""Processor output with an entry a token: 0 text, 1 image, 2 video."""
_PIXELS, _GRIDS = "pixel_values", "image_grid_thw"
"""Of models that put the patches of all pictures in one row: the patches, and how many each picture has."""
_AXES = 3
"""M-RoPE: time, height, width (Qwen2-VL, arXiv 2409.12191)."""


class NativeBackbone:
    """See `hybrid_rl.protocols.Backbone`."""

    def prefill(self, model: Any, inputs: Sequence[PromptInputs]) -> tuple[Tensor, Decoding]:
        output, layout, offsets = self._forward(model, inputs, range(len(inputs)), [()] * len(inputs), use_cache=True)
        decoding = Decoding(output.past_key_values, layout.attention_BT.to(model.device), offsets.to(model.device))
        return output.logits[:, -1], decoding

    def decode(self, model: Any, tokens_B: Tensor, decoding: Decoding) -> Tensor:
        return decode(model, tokens_B, decoding, _AXES if _has_axes(model) else None)

    def response_logits(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
    ) -> Tensor:
        output, _, _ = self._forward(model, inputs, prompt_of_row, responses, use_cache=False)
        # The column before the first response token predicts it; the last column predicts nothing of ours.
        logits_BLV: Tensor = output.logits[:, :-1]
        return logits_BLV

    def split_media(self, model: Any, media: Mapping[str, Any]) -> list[dict[str, Any]]:
        pictures = _of_pictures(model, media)
        grids = pictures.get(_GRIDS)
        if grids is None or len(grids) == 1 or set(pictures) != {_PIXELS, _GRIDS}:
            return [pictures]
        pixels = pictures[_PIXELS].split(grids.prod(-1).tolist())
        return [{_PIXELS: part, _GRIDS: grid[None]} for part, grid in zip(pixels, grids, strict=True)]

    def encode_media(self, model: Any, pictures: Sequence[Mapping[str, Any]]) -> list[Any]:
        encode, device = _inner(model).get_image_features, model.device
        return [encode(**{k: on_device(v, device) for k, v in picture.items()}) for picture in pictures]

    def packed_states(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        features: Sequence[Any],
        responses: Sequence[Sequence[int]],
        pack: Pack,
    ) -> Tensor:
        device = model.device
        media = [{k: on_device(v, device) for k, v in item.media.items() if v is not None} for item in inputs]
        index_N = pack.index_N
        ids_N = torch.tensor([*(i for item in inputs for i in item.ids), *(i for r in responses for i in r)])
        arguments: dict[str, Any] = {"input_ids": ids_N[index_N][None].to(device), "use_cache": False}
        arguments["position_ids"] = self._pack_positions(model, inputs, media, pack).to(device)
        if accepts(model, _TOKEN_TYPES):
            types = [t for item, m in zip(inputs, media, strict=True) for t in _token_types(item, m)]
            types_N = torch.tensor([*types, *(0 for r in responses for _ in r)])
            arguments[_TOKEN_TYPES] = types_N[index_N][None].to(device)
        arguments["attention_plan"] = SharedAttentionPlan.of(pack, device)
        columns_M = pack.predictors_M.to(device)
        shown = [u for u in pack.prompts if media[u]]
        with planned_attention(model.get_decoder().config):
            if not shown:
                return states(model, columns_M, **arguments)
            with answering(_inner(model), join([features[u] for u in shown])):
                return states(model, columns_M, **arguments, **_stand_in(model, media[shown[0]]))

    def _pack_positions(
        self, model: Any, inputs: Sequence[PromptInputs], media: Sequence[Mapping[str, Any]], pack: Pack
    ) -> Tensor:
        """Positions of the columns, [1, N] or [A, 1, N]."""
        if not _has_axes(model):
            return pack.positions_N[None]
        prompts = [_positions(model, item, shown) for item, shown in zip(inputs, media, strict=True)]
        strip = torch.cat([positions_AP for positions_AP, _ in prompts], dim=1)
        # A response goes on where its prompt ends, in all axes alike.
        positions_AN = pack.positions_N.expand(_AXES, -1).clone()
        ahead_N = torch.tensor([offset for _, offset in prompts])[pack.prompt_of_column_N]
        of_prompt_N = pack.index_N < strip.shape[1]
        positions_AN[:, of_prompt_N] = strip[:, pack.index_N[of_prompt_N]]
        positions_AN[:, ~of_prompt_N] += ahead_N[~of_prompt_N]
        return positions_AN[:, None]

    def _forward(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        *,
        use_cache: bool,
    ) -> tuple[Any, Layout, Tensor]:
        """The model's output, the layout, and how far the positions of each prompt are ahead of its tokens [U]."""
        device = model.device
        media = [{k: on_device(v, device) for k, v in item.media.items() if v is not None} for item in inputs]
        layout = Layout.of([len(i.ids) for i in inputs], prompt_of_row, [len(r) for r in responses])
        ids_N = torch.tensor([0, *(i for item in inputs for i in item.ids), *(i for r in responses for i in r)])
        arguments = {
            "input_ids": ids_N[layout.index_BT].to(device),
            "attention_mask": layout.attention_BT.to(device),
            "use_cache": use_cache,
        }
        prompts = [_positions(model, item, shown) for item, shown in zip(inputs, media, strict=True)]
        offsets_U = torch.tensor([offset for _, offset in prompts])
        if _has_axes(model):
            arguments["position_ids"] = _strip_positions(prompts, prompt_of_row, responses)[:, layout.index_BT].to(
                device
            )
        else:
            arguments["position_ids"] = layout.positions_BT.to(device)
        if accepts(model, _TOKEN_TYPES):
            types = [t for item, m in zip(inputs, media, strict=True) for t in _token_types(item, m)]
            types_N = torch.tensor([0, *types, *(0 for r in responses for _ in r)])
            arguments[_TOKEN_TYPES] = types_N[layout.index_BT].to(device)
        kept = layout.mask_BL.shape[1] + 1
        shown = [u for u in prompt_of_row if media[u]]
        if not shown:
            return call(model, kept, **arguments), layout, offsets_U
        features = _encode_once(model, media, shown)
        with answering(_inner(model), join([features[u] for u in shown])):
            return call(model, kept, **arguments, **_stand_in(model, media[shown[0]])), layout, offsets_U


def _inner(model: Any) -> Any:
    """The module whose forward pass asks for image features."""
    base = getattr(model, "model", None)
    return base if hasattr(base, "get_image_features") else model


def _stand_in(model: Any, media: Mapping[str, Any]) -> dict[str, Any]:
    """The pixels of one prompt stand for all: the model hands them to `get_image_features` and nowhere else."""
    return {k: v for k, v in media.items() if accepts(model, k) and k != _TOKEN_TYPES}


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


def _encode_once(model: Any, media: Sequence[Mapping[str, Any]], shown: Sequence[int]) -> dict[int, Any]:
    """Features of pictures by prompt. Prompts that show equal pictures share them."""
    found: dict[Any, Any] = {}
    features = {}
    for u in dict.fromkeys(shown):
        arguments = _of_pictures(model, media[u])
        key = content_key(arguments)
        if key not in found:
            found[key] = _inner(model).get_image_features(**arguments)
        features[u] = found[key]
    return features


def _of_pictures(model: Any, media: Mapping[str, Any]) -> dict[str, Any]:
    """What of a prompt's media `get_image_features` takes."""
    accepted = inspect.signature(_inner(model).get_image_features).parameters
    return {k: v for k, v in media.items() if k in accepted and v is not None}
