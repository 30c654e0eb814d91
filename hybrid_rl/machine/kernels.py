"""Which kernels the work on weights uses: what the probe of the machine chose, and why.

Two switches of the CPU, each off in `PLAIN`:

- `prepack_linears`: the weights of linear layers are kept reordered for oneDNN while responses are sampled, where rows
  are few and torch's own choice (MKL) runs below the machine's rate. Repacked after every change of the weights.
- `fast_matmul`: inside `matmul()` torch hands float32 products to oneDNN, through a switch that allows bfloat16
  inside. Many processors compute in true float32 all the same; only there is it chosen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Speed of one kernel on one shape.

    Attributes:
        kernel: `plain` (what torch does by itself), `fast_matmul`, `prepacked`.
        dtype: of the operands.
        shape: `large` (as in an update) or `decode` (as in sampling: few rows).
        flops_per_s: two for a multiply-add.
    """

    kernel: str
    dtype: str
    shape: str
    flops_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChoice:
    """What the probe found and chose.

    Attributes:
        device: the processor's or graphics card's name.
        machine: digest of the machine and libraries that it was measured on.
        prepack_linears: keep linear weights prepacked for oneDNN in sampling.
        fast_matmul: value for `torch.backends.mkldnn.matmul.fp32_precision` around updates; None leaves it alone.
        bfloat16_gain: rate of bfloat16 over that of the chosen float32 kernel on the large shape; 0 where not measured.
        rates: what was measured.
        copy_bytes_per_s: bytes copied a second from memory to memory; 0 where not measured.
        errors: by switch, relative error of its products against float64; `plain` is torch's own.
        refused: a sentence for each switch that failed its own check.
        threads: of torch, when it was measured.
        probe_s: seconds that the measurement took; 0 of a choice that was not measured.
    """

    device: str
    machine: str = ""
    prepack_linears: bool = False
    fast_matmul: str | None = None
    bfloat16_gain: float = 0.0
    rates: tuple[Rate, ...] = ()
    copy_bytes_per_s: float = 0.0
    errors: Mapping[str, float] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    threads: int = 0
    probe_s: float = 0.0

    @contextlib.contextmanager
    def matmul(self) -> Iterator[None]:
        """Float32 products inside the block run on the chosen kernel; what was set before comes back."""
        if self.fast_matmul is None:
            yield
            return
        with matmul_precision(self.fast_matmul):
            yield

    def peak_flops_per_s(self, dtype: str = "float32") -> float:
        """The best rate that was measured in a dtype; 0 where none was."""
        return max((rate.flops_per_s for rate in self.rates if rate.dtype == dtype), default=0.0)

    def rate(self, kernel: str, dtype: str, shape: str) -> float:
        """Operations a second of one measurement; 0 where it was not made."""
        found = (r.flops_per_s for r in self.rates if (r.kernel, r.dtype, r.shape) == (kernel, dtype, shape))
        return next(found, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `summary.json` and the cache hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> KernelChoice:
        """The inverse of `to_json`; raises a KeyError or TypeError where the content is of another version."""
        rates = tuple(Rate(**rate) for rate in value["rates"])
        return cls(**{**value, "rates": rates, "refused": tuple(value["refused"])})

    @classmethod
    def recorded(cls, value: Any) -> KernelChoice | None:
        """What a summary holds; None where nothing, or something of another version, was recorded."""
        try:
            return cls.from_json(value)
        except (KeyError, TypeError):
            return None


PLAIN = KernelChoice(device="")
"""What torch does by itself."""


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """oneDNN's setting for float32 matrix products inside the block (`torch.backends.mkldnn.matmul.fp32_precision`)."""
    import torch

    # Made when torch is imported; its type stubs do not know it.
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = precision
    try:
        yield
    finally:
        setting.fp32_precision = before
