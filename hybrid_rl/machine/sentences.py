"""What was found of a machine, for people."""

from __future__ import annotations

from hybrid_rl.machine.kernels import KernelChoice


def describe_kernels(kernels: KernelChoice) -> list[tuple[str, str]]:
    """The choice as (topic, sentence) pairs, as a run's plan has them."""
    if not kernels.rates:
        return [("kernels", "torch's own")]
    found = [("kernels", "; ".join((_update(kernels), _sampling(kernels), *_bfloat16(kernels), _copies(kernels))))]
    return found + [("kernels", sentence) for sentence in kernels.refused]


def _update(kernels: KernelChoice) -> str:
    plain = kernels.rate("plain", "float32", "large")
    if kernels.fast_matmul is None:
        return f"updates with torch's own products ({_rate(plain)} in float32)"
    fast = kernels.rate("fast_matmul", "float32", "large")
    return f"updates through oneDNN ({_rate(fast)} against {_rate(plain)} in float32)"


def _sampling(kernels: KernelChoice) -> str:
    if not kernels.prepack_linears:
        return "sampling with torch's own"
    packed, plain = (kernels.rate(kernel, "float32", "decode") for kernel in ("prepacked", "plain"))
    return f"sampling with prepacked weights ({_rate(packed)} against {_rate(plain)} on 32 rows)"


def _bfloat16(kernels: KernelChoice) -> list[str]:
    if kernels.bfloat16_gain <= 1:
        return []
    return [f"bfloat16 products are {kernels.bfloat16_gain:.1f} times as fast (model.dtype)"]


def _copies(kernels: KernelChoice) -> str:
    return f"copies {kernels.copy_bytes_per_s / 1e9:.0f} GB/s"


def _rate(flops_per_s: float) -> str:
    return f"{flops_per_s / 1e12:.1f} TFLOP/s" if flops_per_s >= 1e12 else f"{flops_per_s / 1e9:.0f} GFLOP/s"
