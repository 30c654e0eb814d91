"""The form of the benchmarks' reports: medians, ratios in our favour above 1, sides that take turns."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.report_form import case, print_report
from benchmarks.sides import Side, forget_peak, in_turn, peak_gib, resident_gib

_COUNTER = """
import os, sys
from benchmarks.sides import Turns, serve
runs = []
def measure():
    print("chatter of a library")
    runs.append(1)
    return {"wall": float(len(runs)), "pid": os.getpid()}
serve(measure, Turns(), {"setting": os.environ.get("SETTING")})
"""


def test_a_case_has_medians_and_ratios_that_say_how_much_better_ours_is() -> None:
    ours = [{"wall": w, "peak_memory": 1.0, "tokens_per_s": t} for w, t in ((2.0, 50.0), (1.0, 90.0), (9.0, 40.0))]
    peer = [{"wall": w, "peak_memory": 4.0, "tokens_per_s": 10.0} for w in (8.0, 10.0, 6.0)]
    found = case("one", ours, peer, sizes={"layers": 2})
    assert found["ours"] == {"wall": 2.0, "peak_memory": 1.0, "tokens_per_s": 50.0}
    assert found["ratio"] == {"wall": 4.0, "peak_memory": 4.0, "tokens_per_s": 5.0}
    assert found["runs"] == 3 and found["samples"]["peer"] == peer and found["sizes"] == {"layers": 2}


def test_a_case_without_a_peer_has_no_ratio() -> None:
    found = case("alone", [{"wall": 1.0}])
    assert found["peer"] is None and found["ratio"] == {}


def test_standard_output_is_json_alone_even_where_a_figure_is_infinite(capsys: pytest.CaptureFixture[str]) -> None:
    print_report([case("one", [{"wall": float("inf")}])])
    report = json.loads(capsys.readouterr().out)
    assert report["cases"][0]["ours"]["wall"] is None
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_sides_take_turns_in_processes_that_live_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counting_side.py").write_text(_COUNTER)
    paths = [str(tmp_path), str(Path(__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("SETTING", "outer")
    sides = [Side("ours", ["counting_side"]), Side("peer", ["counting_side"], {"SETTING": None})]
    samples = in_turn(sides, runs=2, warm_up=1)
    for side in sides:
        side.close()
    assert [side.facts["setting"] for side in sides] == ["outer", None]
    for runs in samples.values():
        assert [run["wall"] for run in runs] == [2.0, 3.0]  # the first round is not counted
        assert len({run["pid"] for run in runs}) == 1 and all(run["peak_memory"] > 0 for run in runs)
    assert samples["ours"][0]["pid"] != samples["peer"][0]["pid"]


def test_a_side_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying_side.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="peer ended with 3"):
        Side("peer", ["dying_side"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_memory_is_this_process_s_own() -> None:
    before = peak_gib()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert before <= peak_gib() < 64
    del block
    forget_peak()
    assert peak_gib() == pytest.approx(resident_gib(), abs=0.05)
