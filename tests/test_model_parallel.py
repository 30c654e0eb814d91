"""The model in halves on two processes equals the whole one: ZeRO-3 and FSDP2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_checkpoints as tiny
import torch
from parallel_worker import sample
from safetensors.torch import load_file

from model import MiniCPMVForConditionalGeneration

REPOSITORY = Path(__file__).resolve().parent.parent


def run_two(mode: str, checkpoint: Path, out: Path) -> None:
    """Both ranks of `parallel_worker.py`; fails with what they said if one does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("parallel_worker.py")), mode, str(checkpoint), str(out)]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    shared |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=200)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(text[-9000:] for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["zero3", "fsdp2"])
def test_two_halves_equal_the_whole(tmp_path: Path, mode: str) -> None:
    """Gradients are the mean over both ranks, one of which has no picture; what is saved loads as the whole model."""
    tensors = tiny.values(tiny.all_shapes(4.5))
    folder = tiny.write(tmp_path / "given", tiny.config_of(4.5), tensors)
    run_two(mode, folder, tmp_path / "out")
    model = MiniCPMVForConditionalGeneration.from_pretrained(folder).train()
    for rank in range(2):
        (model(**sample(rank)).loss / 2).backward()
    gradients = load_file(tmp_path / "out" / "gradients.safetensors")
    assert gradients.keys() == tensors.keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
    assert gradients["vpm.embeddings.patch_embedding.weight"].abs().max() > 0
    saved = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert saved.keys() == tensors.keys() and all(torch.equal(saved[name], tensors[name]) for name in tensors)
    again = MiniCPMVForConditionalGeneration.from_pretrained(tmp_path / "out" / "model")
    with torch.no_grad():
        assert torch.equal(again(**tiny.media()).logits, model.eval()(**tiny.media()).logits)
