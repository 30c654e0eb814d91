"""Forward and backward of an update, packed and shared against padded: `python -m benchmarks.update [--sizes tiny]`.

Cases with prompts of 128 and 512 tokens, of mixed lengths, and with responses of one length are compared with
transformers' own padded forward pass at its best micro-batch size; `padded_sorted` is our padded form, which puts like
lengths together. The cases `sharing_RATIO` (prompt length / response length) are compared with our packed form without
sharing, and say what the counts of tokens predict: G (P + R) / (P + G R). Prints JSON.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.grpo_cases import CASES as STEPS
from benchmarks.grpo_cases import SIZES, Case, Sizes, Workload
from benchmarks.grpo_folder import write_folder
from benchmarks.report_form import case as case_of
from benchmarks.report_form import medians, print_report
from benchmarks.sides import Side, Turns, in_turn, serve
from hybrid_rl.quiet import quiet_transformers

_RESPONSE = 128
_RATIOS = (0.25, 1, 4)
_PADDED = ("text_p128", "text_p512", "mixed_prompts", "equal_lengths", "text_p128_bfloat16")
CASES: dict[str, Case] = {name: STEPS[name] for name in _PADDED} | {
    f"sharing_{ratio:g}": replace(
        STEPS["text_p128"],
        name=f"sharing_{ratio:g}",
        prompt_lengths=(round(ratio * _RESPONSE),),
        long=(_RESPONSE, _RESPONSE),
        short=(_RESPONSE, _RESPONSE),
    )
    for ratio in _RATIOS
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print; or be one of the sides."""
    options = _parser().parse_args(arguments)
    if options.side:
        _be(options)
        return
    quiet_transformers()  # standard output is JSON alone
    found = [compare(CASES[name], options) for name in options.case]
    print_report(found, sizes=asdict(SIZES[options.sizes]), threads=options.threads)


def compare(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """All sides of a case."""
    work = Workload.of(case, SIZES[options.sizes])
    sharing = case.name.startswith("sharing")
    names = ["packed", "unshared"] if sharing else ["packed", "padded", "sorted"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "policy")
        write_folder(folder, work.sizes, images=False)
        sides = [_start(name, case, folder, options) for name in names]
        samples = in_turn(sides, options.runs)
        facts = {side.name: side.facts for side in sides}
        for side in sides:
            side.close()
    ours, peer = samples["packed"], samples[names[1]]
    norms = [medians(runs)["gradient_norm"] for runs in (ours, peer)]
    more: dict[str, Any] = {"gradient_norms_differ_by": abs(norms[0] - norms[1]) / norms[1]}
    if sharing:
        more["predicted_ratio"] = predicted(work, work.sizes)
    else:
        more["padded_sorted"] = medians(samples["sorted"])
    return case_of(case.name, ours, peer, settings=asdict(case), sides=facts, peer_is=names[1], **more)


def predicted(work: Workload, sizes: Sizes) -> float:
    """Tokens without sharing / tokens with it."""
    prompts = sum(len(text.split()) for text in work.texts)
    return (sizes.group * prompts + work.response_tokens) / (prompts + work.response_tokens)


def _start(side: str, case: Case, folder: Path, options: argparse.Namespace) -> Side:
    words = ["benchmarks.update", "--side", side, "--case", case.name, "--sizes", options.sizes]
    words += ["--threads", str(options.threads), "--folder", str(folder), "--kernels", options.kernels]
    threads: dict[str, str | None] = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    return Side(side, words, threads)


def _be(options: argparse.Namespace) -> None:
    turns = Turns()
    quiet_transformers()
    from benchmarks.update_sides import UpdateSide

    work = Workload.of(CASES[options.case[0]], SIZES[options.sizes])
    fast = options.kernels == "chosen"
    side = UpdateSide(work, options.folder, options.threads, options.side, fast=fast)
    serve(side.run, turns, {"micro_batch": side.micro_batch, "fast_matmul": side.kernels.fast_matmul if fast else None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.update", description=__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sizes", choices=SIZES, default="30m")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each side, after one that is not")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each side")
    parser.add_argument(
        "--kernels", choices=("chosen", "plain"), default="chosen", help="float32 products of all sides: see machine"
    )
    parser.add_argument("--side", choices=("packed", "unshared", "sorted", "padded"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
