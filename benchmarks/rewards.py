"""Graders of mathematics side by side on the same cases: `python -m benchmarks.rewards FILE...`.

math-verify (gold and bare answers boxed, box before anything else), TRL's `accuracy_reward` (gold in dollars), verl's
`math_verify` and ours. Each grader runs all cases in one process of its own, called directly, and reports case by case:
where one case takes longer than `--limit`, the process is killed, the case is a hang and counts as no credit, and the
rest goes on in a new process. Times are of the call alone, after one call that warms up; a hang counts its limit.
A case is right where full marks are given exactly if they are expected.

Prints JSON with a case for every peer, `wall` being the median of a call, and on standard error a table.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing as mp
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Grade = Callable[[Case], bool]
_METRICS = ("math", "math_boxed", "math_final")


def math_verify_boxed() -> Grade:
    """math-verify as its authors use it: LaTeX in a box first, then expressions."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def grade(case: Case) -> bool:
        gold, answer = boxed(case["gold"]), response(case)
        return bool(verify(parse(gold, extraction_config=config), parse(answer, extraction_config=config)))

    return grade


def trl_accuracy() -> Grade:
    """TRL's accuracy_reward; None (gold not read) is no credit."""
    from trl.rewards.accuracy_rewards import accuracy_reward

    def grade(case: Case) -> bool:
        gold = case["gold"] if "$" in case["gold"] or "\\boxed" in case["gold"] else f"${case['gold']}$"
        return accuracy_reward([[{"role": "assistant", "content": response(case)}]], [gold]) == [1.0]

    return grade


def verl_math_verify() -> Grade:
    """verl's math_verify, without the pool of processes around it."""
    from verl.utils.reward_score import math_verify

    def grade(case: Case) -> bool:
        return math_verify._verify_in_subprocess(boxed(case["gold"]), response(case)) == 1.0

    return grade


def ours() -> Grade:
    """This project's rewards; an abstention is no credit."""
    from rewards.math_answer import math_boxed, math_final, math_response, math_value

    def grade(case: Case) -> bool:
        bare = math_value if case["form"] == "answer" else math_response
        reward = {"math_boxed": math_boxed, "math_final": math_final}.get(case["metric"], bare)
        return reward(case["pred"], case["gold"]) == 1.0

    return grade


GRADERS: dict[str, Callable[[], Grade]] = {
    "math-verify (boxed)": math_verify_boxed,
    "TRL accuracy_reward": trl_accuracy,
    "verl math_verify": verl_math_verify,
    "ours": ours,
}


def boxed(text: str) -> str:
    """The text in a box, where it has none."""
    return text if "\\boxed" in text else f"\\boxed{{{text}}}"


def response(case: Case) -> str:
    """What graders that need a box are given: bare answers are boxed, free text is left alone."""
    return boxed(case["pred"]) if case["form"] == "answer" else str(case["pred"])


def load(paths: list[Path]) -> list[Case]:
    """The math cases of the files; a `pred_spec` is written out."""
    cases = []
    for path in paths:
        for line in path.read_text().splitlines():
            case = json.loads(line)
            if case["metric"] not in _METRICS:
                continue
            if spec := case.get("pred_spec"):
                case["pred"] = spec["pre"] + spec["unit"] * spec["times"] + spec["post"]
            cases.append(case)
    return cases


def work(name: str, cases: list[Case], pipe: Connection) -> None:
    """In the grader's process: sends when a case begins, then its verdict and its seconds."""
    logging.disable(logging.CRITICAL)  # they write whole inputs, of megabytes, to the log
    grade = GRADERS[name]()
    warm_up: Case = {"pred": "\\frac{1}{2}+x", "gold": "x+0.5", "form": "answer", "metric": "math"}
    grade(warm_up)
    for case in cases:
        pipe.send(None)
        start = time.perf_counter()
        try:
            verdict = grade(case)
        except Exception:  # the grader's own failure, whatever it is: no credit, and counted
            verdict = None
        pipe.send((verdict, time.perf_counter() - start))


def run(name: str, cases: list[Case], limit_s: float) -> dict[str, float]:
    """Accuracy and times of one grader over all cases."""
    context = mp.get_context("spawn")
    results: list[tuple[bool | None, float]] = []
    hangs = 0
    while len(results) < len(cases):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(name, cases[len(results) :], there), daemon=True)
        process.start()
        there.close()
        try:
            while len(results) < len(cases):
                here.recv()  # a case begins; before the first one the grader is imported, however long that takes
                if not here.poll(limit_s):
                    raise TimeoutError
                results.append(here.recv())
        except (TimeoutError, EOFError):  # EOFError: the case ended the process
            hangs += 1
            results.append((None, limit_s))
        finally:
            process.kill()
            process.join()
    expected = [bool(case["expected"]) for case in cases]
    given = [bool(verdict) for verdict, _ in results]
    seconds = sorted(s for _, s in results)
    return {
        "cases": len(cases),
        "share_of_cases_right": sum(e == g for e, g in zip(expected, given, strict=True)) / len(cases),
        "false_positives": sum(g and not e for e, g in zip(expected, given, strict=True)),
        "false_negatives": sum(e and not g for e, g in zip(expected, given, strict=True)),
        "failures": sum(verdict is None for verdict, _ in results) - hangs,
        "hangs": hangs,
        "wall": statistics.median(seconds),
        "p99_s": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))],
        "max_s": seconds[-1],
    }


def show(found: dict[str, dict[str, float]]) -> None:
    """The table on standard error."""
    head = f"{'grader':22s}{'right %':>9s}{'FP':>5s}{'FN':>5s}{'median ms':>11s}{'p99 ms':>9s}{'hangs':>7s}"
    print(head, file=sys.stderr)
    for name, row in found.items():
        print(
            f"{name:22s}{100 * row['share_of_cases_right']:9.1f}{row['false_positives']:5d}{row['false_negatives']:5d}"
            f"{1e3 * row['wall']:11.2f}{1e3 * row['p99_s']:9.1f}{row['hangs']:7d}",
            file=sys.stderr,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true", help="no table on standard error")
    parser.add_argument("--limit", type=float, default=15.0, help="seconds after which a case is a hang")
    parser.add_argument("--only", choices=list(GRADERS), action="append")
    arguments = parser.parse_args()
    cases = load(arguments.files)
    found = {name: run(name, cases, arguments.limit) for name in arguments.only or GRADERS}
    if not arguments.json:
        show(found)
    from benchmarks.report_form import case, print_report  # imports torch; the graders' processes need none

    peers = {name: row for name, row in found.items() if name != "ours"}
    if "ours" in found and peers:
        print_report([case(name, [found["ours"]], [row]) for name, row in peers.items()])
    else:
        print_report([case(name, [row]) for name, row in found.items()])


if __name__ == "__main__":
    main()
