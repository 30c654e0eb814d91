"""Models whose decoder is given embeddings: causal language models, and those with images that embed them beforehand.

A prompt that several rows share is embedded once, and so are its images; rows gather the embeddings.

Legend: U = distinct prompts, B = rows, P = longest prompt, L = longest response, T = P + L, D = width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_plan import planned_attention
from hybrid_rl.backbones.calling import call, decode, on_device, states, takes
from hybrid_rl.backbones.features import answering
from hybrid_rl.backbones.layout import Decoding, Layout
from hybrid_rl.backbones.pack import Pack
from hybrid_rl.backbones.shared_attention import SharedAttentionPlan
from hybrid_rl.templates import PromptInputs


class EmbeddedBackbone:
    """See `hybrid_rl.protocols.Backbone`. Models with media offer `embed_multimodal(input_ids_BT, **media)`, media as
    lists with one entry a sample."""

    def prefill(self, model: Any, inputs: Sequence[PromptInputs]) -> tuple[Tensor, Decoding]:
        layout = Layout.of([len(i.ids) for i in inputs], range(len(inputs)), [0] * len(inputs))
        output = self._forward(model, inputs, layout, [], 1, use_cache=True)
        attention_UP = layout.attention_BT.to(model.device)
        decoding = Decoding(output.past_key_values, attention_UP, attention_UP.new_zeros(len(inputs)))
        return output.logits[:, -1], decoding

    def decode(self, model: Any, tokens_B: Tensor, decoding: Decoding) -> Tensor:
        return decode(model, tokens_B, decoding)

    def response_logits(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
    ) -> Tensor:
        layout = Layout.of([len(i.ids) for i in inputs], prompt_of_row, [len(r) for r in responses])
        ids = [i for response in responses for i in response]
        output = self._forward(model, inputs, layout, ids, layout.mask_BL.shape[1] + 1, use_cache=False)
        # The column before the first response token predicts it; the last column predicts nothing of ours.
        logits_BLV: Tensor = output.logits[:, :-1]
        return logits_BLV

    def split_media(self, model: Any, media: Mapping[str, Any]) -> list[dict[str, Any]]:
        encode = model.get_image_features
        pictures = {k: v for k, v in media.items() if takes(encode, k)}
        if not hasattr(model, "split_media"):
            return [pictures]
        parts: list[dict[str, Any]] = model.split_media(**pictures)
        return parts

    def encode_media(self, model: Any, pictures: Sequence[Mapping[str, Any]]) -> list[Any]:
        features: list[Any] = model.get_image_features(**_collate(pictures, model.device))
        return features

    def packed_states(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        features: Sequence[Any],
        responses: Sequence[Sequence[int]],
        pack: Pack,
    ) -> Tensor:
        device = model.device
        index_N = pack.index_N.to(device)
        with planned_attention(model.get_decoder().config):
            return states(
                model,
                pack.predictors_M.to(device),
                inputs_embeds=_embed_strip(model, inputs, features, responses)[index_N][None],
                position_ids=pack.positions_N[None].to(device),
                use_cache=False,
                attention_plan=SharedAttentionPlan.of(pack, device),
            )

    def _forward(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        layout: Layout,
        response_ids: Sequence[int],
        logits_to_keep: int,
        *,
        use_cache: bool,
    ) -> Any:
        device = model.device
        strip = _embed_prompts(model, inputs)
        if response_ids:
            strip.append(model.get_input_embeddings()(torch.tensor(response_ids, device=device)))
        strip_ND = torch.cat([torch.zeros_like(strip[0][:1]), *strip])
        return call(
            model,
            logits_to_keep,
            inputs_embeds=strip_ND[layout.index_BT.to(device)],
            attention_mask=layout.attention_BT.to(device),
            position_ids=layout.positions_BT.to(device),
            use_cache=use_cache,
        )


def _embed_prompts(model: Any, inputs: Sequence[PromptInputs]) -> list[Tensor]:
    """Input embeddings of each prompt, image features in place: a list of [P, D]. All images are encoded together."""
    table, device = model.get_input_embeddings(), model.device
    if not any(item.media for item in inputs):
        return [table(torch.tensor(item.ids, device=device)) for item in inputs]
    longest = max(len(item.ids) for item in inputs)
    ids_UP = torch.zeros(len(inputs), longest, dtype=torch.long)
    for row, item in enumerate(inputs):
        ids_UP[row, : len(item.ids)] = torch.tensor(item.ids)
    embeds_UPD = model.embed_multimodal(ids_UP.to(device), **_collate([i.media for i in inputs], device))
    return [embeds_UPD[row, : len(item.ids)] for row, item in enumerate(inputs)]


def _embed_strip(
    model: Any, inputs: Sequence[PromptInputs], features: Sequence[Any], responses: Sequence[Sequence[int]]
) -> Tensor:
    """Input embeddings of all prompts, features of their pictures in place, and then of all responses [N, D]."""
    table, device = model.get_input_embeddings(), model.device
    shown = [u for u, item in enumerate(inputs) if item.media]
    with_pictures: dict[int, Tensor] = {}
    if shown:
        with answering(model, [features[u] for u in shown]):
            with_pictures = dict(zip(shown, _embed_prompts(model, [inputs[u] for u in shown]), strict=True))
    ids_N = torch.tensor([i for ids in (*(item.ids for item in inputs), *responses) for i in ids], device=device)
    strip_ND: Tensor = table(ids_N)
    if not shown:
        return strip_ND
    lengths = [len(item.ids) for item in inputs]
    *prompts, behind = strip_ND.split([*lengths, len(ids_N) - sum(lengths)])
    return torch.cat([*(with_pictures.get(u, embeds) for u, embeds in enumerate(prompts)), behind])


def _collate(media: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for item in media for key in item)
    return {key: [on_device(item.get(key, []), device) for item in media] for key in keys}
