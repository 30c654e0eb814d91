"""A whole GRPO step beside TRL's: `python -m benchmarks.grpo_step [--all] [--case NAME ...] [--runs N]`.

Same random weights, prompts, forced lengths and threads on both sides; generate, score, advantages, update and, for us,
weight sync. Each side is a process that lives through its runs, and they take turns. Before the counted runs the peer
takes a step at each micro-batch size of `--micro-batches`; it goes on with the fastest. Ours is the product's
`RolloutWorker` and `ActorWorker` in one process, with its defaults.

Without arguments: `text_p128` and `text_p512`, half an hour on two cores. Prints JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.grpo_cases import CASES, DEFAULT, SIZES, Case, Workload, peer_environment
from benchmarks.grpo_folder import write_folder
from benchmarks.report_form import case as case_of
from benchmarks.report_form import print_report
from benchmarks.sides import Side, Turns, in_turn, serve


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options; measure and print, or be one of the sides."""
    options = _options().parse_args(arguments)
    if options.side:
        _be(options)
        return
    names = options.case or (list(CASES) if options.all else list(DEFAULT))
    deadline = time.monotonic() + 60 * options.minutes
    cases = []
    for place, name in enumerate(names):
        # What is left is shared among the cases that are left.
        share = (deadline - time.monotonic()) / (len(names) - place)
        cases.append(compare(CASES[name], options, time.monotonic() + share))
        print(f"{name}: {cases[-1]['ratio']}", file=sys.stderr, flush=True)
    print_report(cases, peers=_versions(), sizes=asdict(SIZES[options.sizes]), threads=options.threads)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grpo_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="every case, hours; give --minutes as well")
    parser.add_argument("--case", nargs="+", choices=list(CASES), help="these cases")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each side, as far as the time allows")
    parser.add_argument("--minutes", type=float, default=35.0, help="time for all cases; each gets one run at least")
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[8, 16, 32], help="sizes the peer may choose")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side")
    parser.add_argument("--sizes", choices=list(SIZES), default="30m", help="tiny: only to see that it runs")
    parser.add_argument("--side", choices=("ours", "ray", "in_process", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def compare(case: Case, options: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """Both sides of a case."""
    work = Workload.of(case, SIZES[options.sizes])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "policy")
        write_folder(folder, work.sizes, images=case.tower is not None)
        tried: dict[str, float] = {}
        if case.peer == "trl":
            peer, tried = _fastest(case, folder, options)
            ours = _start("ours", case, folder, options)
        else:
            ours, peer = (_start(side, case, folder, options) for side in ("ray", "in_process"))
        # The peer has taken its first step while it was chosen, so that a second one does it no harm.
        samples = in_turn([ours, peer], options.runs, deadline=deadline)
        facts = {"ours": ours.facts, "peer": peer.facts | {"tried_wall_s": tried}}
        for side in (ours, peer):
            side.close()
    lengths = sorted(length for group in work.lengths for length in group)
    return case_of(
        case.name,
        samples[ours.name],
        samples[peer.name],
        settings=asdict(case),
        sides=facts,
        response_tokens=work.response_tokens,
        response_lengths={"least": lengths[0], "median": lengths[len(lengths) // 2], "largest": lengths[-1]},
    )


def _fastest(case: Case, folder: Path, options: argparse.Namespace) -> tuple[Side, dict[str, float]]:
    """The peer at its best micro-batch size, and the seconds of a step at each."""
    rows = SIZES[options.sizes].prompts * SIZES[options.sizes].group
    tried: dict[str, float] = {}
    best: Side | None = None
    for size in options.micro_batches:
        if rows % size:
            continue
        side = _start("trl", case, folder, options, micro_batch=size)
        tried[str(size)] = side.run()["wall"]
        if best is None or tried[str(size)] <= min(tried.values()):
            best, side = side, best or side
        if side is not best:
            side.close()
    if best is None:
        raise SystemExit(f"none of --micro-batches divides the {rows} responses of a step; give one that does")
    return best, tried


def _start(side: str, case: Case, folder: Path, options: argparse.Namespace, *, micro_batch: int | None = None) -> Side:
    words = ["benchmarks.grpo_step", "--side", side, "--case", case.name, "--sizes", options.sizes]
    words += ["--threads", str(options.threads), "--folder", str(folder)]
    words += ["--micro-batches", str(micro_batch)] if micro_batch else []
    threads: dict[str, str | None] = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    extra = peer_environment(case) if side == "trl" else {}
    return Side(side, words, {**threads, **extra})


def _be(options: argparse.Namespace) -> None:
    """One of the sides, in its own process."""
    turns = Turns()
    work = Workload.of(CASES[options.case[0]], SIZES[options.sizes])
    if options.side == "trl":
        _be_trl(options, work, turns)
        return
    from hybrid_rl.quiet import quiet_environment

    quiet_environment()
    from benchmarks.grpo_ours import OurStep, kernel_facts, our_cluster

    with our_cluster(ray=options.side == "ray") as cluster:
        step = OurStep(work, options.folder, options.threads, cluster)
        serve(step.run, turns, {"kernels": kernel_facts(step)})


def _be_trl(options: argparse.Namespace, work: Workload, turns: Turns) -> None:
    import torch

    from benchmarks.grpo_trl import EndOfTurns, TrlStep

    torch.set_num_threads(options.threads)
    if work.case.peer_tuned:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    micro_batch = options.micro_batches[0]
    step = TrlStep(work, options.folder, micro_batch, turns)
    turns.ready({"micro_batch": micro_batch, "tuned": work.case.peer_tuned})
    try:
        step.train()
    except EndOfTurns:
        return


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "accelerate")}


if __name__ == "__main__":
    main()
