"""Run every case of a set of golden numbers through the public classes of `model`.

    python tests/golden_check.py SET_DIR [--json]

The set's own index and config say what it holds. Exit status 0 if everything was compared and within tolerance, 1 if
not, 2 if the directory is no golden set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

# Nothing here may ask the network, and standard error is for what is wrong.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from golden.full_model import check_scenario, check_video_first
from golden.golden_set import GoldenSet
from golden.index import check_config, check_shapes, check_weights
from golden.ledger import BadSet, Ledger
from golden.pictures import check_pixels, check_slicing, check_sweep
from golden.prompts import check_prompts
from golden.video import check_video_sampling
from golden.vision import check_buckets, check_resampler, check_vision_tower

CHECKS: dict[str, Callable[[GoldenSet, Ledger, str], None]] = {
    "model.safetensors": check_weights,
    "vision_tower.safetensors": check_vision_tower,
    "resampler.safetensors": check_resampler,
    "pixels.safetensors": check_pixels,
    "slicing.json": check_slicing,
    "slicing_sweep.safetensors": check_sweep,
    "processor.json": check_prompts,
    "video_sampling.json": check_video_sampling,
}
"""By file name; files with a `scenario` in the index are whole-model scenarios, whatever they are called."""

READ_WITH = {"processor.safetensors": "processor.json"}
"""Files that hold the tensors of another one."""

VIDEO_LAST, VIDEO_FIRST = "batch_video_last", "upstream_video_first_in_batch"
"""A scenario, and the case of the index that is its samples in reverse order."""


def check_set(root: Path, only: Collection[str] | None = None) -> Ledger:
    """Compare all of a set, or the named files of it.

    Raises:
        BadSet: `root` is no golden set.
    """
    golden, ledger = GoldenSet(root), Ledger()
    wanted = {READ_WITH.get(name, name) for name in only or ()}
    check_config(golden, ledger)
    if only is None or golden.buckets_path.name in wanted:
        with ledger.reading(golden.buckets_path.name):
            check_buckets(golden, ledger)
    known = {"index.json", "config.json"}
    for file, entry in golden.index["files"].items():
        known.add(file)
        if only is not None and file not in wanted:
            continue
        with ledger.reading(file):
            if "scenario" in entry:
                check_scenario(golden, ledger, file)
                if entry["scenario"]["name"] == VIDEO_LAST and VIDEO_FIRST in golden.index:
                    check_video_first(golden, ledger, file)
                    known.add(VIDEO_FIRST)
            elif file in CHECKS:
                CHECKS[file](golden, ledger, file)
            elif file not in READ_WITH:
                ledger.skip(file, "all", "no check knows this file")
    if VIDEO_FIRST in golden.index and VIDEO_FIRST not in known and only is None:
        ledger.skip("index.json", VIDEO_FIRST, f"there is no scenario {VIDEO_LAST} to reverse")
    for path in sorted(root.iterdir()) if only is None else ():
        if path.name not in known:
            ledger.skip(path.name, "all", "the index does not name this file")
    check_shapes(golden, ledger)
    return ledger


def table(report: dict[str, Any]) -> str:
    """The worst comparison of every file and quantity, all failures, and what was not run."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for case in report["cases"]:
        quantity = case["quantity"].partition(" of ")[0]
        key, size = (case["file"], quantity), _size(case)
        if key not in worst or size > _size(worst[key]):
            worst[key] = case
    lines = [f"{'file':<38} {'quantity':<30} {'max error':>10} {'tolerance':>10}"]
    for (file, quantity), case in worst.items():
        lines.append(f"{file:<38} {quantity[:30]:<30} {_number(case['max_error']):>10} {case['tolerance']:>10.2g}")
    failed = [case for case in report["cases"] if not case["ok"]]
    lines += [f"FAILED  {c['file']}  {c['case']}  {c['quantity']}  {_number(c['max_error'])}" for c in failed]
    lines += [f"NOT RUN {case['file']}  {case['case']}  {case['why']}" for case in report["not_run"]]
    summary = f"{len(report['cases'])} comparisons, {len(failed)} failed, {len(report['not_run'])} not run"
    return "\n".join([*lines, summary])


def _size(case: dict[str, Any]) -> float:
    return float("inf") if case["max_error"] is None else float(case["max_error"])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2g}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("set_dir", type=Path, help="directory with index.json")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(arguments)
    try:
        ledger = check_set(options.set_dir)
    except BadSet as error:
        print(error, file=sys.stderr)
        return 2
    report = ledger.report()
    print(json.dumps(report) if options.json else table(report))
    return 0 if ledger.ok else 1


if __name__ == "__main__":
    sys.exit(main())
