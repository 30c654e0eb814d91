"""`machine`: how a run makes use of the machine that it is on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hybrid_rl.config.section import Section


class MachineConfig(Section):
    """How a run makes use of the machine that it is on."""

    kernels: Literal["auto", "plain"] = "auto"
    """`auto`: the machine is measured in a second or less, once for its hardware and libraries, and the fastest exact
    kernels are used (docs/performance.md). `plain`: what torch does by itself."""
    image_cache_mib: int = Field(default=256, ge=0)
    """Decoded images and frames, and their pixels as the model takes them, that each process keeps, in MiB. 0: none."""
