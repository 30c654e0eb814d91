"""The probe of the machine: it measures, chooses what is exact and faster, refuses what is not, and remembers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_run import interrupt_after
from torch.nn.functional import linear

import hybrid_rl
from hybrid_rl.config import Config
from hybrid_rl.errors import Interrupted
from hybrid_rl.insight.recorder import Recorder
from hybrid_rl.machine import cache
from hybrid_rl.machine.kernels import PLAIN, KernelChoice, Rate
from hybrid_rl.machine.probe import FAST, MAX_ERROR, choose, prepacked_linear, probe, relative_error
from hybrid_rl.machine.sentences import describe_kernels
from hybrid_rl.train import resume
from hybrid_rl.workers import setup
from hybrid_rl.workers.rollout import engine_arguments

CPU = torch.device("cpu")
EXACT = {"plain": 2e-7, "fast_matmul": 5e-7, "prepacked": 5e-7}


def rates(fast: float = 400.0, prepacked: float = 300.0, bfloat16: float = 900.0) -> tuple[Rate, ...]:
    """A machine on which torch's own float32 kernel reaches 200 on large and 150 on small shapes."""
    table = [
        ("plain", "float32", "large", 200.0),
        ("fast_matmul", "float32", "large", fast),
        ("plain", "bfloat16", "large", bfloat16),
        ("plain", "float32", "decode", 150.0),
        ("prepacked", "float32", "decode", prepacked),
    ]
    return tuple(Rate(kernel=k, dtype=d, shape=s, flops_per_s=rate) for k, d, s, rate in table)


def test_faster_and_exact_kernels_are_chosen() -> None:
    found = choose("cpu", rates(), EXACT, 4e10)
    assert found.fast_matmul == FAST and found.prepack_linears and not found.refused
    assert found.bfloat16_gain == pytest.approx(900 / 400)
    assert found.peak_flops_per_s() == 400 and found.peak_flops_per_s("bfloat16") == 900


def test_a_kernel_that_does_not_win_is_left_off_without_a_word() -> None:
    found = choose("cpu", rates(fast=201.0, prepacked=100.0), EXACT, 4e10)
    assert found.fast_matmul is None and not found.prepack_linears and not found.refused


def test_a_switch_that_really_computes_in_bfloat16_is_refused_in_one_sentence() -> None:
    """The case of processors whose matrix units take bfloat16: fast, and a thousand times less exact."""
    error = relative_error(lambda x, w: linear(x.bfloat16(), w.bfloat16()).float())
    assert error > 100 * MAX_ERROR
    found = choose("cpu", rates(), {**EXACT, "fast_matmul": error}, 4e10)
    assert found.fast_matmul is None and found.prepack_linears
    assert len(found.refused) == 1 and found.refused[0].startswith("fast_matmul is left off")


def test_plain_products_pass_the_check() -> None:
    assert relative_error(linear) < MAX_ERROR


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")
def test_prepacked_products_are_the_same_products() -> None:
    x, w = torch.randn(5, 24), torch.randn(7, 24)
    torch.testing.assert_close(prepacked_linear(x, w), linear(x, w))


def test_the_probe_measures_this_machine_within_its_time() -> None:
    start = time.process_time()
    found = probe(CPU, "this one")
    assert time.process_time() - start < 8  # of processor time: 2 s on two cores, and a busy machine
    assert found.rate("plain", "float32", "large") > 0 and found.copy_bytes_per_s > 0
    assert found.errors["plain"] < MAX_ERROR and found.threads == torch.get_num_threads()
    assert KernelChoice.from_json(found.to_json()) == found


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counting(device: torch.device, name: str) -> KernelChoice:
        calls.append(name)
        return KernelChoice(device=name, prepack_linears=True)

    monkeypatch.setattr(cache, "probe", counting)
    monkeypatch.setattr(cache, "_busy", lambda: False)
    monkeypatch.setattr(cache.torch, "__version__", "measured-once")
    first, second = cache.machine_kernels(CPU), cache.machine_kernels(CPU)
    assert first == second and first.prepack_linears and len(calls) == 1
    monkeypatch.setattr(cache.torch, "__version__", "another")  # new libraries are measured anew
    assert cache.machine_kernels(CPU) != first and len(calls) == 2
    for path in cache._cache_folder().glob("*.json"):
        path.write_text("{half a file")
    cache.machine_kernels(CPU)
    assert len(calls) == 3


def test_figures_of_a_busy_machine_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "probe", lambda device, name: KernelChoice(device=name))
    monkeypatch.setattr(cache, "_busy", lambda: True)
    monkeypatch.setattr(cache.torch, "__version__", "busy")
    found = cache.machine_kernels(CPU)
    assert not (cache._cache_folder() / f"{found.machine}.json").exists()


def test_the_setting_comes_back_even_after_an_error() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), KernelChoice(device="", fast_matmul=FAST).matmul():
        assert torch.backends.mkldnn.matmul.fp32_precision == FAST
        raise ZeroDivisionError
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    with PLAIN.matmul():
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_the_plan_says_what_was_chosen_and_what_was_refused() -> None:
    errors = {**EXACT, "prepacked": 3e-3}
    measured = tuple(replace(rate, flops_per_s=rate.flops_per_s * 1e9) for rate in rates())
    (topic, chosen), (_, refused) = describe_kernels(choose("cpu", measured, errors, 4.2e10))
    assert topic == "kernels"
    assert "updates through oneDNN (400 GFLOP/s against 200 GFLOP/s in float32)" in chosen
    assert "sampling with torch's own" in chosen and "copies 42 GB/s" in chosen and "2.2 times" in chosen
    assert refused.startswith("prepack_linears is left off") and "0.003" in refused
    assert describe_kernels(PLAIN) == [("kernels", "torch's own")]


def test_a_worker_takes_the_driver_s_figures_only_on_a_machine_like_its_own(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = KernelChoice(device="own", machine="own", prepack_linears=True)
    monkeypatch.setattr(setup, "machine_kernels", lambda device: own)
    config = small_config("machine.kernels=auto")
    here = KernelChoice(device="driver", machine=cache.fingerprint(CPU))
    assert setup.kernels_here(config, here) is here
    assert setup.kernels_here(config, replace(here, machine="elsewhere")) is own
    assert setup.kernels_here(small_config("machine.kernels=plain"), here) is PLAIN


def test_a_resumed_run_keeps_the_kernels_that_it_began_with(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A new measurement might choose others, whose last bits differ: the run would not be the uninterrupted one."""
    config = small_config("machine.kernels=auto", "run.steps=2", "warmup=null", "evaluation.before=false")
    first = KernelChoice(device="here", prepack_linears=True)
    with monkeypatch.context() as patch:
        patch.setattr(setup, "machine_kernels", lambda device: replace(first, machine=cache.fingerprint(device)))
        interrupt_after(patch, Recorder, "step", calls=1)
        with pytest.raises(Interrupted):
            hybrid_rl.run(config)
    monkeypatch.setattr(setup, "machine_kernels", lambda device: PLAIN)
    assert resume(tmp_path / "run")["machine"]["prepack_linears"]


def test_an_engine_hears_of_prepacking_only_if_it_asks(small_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text(
        "class Asks:\n    def __init__(self, policy, prepack_linears): ...\n"
        "class Other:\n    def __init__(self, policy, rows=3): ...\n"
    )
    engines = tmp_path / "engines.py"
    found = KernelChoice(device="", prepack_linears=True)
    asks = small_config(f"rollout.engine={engines}:Asks")
    assert engine_arguments(asks, found) == {"prepack_linears": True}
    assert engine_arguments(asks, PLAIN) == {"prepack_linears": False}
    told = small_config(f"rollout.engine={engines}:Asks", "rollout.args={prepack_linears: false}")
    assert engine_arguments(told, found) == {"prepack_linears": False}
    other = small_config(f"rollout.engine={engines}:Other", "rollout.args={rows: 2}")
    assert engine_arguments(other, found) == {"rows": 2}
