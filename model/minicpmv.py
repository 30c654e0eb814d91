"""MiniCPM-V: vision tower, resampler and decoder joined (MiniCPM-V 4.5, arXiv 2509.18154, section 2).

Image features overwrite the embeddings of the placeholder tokens; from there on the decoder is a plain causal language
model. Module and parameter names are those of the released checkpoints: `vpm.*`, `resampler.*`, `llm.*`.

Shape suffixes: B samples, T tokens, D features of the decoder, Q queries, K packages of a sample, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from .checkpoint import EARS_AND_VOICE, check_files, refuse_pickles
from .configuration_minicpmv import MiniCPMVConfig
from .media import MediaBatch, Packages, PixelValues, SliceSizes, Spans, span_positions
from .resampler import STILL, CrossAttention, Resampler
from .vision import VisionTower

_MEDIA_ARGUMENTS = ("pixel_values", "tgt_sizes", "image_bound", "temporal_ids")


class MiniCPMVPreTrainedModel(PreTrainedModel):
    """What transformers needs to know to initialise, load, save and shard the model."""

    config: MiniCPMVConfig
    config_class = MiniCPMVConfig
    # Checkpoints name the three parts at the top level, there is no common prefix.
    base_model_prefix = ""
    input_modalities = ["image", "text"]  # noqa: RUF012 (transformers declares these on instances)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    # The decoder, a model of its own, adds the name of its layers.
    _no_split_modules = ["VisionEncoderLayer", "Resampler"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = list(EARS_AND_VOICE)  # noqa: RUF012

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *model_args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers, but strict: see `checkpoint.py`.

        Raises:
            CheckpointError: pickled weights, or missing, extra or wrongly shaped tensors.
            ValueError: a version of the family that is not known here.
        """
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            refuse_pickles(Path(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
            kwargs["use_safetensors"] = True
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, expected_keys: Any = None
    ) -> Any:
        """Where transformers has found the files and built the model, and has not yet read a weight."""
        # With expected keys it is an adapter that is loaded; a quantised file has other tensors.
        if state_dict is None and checkpoint_files and expected_keys is None and load_config.hf_quantizer is None:
            check_files(model, checkpoint_files, shapes=not load_config.ignore_mismatched_sizes)
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, load_config, expected_keys)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initial values of one module's own parameters; the decoder initialises itself."""
        super()._init_weights(module)
        if isinstance(module, Resampler):
            init.trunc_normal_(module.query, std=0.02)
            init.normal_(module.proj, std=module.hidden_size**-0.5)
        elif isinstance(module, CrossAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, nn.Embedding):
            # Only the vision tower's positions get here; of the size of one over its width's root, as in SigLIP.
            init.normal_(module.weight, std=module.embedding_dim**-0.5)


class MiniCPMVForConditionalGeneration(MiniCPMVPreTrainedModel, GenerationMixin):
    """A MiniCPM-V that answers in text.

    Media arguments of all methods are per-sample lists, as `MiniCPMVProcessor` returns them: `pixel_values`
    [sample][slice] of [3, P, P * L], `tgt_sizes` [sample] of [num_slices, 2], `image_bound` [sample] of
    [num_packages, 2], `temporal_ids` [sample][package] of ticks in tenths of a second, [-1] for a picture, or None
    when all are pictures. A sample without media has empty lists.
    """

    _tied_weights_keys = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        # The vision tower is no model of its own, so transformers does not settle its attention: it takes the model's.
        config._attn_implementation = config._attn_implementation
        self.llm = AutoModelForCausalLM.from_config(
            config.decoder_config(), attn_implementation=config._attn_implementation
        )
        self.vpm = VisionTower(config.vision_config, config.num_vision_layers)  # type: ignore[arg-type]
        self.resampler = Resampler(
            config.query_num,
            config.hidden_size,
            config.resampler_heads,
            config.vision_config.hidden_size,  # type: ignore[union-attr]
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's vocabulary head."""
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the decoder's vocabulary head."""
        self.llm.set_output_embeddings(new_embeddings)

    def get_decoder(self, modality: str | None = None) -> nn.Module:
        """The decoder without its vocabulary head."""
        return self.llm.get_decoder()

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, which would warn that the vision tower is no model of its own, had it not its value."""
        if attn_implementation in ("eager", "sdpa"):
            self.config.vision_config._attn_implementation_internal = attn_implementation  # type: ignore[union-attr]
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in transformers; the decoder keeps a vocabulary size of its own, which has to follow."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.llm.config.vocab_size = self.llm.vocab_size = self.config.vocab_size
        return embeddings

    def get_image_features(
        self, pixel_values: PixelValues, tgt_sizes: SliceSizes, temporal_ids: Packages | None = None
    ) -> list[Tensor]:
        """Tokens of all media of a batch, in one pass of the vision tower over all slices.

        Returns:
            Per sample [K, Q, D], one row per package in the order of the placeholder spans; K = 0 without media.

        Raises:
            ValueError: the arguments disagree about the number of samples, slices or frames, or a release without
                time is given some.
        """
        media = MediaBatch.of(pixel_values, tgt_sizes, temporal_ids)
        if not self.config.knows_time and any(package != [STILL] for package in media.packages):
            raise ValueError(
                f"temporal_ids hold frames with time or in packages, which MiniCPM-V {self.config.version} does not "
                "know; leave them out, every frame is a picture of its own."
            )
        if not media.strips:
            none_KQD = torch.empty(
                (0, self.config.query_num, self.config.hidden_size), dtype=self.dtype, device=self.device
            )
            return [none_KQD] * len(media.packages_per_sample)
        frames = self.vpm(media.strips, media.grids)
        features = self.resampler(frames, media.grids, media.packages)
        # Packages, not slices: a video package has several slices but one set of tokens.
        return list(features.split(media.packages_per_sample))

    def embed_multimodal(
        self,
        input_ids_BT: Tensor,
        pixel_values: PixelValues,
        tgt_sizes: SliceSizes,
        image_bound: Spans,
        temporal_ids: Packages | None = None,
    ) -> Tensor:
        """Token embeddings [B, T, D] with image features in the placeholder spans.

        Written out of place: gradients reach the embeddings outside the spans, the resampler and the vision tower.

        Raises:
            ValueError: spans and features do not match in number or length.
        """
        embeds_BTD = self.get_input_embeddings()(input_ids_BT)
        features = self.get_image_features(pixel_values, tgt_sizes, temporal_ids)
        if len(features) != input_ids_BT.shape[0]:
            raise ValueError(f"The media describe {len(features)} samples, input_ids {input_ids_BT.shape[0]}.")
        samples, tokens = span_positions(image_bound, features, input_ids_BT.shape[1])
        if not len(samples):
            return embeds_BTD
        rows = torch.cat([feature_KQD.flatten(0, 1) for feature_KQD in features]).to(embeds_BTD)
        device = embeds_BTD.device
        return embeds_BTD.index_put((samples.to(device), tokens.to(device)), rows)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: PixelValues | None = None,
        tgt_sizes: SliceSizes | None = None,
        image_bound: Spans | None = None,
        temporal_ids: Packages | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits [B, T, V], and the mean loss over labels that are not -100 if `labels` [B, T] are given.

        Everything that is no media argument goes to the decoder as it is: 2-D or 4-D `attention_mask`,
        `position_ids` [B, T], the cache, and what its attention implementation understands.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`, or media without their sizes and spans or
                beside `inputs_embeds`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if pixel_values is not None:
            if input_ids is None or tgt_sizes is None or image_bound is None:
                raise ValueError("pixel_values need input_ids, tgt_sizes and image_bound beside them.")
            inputs_embeds = self.embed_multimodal(input_ids, pixel_values, tgt_sizes, image_bound, temporal_ids)
        elif inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if self.training and not any(map(len, pixel_values or ())):
            inputs_embeds = inputs_embeds + self._zero_of_vision()
        outputs: CausalLMOutputWithPast = self.llm(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return outputs

    def _zero_of_vision(self) -> Tensor | float:
        """Zero that depends on every vision parameter, so a batch of text gives zero gradients, not missing ones.

        Data-parallel training waits for a gradient of every parameter on every rank. Costs one patch.
        """
        trains = any(p.requires_grad for part in (self.vpm, self.resampler) for p in part.parameters())
        if not trains or not torch.is_grad_enabled():
            return 0.0
        side = self.vpm.embeddings.patch_size
        # Made from nothing: `new_zeros` of a weight would be sharded as it is (FSDP2), or gather it here (ZeRO-3).
        strip = torch.zeros(self.vpm.embeddings.patch_embedding.in_channels, side, side)
        return self.resampler(self.vpm([strip], [(1, 1)]), [(1, 1)], [[STILL]]).sum() * 0.0

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Inputs of one decoding step; media only for the prompt, later tokens find them in the cache."""
        media = {name: kwargs.pop(name, None) for name in _MEDIA_ARGUMENTS}
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update(media)
        return inputs

    @staticmethod
    def _expand_inputs_for_generation(
        expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **model_kwargs: Any
    ) -> Any:
        """Repeat every sample `expand_size` times; transformers does it for tensors, here for the media lists too."""
        for name in _MEDIA_ARGUMENTS:
            if model_kwargs.get(name) is not None:
                model_kwargs[name] = _repeat_each(model_kwargs[name], expand_size)
        return GenerationMixin._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)


def _repeat_each(values: Sequence[Any], times: int) -> list[Any]:
    """[a, b] to [a, a, b, b] by reference."""
    return [value for value in values for _ in range(times)]
