"""Measuring the machine: rates of matrix products by kernel and dtype, copy bandwidth, and the error of each switch.

A fraction of a second of work, in rounds over all kernels, so that a slow spell falls on each; the best round counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from hybrid_rl.machine.kernels import KernelChoice, Rate, matmul_precision

FAST = "bf16"
"""The setting that sends float32 products to oneDNN. `ieee` and `tf32` leave them with MKL."""
MAX_ERROR = 2e-6
"""Largest relative error of a product that still counts as float32: rounding gives 2e-7 to 6e-7, bfloat16 2e-3."""
_WORTH_IT = 1.05
"""A switch must win by this factor."""
_SHAPES = {"large": (1024, 1024, 1024), "decode": (32, 512, 1536)}
"""Rows, inputs, outputs of a linear layer."""
_BUDGET_S = 1.0
_ROUNDS = 5
_COPIED_BYTES = 64 * 2**20

Timed = Mapping[tuple[str, str, str], Callable[[], Any]]
"""(kernel, dtype, shape) -> one call of it."""


def probe(device: torch.device, name: str) -> KernelChoice:
    """Measure and choose.

    Args:
        device: where the models live.
        name: of the processor or graphics card, for people.
    """
    start = time.perf_counter()
    with torch.inference_mode():
        found = _gpu(device, name) if device.type == "cuda" else _cpu(name)
    return replace(found, threads=torch.get_num_threads(), probe_s=time.perf_counter() - start)


def choose(name: str, rates: tuple[Rate, ...], errors: Mapping[str, float], copy_bytes_per_s: float) -> KernelChoice:
    """What follows from the measurements: a switch is on where it is exact and wins on the shape it is made for."""
    measured = KernelChoice(device=name, rates=rates, errors=dict(errors), copy_bytes_per_s=copy_bytes_per_s)
    chosen: dict[str, bool] = {}
    refused: list[str] = []
    for switch, kernel, shape in (("fast_matmul", "fast_matmul", "large"), ("prepack_linears", "prepacked", "decode")):
        wins = measured.rate(kernel, "float32", shape) > _WORTH_IT * measured.rate("plain", "float32", shape)
        exact = errors.get(kernel, 0.0) <= MAX_ERROR
        chosen[switch] = wins and exact
        if not exact:
            refused.append(
                f"{switch} is left off: on this machine its products are off by {errors[kernel]:.1g} of their size, "
                f"and float32 allows {MAX_ERROR:.0g}"
            )
    float32 = max(measured.rate(kernel, "float32", "large") for kernel in ("plain", "fast_matmul"))
    bfloat16 = measured.rate("plain", "bfloat16", "large")
    return replace(
        measured,
        prepack_linears=chosen["prepack_linears"],
        fast_matmul=FAST if chosen["fast_matmul"] else None,
        bfloat16_gain=bfloat16 / float32 if float32 else 0.0,
        refused=tuple(refused),
    )


def relative_error(product: Callable[[Tensor, Tensor], Tensor], inner: int = 512) -> float:
    """Error of x @ w.T in float32 against float64, as a share of its size (Frobenius norms)."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, inner, generator=generator) for rows in (96, 256))
    exact = x.double() @ w.double().T
    return float((product(x, w).double() - exact).norm() / exact.norm())


def _cpu(name: str) -> KernelChoice:
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {}
    errors = {"plain": relative_error(linear)}
    has_onednn = torch.backends.mkldnn.is_available()
    has_bfloat16 = has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    for shape, sizes in _SHAPES.items():
        calls |= _products(shape, *sizes, has_onednn=has_onednn, has_bfloat16=has_bfloat16)
    if has_onednn:
        errors |= {"fast_matmul": _fast_error(), "prepacked": relative_error(prepacked_linear)}
    seconds = _best(calls)
    rates = tuple(
        Rate(kernel=kernel, dtype=dtype, shape=shape, flops_per_s=_flops(shape) / seconds[kernel, dtype, shape])
        for kernel, dtype, shape in calls
    )
    return choose(name, rates, errors, _copy_bytes_per_s(torch.device("cpu")))


def _products(
    shape: str, rows: int, inner: int, outputs: int, *, has_onednn: bool, has_bfloat16: bool
) -> dict[tuple[str, str, str], Callable[[], Any]]:
    """The kernels of one shape on the CPU."""
    x, w = torch.randn(rows, inner), torch.randn(outputs, inner)
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {("plain", "float32", shape): lambda: linear(x, w)}
    if has_onednn:
        packed = torch.ops.mkldnn._reorder_linear_weight(w, rows)

        def fast() -> Tensor:
            with matmul_precision(FAST):
                return linear(x, w)

        calls["fast_matmul", "float32", shape] = fast
        calls["prepacked", "float32", shape] = lambda: _pointwise(x, packed)
    if has_bfloat16:  # without its instructions bfloat16 products are a slow loop
        xb, wb = x.bfloat16(), w.bfloat16()
        calls["plain", "bfloat16", shape] = lambda: linear(xb, wb)
    return calls


def prepacked_linear(x: Tensor, w: Tensor) -> Tensor:
    """x @ w.T through oneDNN with the weight reordered first."""
    return _pointwise(x, torch.ops.mkldnn._reorder_linear_weight(w, x.shape[0]))


def _pointwise(x: Tensor, packed: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return found


def _fast_error() -> float:
    """The largest error of the three products of a linear layer: forward, to the input, to the weight."""
    products: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        linear,
        lambda x, w: x @ w.T.contiguous(),
        lambda x, w: x.T.contiguous().T @ w.T,
    )
    with matmul_precision(FAST):
        return max(relative_error(product) for product in products)


def _gpu(device: torch.device, name: str) -> KernelChoice:
    """Rates of the graphics card; the switches are the CPU's and stay off."""
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4096, 4096, device=device, dtype=dtype)
        calls["plain", str(dtype).removeprefix("torch."), "large"] = _finished(partial(linear, x, x), device)
    seconds = _best(calls)
    rates = tuple(
        Rate(kernel=kernel, dtype=dtype, shape=shape, flops_per_s=2.0 * 4096**3 / seconds[kernel, dtype, shape])
        for kernel, dtype, shape in calls
    )
    found = KernelChoice(device=name, rates=rates, copy_bytes_per_s=_copy_bytes_per_s(device))
    gain = found.rate("plain", "bfloat16", "large") / found.rate("plain", "float32", "large")
    return replace(found, bfloat16_gain=gain)


def _finished(call: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The call, waited for where the device works on its own."""
    if device.type != "cuda":
        return call

    def run() -> None:
        call()
        torch.cuda.synchronize(device)

    return run


def _best(calls: Timed) -> dict[tuple[str, str, str], float]:
    """Seconds of the fastest of some rounds; the first one, which loads kernels, does not count."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    end = time.perf_counter() + _BUDGET_S
    for _ in range(_ROUNDS):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            best[key] = min(best[key], time.perf_counter() - start)
        if time.perf_counter() > end:  # a busy machine: what there is must do
            break
    return best


def _copy_bytes_per_s(device: torch.device) -> float:
    source = torch.zeros(_COPIED_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    seconds = _best({("copy", "", ""): _finished(lambda: target.copy_(source), device)})
    return _COPIED_BYTES / seconds["copy", "", ""]


def _flops(shape: str) -> float:
    rows, inner, outputs = _SHAPES[shape]
    return 2.0 * rows * inner * outputs
