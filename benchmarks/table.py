"""The table of the README from reports of benchmarks: `python -m benchmarks.table FILE... [--into README.md]`.

Markdown on standard output, or written between the lines `<!-- benchmarks -->` and `<!-- /benchmarks -->` of a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
_HEAD = ("case", "ours", "peer", "faster", "peak memory, ours", "peer", "of the peer's", "runs")


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A row for each case, and the machines below."""
    cases = [case for report in reports for case in report["cases"]]
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(case) for case in cases)]
    by_machine: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        by_machine.setdefault(_machine(report["machine"]), []).extend(report["cases"])
    machines = [f"{machine}{_others(cases)}." for machine, cases in by_machine.items()]
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + ["", *machines])


def _row(case: Mapping[str, Any]) -> tuple[str, ...]:
    ours, peer, ratio = case["ours"], case["peer"] or {}, case["ratio"]
    memory = ratio.get("peak_memory")
    return (
        f"`{case['name']}`",
        seconds(ours.get("wall")),
        seconds(peer.get("wall")),
        f"{ratio['wall']:.2f}x" if "wall" in ratio else "-",
        gib(ours.get("peak_memory")),
        gib(peer.get("peak_memory")),
        f"{1 / memory:.2f}x" if memory else "-",
        str(case["runs"]),
    )


def seconds(value: float | None) -> str:
    """Three digits, in a unit that suits."""
    if value is None:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def gib(value: float | None) -> str:
    """GiB, or a dash where it was not measured."""
    return "-" if value is None else f"{value:.2f} GiB"


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}"


def _others(cases: Sequence[Mapping[str, Any]]) -> str:
    others = [run["others_cores"] for case in cases for run in _runs(case) if "others_cores" in run]
    return f"; other processes used at most {max(others):.2f} cores" if others else ""


def _runs(case: Mapping[str, Any]) -> list[Mapping[str, float]]:
    return [run for side in case["samples"].values() for run in side]


def put_into(text: str, made: str) -> str:
    """The text with the table between its marks.

    Raises:
        SystemExit: it has no marks.
    """
    if BEGIN not in text or END not in text:
        raise SystemExit(f"the file has no place for the table; write the lines {BEGIN} and {END} where it is to stand")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the reports; print or write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="what benchmarks wrote to standard output")
    parser.add_argument("--into", type=Path, help="file that holds the table")
    options = parser.parse_args(arguments)
    made = table([json.loads(path.read_text()) for path in options.files])
    if options.into is None:
        print(made)
        return
    options.into.write_text(put_into(options.into.read_text(), made))


if __name__ == "__main__":
    main()
