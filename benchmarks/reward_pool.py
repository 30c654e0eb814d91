"""Throughput of the killable scorers, what a hang costs, and how long a killed scorer is missed.

    python -m benchmarks.reward_pool [--cases 5000] [--processes 2]

The reward does next to nothing, so the figures are the pool's own cost. There is no peer. Prints JSON.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report_form import case, print_report
from benchmarks.sides import peak_gib

_REWARD = """
import os
def quick(text):
    if text == "hang": return float(9 ** 9 ** 9 > 0)
    if text == "pid": return float(os.getpid())
    return float(len(text))
"""
_LIMIT_S = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "quick.py").write_text(_REWARD)
        print_report([_measure(folder, chosen.cases, chosen.processes)])


def _measure(folder: str, num_cases: int, processes: int) -> dict[str, Any]:
    # By name: benchmarks stand beside hybrid_rl, which they measure as a user would.
    pools: Any = importlib.import_module("hybrid_rl.scorer_pool.pool")
    spec = importlib.import_module("hybrid_rl.scorer_pool.loading").RewardSpec("quick", "quick.py:quick", {}, (folder,))
    pool = pools.ScorerPool({"quick": spec}, size=processes)

    def run(texts: Sequence[str]) -> tuple[float, list[Any]]:
        cases = [pools.Case("quick", {"text": text}, _LIMIT_S) for text in texts]
        began = time.perf_counter()
        verdicts = pool.run(cases)
        return time.perf_counter() - began, verdicts

    start_s, _ = run(["x"])
    wall_s, verdicts = run(["x" * (i % 200) for i in range(num_cases)])
    wrong = sum(verdict.value != i % 200 for i, verdict in enumerate(verdicts))
    trips_s = [run(["x"])[0] for _ in range(200)]
    megabyte_s = [run(["x" * 1_000_000])[0] for _ in range(20)]
    hang_s, with_hang = run(["hang", *("x" * (i % 200) for i in range(num_cases))])
    killed_s = []
    for _ in range(10):
        os.kill(int(run(["pid"])[1][0].value), signal.SIGKILL)
        killed_s.append(run(["x"])[0])
    pool.close()
    ours = {
        "wall": wall_s,
        "cases_per_s": num_cases / wall_s,
        "start_s": start_s,
        "round_trip_s": statistics.median(trips_s),
        "one_megabyte_s": statistics.median(megabyte_s),
        "with_one_hang_s": hang_s,
        "after_a_kill_s": statistics.median(killed_s),
        "peak_memory": peak_gib(),
    }
    return case(
        "reward_pool",
        [ours],
        processes=processes,
        cases=num_cases,
        wrong=wrong,
        longest={"round_trip_s": max(trips_s), "after_a_kill_s": max(killed_s)},
        with_one_hang={
            "limit_s": _LIMIT_S,
            "others_wrong": sum(verdict.value != i % 200 for i, verdict in enumerate(with_hang[1:])),
        },
        replaced=pool.replaced,
    )


if __name__ == "__main__":
    main()
