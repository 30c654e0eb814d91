"""Models whose decoder is given embeddings: causal language models, and those with images that embed them beforehand.

A prompt that several rows share is embedded once, and so are its images; rows gather the embeddings.

Legend: U = distinct prompts, B = rows, P = longest prompt, L = longest response, T = P + L, D = width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.backbones.attention_plan import AttentionPlan
from hybrid_rl.backbones.calling import (
    call,
    call_planned,
    decode,
    decode_planned,
    last_columns,
    on_device,
    planned_states,
)
from hybrid_rl.backbones.kept_prompt import KeptPrompt
from hybrid_rl.backbones.layout import Decoding, Layout
from hybrid_rl.backbones.pack import Pack
from hybrid_rl.backbones.shared_attention import SharedAttentionPlan
from hybrid_rl.backbones.vision_memory import Piece, VisionMemory, answering
from hybrid_rl.templates import PromptInputs


class EmbeddedBackbone:
    """See `hybrid_rl.protocols.Backbone`. Models with media offer `embed_multimodal(input_ids_BT, **media)`, media as
    lists with one entry a sample, which asks `get_image_features(pixel_values, tgt_sizes, temporal_ids)`."""

    def prefill(self, model: Any, inputs: Sequence[PromptInputs], vision: VisionMemory) -> tuple[Tensor, Decoding]:
        layout = Layout.of([len(i.ids) for i in inputs], range(len(inputs)), [0] * len(inputs))
        output = self._forward(model, inputs, layout, [], 1, vision, use_cache=True)
        attention_UP = layout.attention_BT.to(model.device)
        decoding = Decoding(output.past_key_values, attention_UP, attention_UP.new_zeros(len(inputs)))
        return output.logits[:, -1], decoding

    def decode(self, model: Any, tokens_B: Tensor, decoding: Decoding) -> Tensor:
        return decode(model, tokens_B, decoding)

    def prefill_planned(
        self, model: Any, inputs: Sequence[PromptInputs], plan: AttentionPlan, vision: VisionMemory
    ) -> tuple[Tensor, list[int]]:
        lengths = [len(item.ids) for item in inputs]
        logits_1UV = call_planned(
            model,
            plan,
            last_columns(lengths, model.device),
            inputs_embeds=torch.cat(_embed_prompts(model, inputs, vision))[None],
            position_ids=torch.cat([torch.arange(n, device=model.device) for n in lengths])[None],
        )
        return logits_1UV[0], lengths

    def decode_planned(self, model: Any, tokens_B: Tensor, positions_B: Tensor, plan: AttentionPlan) -> Tensor:
        return decode_planned(model, tokens_B, positions_B, plan)

    def response_logits(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        prompt_of_row: Sequence[int],
        responses: Sequence[Sequence[int]],
        vision: VisionMemory,
    ) -> Tensor:
        layout = Layout.of([len(i.ids) for i in inputs], prompt_of_row, [len(r) for r in responses])
        ids = [i for response in responses for i in response]
        output = self._forward(model, inputs, layout, ids, layout.mask_BL.shape[1] + 1, vision, use_cache=False)
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
        device = model.device
        pack = Pack.of([len(i.ids) for i in inputs], prompt_of_row, [len(r) for r in responses])
        strip_ND = _embed_strip(model, inputs, [i for response in responses for i in response], vision)
        return planned_states(
            model,
            SharedAttentionPlan.of(pack, device),
            pack.predictors_M.to(device),
            inputs_embeds=strip_ND[pack.index_N.to(device)][None],
            position_ids=pack.positions_N[None].to(device),
        )

    def keep_prompt(self, model: Any, item: PromptInputs, vision: VisionMemory) -> KeptPrompt:
        (embeds_PD,) = _embed_prompts(model, [item], vision)
        length = len(item.ids)
        positions_1P = torch.arange(length, device=model.device)[None]
        return KeptPrompt.of(model, length, length, inputs_embeds=embeds_PD[None], position_ids=positions_1P)

    def states_behind(
        self, model: Any, kept: KeptPrompt, item: PromptInputs, responses: Sequence[Sequence[int]]
    ) -> Tensor:
        pack = Pack.behind(len(item.ids), [len(r) for r in responses])
        ids = torch.tensor([0, *item.ids, *(i for r in responses for i in r)])[pack.index_N].to(model.device)
        return kept.states_behind(
            model,
            pack,
            inputs_embeds=model.get_input_embeddings()(ids)[None],
            position_ids=kept.positions_of(pack).to(model.device),
        )

    def _forward(
        self,
        model: Any,
        inputs: Sequence[PromptInputs],
        layout: Layout,
        response_ids: Sequence[int],
        logits_to_keep: int,
        vision: VisionMemory,
        *,
        use_cache: bool,
    ) -> Any:
        device = model.device
        strip_ND = _embed_strip(model, inputs, response_ids, vision)
        return call(
            model,
            logits_to_keep,
            inputs_embeds=strip_ND[layout.index_BT.to(device)],
            attention_mask=layout.attention_BT.to(device),
            position_ids=layout.positions_BT.to(device),
            use_cache=use_cache,
        )


def _embed_strip(
    model: Any, inputs: Sequence[PromptInputs], response_ids: Sequence[int], vision: VisionMemory
) -> Tensor:
    """Input embeddings of the blank, all prompts and all responses, end to end [N, D]."""
    strip = _embed_prompts(model, inputs, vision)
    if response_ids:
        strip.append(model.get_input_embeddings()(torch.tensor(response_ids, device=model.device)))
    return torch.cat([torch.zeros_like(strip[0][:1]), *strip])


def _embed_prompts(model: Any, inputs: Sequence[PromptInputs], vision: VisionMemory) -> list[Tensor]:
    """Input embeddings of each prompt, image features in place: a list of [P, D]. New images are encoded together."""
    table, device = model.get_input_embeddings(), model.device
    if not any(item.media for item in inputs):
        return [table(torch.tensor(item.ids, device=device)) for item in inputs]
    longest = max(len(item.ids) for item in inputs)
    ids_UP = torch.zeros(len(inputs), longest, dtype=torch.long)
    for row, item in enumerate(inputs):
        ids_UP[row, : len(item.ids)] = torch.tensor(item.ids)
    media = [on_device(dict(item.media), device) for item in inputs]
    with answering(model, _image_features(model, media, vision)):
        embeds_UPD = model.embed_multimodal(ids_UP.to(device), **_collate(media))
    return [embeds_UPD[row, : len(item.ids)] for row, item in enumerate(inputs)]


def _image_features(model: Any, media: Sequence[Mapping[str, Any]], vision: VisionMemory) -> list[Tensor]:
    """What `get_image_features` would return: of each sample, the tokens of its packages."""

    def encode(pieces: Sequence[Piece]) -> list[Tensor]:
        shown = {key: [[entry for piece in pieces for entry in piece[key]]] for key in pieces[0]}
        return list(model.get_image_features(**shown)[0])

    pieces = [list(_packages(sample)) for sample in media]
    found = iter(vision.features([piece for sample in pieces for piece in sample], encode))
    features = [[next(found) for _ in sample] for sample in pieces]
    # A sample without media has features of the same kind, none of them.
    kind = next(entry for sample in features for entry in sample)
    return [torch.stack(sample) if sample else kind.new_empty(0, *kind.shape) for sample in features]


def _packages(sample: Mapping[str, Any]) -> Iterator[Piece]:
    """The slices of a sample that are encoded into tokens together: a slice of a picture, or the frames of a moment."""
    slices, sizes = sample.get("pixel_values", []), sample.get("tgt_sizes", [])
    groups = sample.get("temporal_ids") if len(slices) else []
    start = 0
    for ticks in groups or [None] * len(slices):
        stop = start + (1 if ticks is None else len(ticks))
        piece: dict[str, Any] = {"pixel_values": list(slices[start:stop]), "tgt_sizes": list(sizes[start:stop])}
        yield piece if ticks is None else {**piece, "temporal_ids": [list(ticks)]}
        start = stop


def _collate(media: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for item in media for key in item)
    return {key: [item.get(key, []) for item in media] for key in keys}
