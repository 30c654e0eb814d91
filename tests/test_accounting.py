"""Where the time of a step goes: figures by hand, and what a run writes down of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from hybrid_rl.config import Config
from hybrid_rl.insight.accounting import PhaseWork, phase_metrics, sampling_work
from hybrid_rl.insight.names import metric_names
from hybrid_rl.insight.phase_table import machine_sentences, phase_table
from hybrid_rl.insight.recorded import read_run
from hybrid_rl.insight.report import write_report
from hybrid_rl.machine.kernels import KernelChoice, Rate
from hybrid_rl.machine.yardstick import Yardstick, linear_weights
from hybrid_rl.policy import Policy
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.train import run

MACHINE = Yardstick(
    kernels=KernelChoice(
        device="cpu",
        rates=(Rate(kernel="plain", dtype="float32", shape="large", flops_per_s=600.0),),
        copy_bytes_per_s=1000.0,
    ),
    linear_weights=10,
)


def test_shares_by_hand() -> None:
    """10 weights, 20 tokens in 4 s: 400 operations forward, 1,200 with gradients, of 2,400 that were possible."""
    forward, trained = PhaseWork(tokens=20, padded_tokens=5), PhaseWork(tokens=20, passes=3)
    found = phase_metrics({"reference": forward, "update": trained}, {"reference": 4.0, "update": 4.0}, MACHINE)
    assert found == {
        "padding/reference": 0.2,
        "forwarded_per_s/reference": 5.0,
        "peak_share/reference": pytest.approx(400 / 2400),
        "padding/update": 0.0,
        "forwarded_per_s/update": 5.0,
        "peak_share/update": pytest.approx(1200 / 2400),
    }


def test_sampling_reads_all_weights_at_every_step() -> None:
    """5 steps read 10 weights of 4 bytes in 2 s: 100 of 1,000 bytes a second."""
    figures = RolloutFigures(prefill_tokens=6, decode_steps=5, row_steps=14, vision_encodes=6, unique_images=3)
    found = phase_metrics({"generate": sampling_work(figures)}, {"generate": 2.0}, MACHINE)
    assert found["bandwidth_share/generate"] == pytest.approx(0.1)
    assert found["forwarded_per_s/generate"] == 10.0 and found["encodes_per_image/generate"] == 2.0


def test_what_is_not_known_is_left_out() -> None:
    work = {"generate": PhaseWork(tokens=0), "update": PhaseWork(tokens=3)}
    found = phase_metrics(work, {"update": 1.0}, Yardstick())
    assert found == {"padding/update": 0.0, "forwarded_per_s/update": 3.0}


def test_weights_of_the_decoder_s_linear_layers(tiny_policy: Policy) -> None:
    """Not those of the vision tower; a head that is tied to the embeddings counts, for tokens go through it."""
    model = tiny_policy.model
    by_name = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith("llm.")}
    assert linear_weights(model) == sum(layer.weight.numel() for layer in by_name.values())
    assert any("head" in name for name in by_name)


def test_a_run_accounts_for_itself(small_config: Callable[..., Config], tmp_path: Path) -> None:
    config = small_config("machine.kernels=auto", "run.steps=1", "warmup=null", "evaluation.before=false")
    summary = run(config)
    kernels = KernelChoice.from_json(summary["machine"])
    assert kernels.rates and kernels.errors["plain"] < 1e-6
    folder = Path(summary["run_dir"])
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    for phase in ("generate", "update", "reference"):
        assert row[f"forwarded_per_s/{phase}"] > 0
        assert 0 <= row[f"padding/{phase}"] < 1 and row[f"peak_share/{phase}"] > 0
        assert row[f"encodes_per_image/{phase}"] == 1.0
    assert row["bandwidth_share/generate"] > 0
    known = metric_names(config.modes.kinds, config.rewards, ["read", "sum"], config.data.sources)
    assert {name for name in row if name.partition("/")[2] in ("generate", "update", "reference")} <= set(known)
    recorded = read_run(folder)
    assert [line[0] for line in phase_table(recorded)] == ["phase", "generate", "reference", "update"]
    assert kernels.device in machine_sentences(recorded)
    assert "of matrix peak" in write_report(folder).read_text()
