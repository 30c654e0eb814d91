"""Whether the largest group and micro-batch fit into memory: an estimate from sizes, nothing is allocated."""

from __future__ import annotations

import os
from typing import Any

import torch

from hybrid_rl.config import Config
from hybrid_rl.doctor.findings import Finding, Grade
from hybrid_rl.preflight import Material

_GIB = 2**30
_LOGITS_AT_ONCE = 2**27
_TIGHT = 0.8


def examine_memory(config: Config, material: Material, text_config: Any, longest_prompt: int) -> list[Finding]:
    """Worst cases in GiB against what the device has.

    - Weights, and for the actor gradients and two moments of AdamW, in float32: 16 bytes a trained parameter.
    - A group's memory while sampling: keys and values of every token of every response, the prompt included.
    - A micro-batch while training: per layer and token about 34 h + 5 a s bytes in 16 bit (Korthikanti et al.,
      arXiv 2205.05198, section 4.1), twice that in 32 bit, h being the width, a the heads and s the length; with
      recomputation only the 2 h bytes of each layer's input; and the logits.
    """
    width, layers = int(text_config.hidden_size), int(text_config.num_hidden_layers)
    heads = int(text_config.num_attention_heads)
    kv_heads = int(getattr(text_config, "num_key_value_heads", None) or heads)
    head_size = int(getattr(text_config, "head_dim", None) or width // heads)
    nbytes = 4 if material.full_precision else 2
    longest = max(kind.max_new_tokens for kind in config.modes.kinds.values()) + longest_prompt
    group = config.train.responses_per_prompt * longest * layers * 2 * kv_heads * head_size * nbytes
    tokens = max(config.train.max_tokens_per_micro_batch, longest)
    per_token = 2 * width if config.model.gradient_checkpointing else 34 * width + 5 * heads * longest
    logits = min(tokens * int(text_config.vocab_size), _LOGITS_AT_ONCE) * 4 * 3
    batch = tokens * per_token * layers * nbytes // 2 + logits
    frozen = material.num_parameters if config.model.lora else 0
    actor = 16 * material.num_trained_parameters + frozen * nbytes + batch
    rollout = material.num_parameters * nbytes + group
    copies = 0 if config.model.lora else 1
    whole = actor + config.cluster.rollout_workers * rollout + copies * material.num_parameters * nbytes
    available = _available()
    figures: dict[str, float | int | None] = {
        "group_gib": group / _GIB,
        "micro_batch_gib": batch / _GIB,
        "all_workers_gib": whole / _GIB,
        "available_gib": available / _GIB,
    }
    sentence = (
        f"a group of {config.train.responses_per_prompt} responses of {longest:,} tokens keeps {group / _GIB:.2f} GiB "
        f"of keys and values, a micro-batch {batch / _GIB:.2f} GiB; all workers about {whole / _GIB:.1f} of "
        f"{available / _GIB:.1f} GiB"
    )
    grade = Grade.OK
    if whole > _TIGHT * available:
        grade = Grade.WARN
        sentence += (
            "; that is tight: lower train.max_tokens_per_micro_batch or train.responses_per_prompt, or set "
            "model.gradient_checkpointing or model.lora"
        )
    return [Finding(topic="memory", sentence=sentence, grade=grade, figures=figures)]


def _available() -> int:
    """Bytes of all GPUs, or of the machine."""
    if torch.cuda.is_available():
        return sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
