"""One of two processes that hold a model in halves; `test_model_parallel.py` starts them.

    python parallel_worker.py (zero3 | fsdp2) CHECKPOINT OUT

Rank 0 trains on text alone and rank 1 on media, so that each needs what the other does not use. Rank 0 writes the
gathered gradients and weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import tiny_checkpoints as tiny
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from model import MiniCPMVForConditionalGeneration


def sample(rank: int) -> dict[str, Any]:
    """Text for rank 0, a picture and a video for rank 1, with their labels."""
    inputs = tiny.media() if rank else {"input_ids": torch.arange(5, 21)[None]}
    return {**inputs, "labels": inputs["input_ids"]}


def zero3(checkpoint: Path, rank: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """Model, gradients and weights under DeepSpeed's ZeRO-3."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled for a minute
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    keep = HfDeepSpeedConfig(settings)  # while it lives, from_pretrained hands out only a rank's part of each weight
    model = MiniCPMVForConditionalGeneration.from_pretrained(checkpoint).train()
    assert all(parameter.numel() == 0 for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    engine.backward(engine(**sample(rank)).loss)
    gradients = {name: safe_get_full_grad(p) for name, p in model.named_parameters()}
    weights = {}
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            weights[name] = parameter.detach().clone()
    del keep
    return model, gradients, weights


def fsdp2(checkpoint: Path, rank: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """Model, gradients and weights under `fully_shard`, by the modules that the model says must stay whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    model: Any = MiniCPMVForConditionalGeneration.from_pretrained(checkpoint).train()
    for module in list(model.modules()):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model(**sample(rank)).loss.backward()
    gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    return model, gradients, {name: p.full_tensor() for name, p in model.named_parameters()}


def main(mode: str, checkpoint: Path, out: Path) -> None:
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    model, gradients, weights = {"zero3": zero3, "fsdp2": fsdp2}[mode](checkpoint, rank)
    if rank == 0:
        out.mkdir()
        save_file({name: g.contiguous().float() for name, g in gradients.items()}, out / "gradients.safetensors")
        model.save_pretrained(out / "model", state_dict={name: w.contiguous() for name, w in weights.items()})
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
