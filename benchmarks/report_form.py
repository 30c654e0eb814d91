"""The one form of every benchmark's report: what was measured on what machine, ours beside the peer, as JSON.

    {"machine": {...}, "cases": [{"name", "ours": {"wall", "peak_memory", ...}, "peer": {the same}, "ratio": {...},
                                  "runs", "samples", ...}]}

`ours` and `peer` hold medians; `wall` and every name in `_s` is in seconds, `peak_memory` and every name in `_gib` in
GiB. A ratio says how much better ours is: peer / ours of costs, ours / peer of rates, whose names end in `_per_s` or
begin with `share_of_`. A case without a peer has `peer: null` and no ratios.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.sides import OTHERS
from benchmarks.timing import machine

Figures = Mapping[str, float]
"""Name -> value of one run."""


def case(name: str, ours: Sequence[Figures], peer: Sequence[Figures] | None = None, /, **facts: Any) -> dict[str, Any]:
    """A case from the figures of its counted runs.

    Args:
        facts: what else there is to say of the case: sizes, settings, differences of outputs.
    """
    found: dict[str, Any] = {"name": name, "ours": medians(ours)}
    found["peer"] = medians(peer) if peer is not None else None
    found["ratio"] = ratios(found["ours"], found["peer"]) if peer is not None else {}
    found["runs"] = len(ours)
    found["samples"] = {"ours": [dict(run) for run in ours], "peer": [dict(run) for run in peer or ()]}
    return found | facts


def medians(runs: Sequence[Figures]) -> dict[str, float]:
    """Of each figure that every run has."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0] if all(name in run for run in runs)}


def ratios(ours: Figures, peer: Figures) -> dict[str, float]:
    """How many times better ours is, in every figure that both have and that is 0 on neither side."""
    found = {}
    for name in (ours.keys() & peer.keys()) - {OTHERS}:
        better, worse = (peer, ours) if not is_rate(name) else (ours, peer)
        if worse[name] and better[name]:
            found[name] = better[name] / worse[name]
    return {name: found[name] for name in ours if name in found}


def is_rate(name: str) -> bool:
    """More is better."""
    return name.endswith("_per_s") or name.startswith("share_of_")


def report(cases: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """The whole report; `more` goes beside machine and cases."""
    return {"machine": machine(), "cases": list(cases), **more}


def print_report(cases: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Write the report to standard output, where nothing else may stand."""
    print(json.dumps(_finite(report(cases, **more)), indent=1), flush=True)


def _finite(value: Any) -> Any:
    """JSON knows no infinities: what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
