"""`hybrid-rl report`: one run anew, several runs on one page with a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from test_insight_report import HOSTILE, Page, evaluation, metrics, whole_run, write_lines

from hybrid_rl.cli.main import main
from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight import charts, intervals
from hybrid_rl.studies.side_by_side.panels import QUANTITIES, compared, update_tokens
from hybrid_rl.studies.side_by_side.runs import labels, read_runs
from hybrid_rl.studies.side_by_side.settings import differing_settings
from hybrid_rl.studies.side_by_side.write import write_comparison


def a_run(path: Path, *, after: float = 0.735, config: dict[str, Any] | None = None, steps: int = 3) -> Path:
    path.mkdir(parents=True)
    whole_run(path, ["short", "long"], steps=steps)
    summary = json.loads((path / "summary.json").read_text())
    summary["eval"]["after"] = evaluation(["short", "long"], after)
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "config.yaml").write_text(yaml.safe_dump(config or {"run": {"dir": str(path)}}))
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    runs = tmp_path / "runs"
    settings: list[dict[str, Any]] = [
        {"run": {"dir": "a", "steps": 3}, "modes": {"long_ratio": ratio, "assign": "per_prompt"}} for ratio in (0.5, 1)
    ]
    return [
        a_run(runs / "mixed" / "seed_0", config=settings[0]),
        a_run(runs / "long" / "seed_0", config=settings[1], after=0.5),
    ]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty charts on the pages, which other tests draw: drawing is slow."""
    monkeypatch.setattr(charts, "line_chart", lambda *_, **__: "<svg></svg>")
    monkeypatch.setattr(charts, "stacked_chart", lambda *_, **__: "<svg></svg>")


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybrid_rl.studies.side_by_side.write.draw", lambda *_: b"")


def words(page: Path) -> str:
    return " ".join(Page(page.read_text(encoding="utf-8")).text.split())


# --- several runs ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_picture")
def test_runs_stand_side_by_side_with_their_differences(two: list[Path], tmp_path: Path) -> None:
    page, _ = write_comparison(two, tmp_path / "c.html")
    text = words(page)
    low, high = intervals.difference(0.735, 200, 0.5, 200)
    assert "73.5 %" in text and "50.0 %" in text and "36.8 %" in text
    assert f"−23.5 −{abs(100 * low):.1f} … −{abs(100 * high):.1f}" in text, text
    assert text.index("mixed") < text.index("long mode")
    assert "modes.long_ratio" in text
    assert "modes.assign" not in text and "run.dir" not in text and "run.steps" not in text


def test_every_quantity_has_the_curves_of_all_runs_by_mode(two: list[Path]) -> None:
    for panels in compared(read_runs(two)):
        assert [panel.mode for panel in panels if panel] == ["short", "long"]
        for panel in panels:
            assert panel is not None
            assert [(curve.label, curve.place) for curve in panel.curves] == [("mixed", 0), ("long", 1)]
    titles = {panels[0].quantity.title for panels in compared(read_runs(two)) if panels[0]}
    assert {"Evaluation accuracy", "Reward", "Response length", "Entropy", "Leaked", "Update tokens"} <= titles


def test_a_mode_that_a_run_does_not_train_leaves_a_gap_and_no_error(two: list[Path], tmp_path: Path) -> None:
    rows = [{k: v for k, v in metrics(s, ["short", "long"]).items() if not k.endswith("/short")} for s in (1, 2)]
    write_lines(two[1] / "metrics.jsonl", rows)
    reward = next(panels for panels in compared(read_runs(two)) if panels[0] and panels[0].quantity.title == "Reward")
    assert [[curve.label for curve in panel.curves] for panel in reward if panel] == [["mixed"], ["mixed", "long"]]


def test_accuracy_against_tokens_counts_what_all_modes_had_cost_by_then(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    rows = [{"step": s, "update_tokens/short": 10.0 * s, "update_tokens/long": 100.0} for s in (1, 2, 3, 4)]
    write_lines(run / "metrics.jsonl", rows)
    write_lines(run / "eval.jsonl", [{"step": 2, "eval": evaluation(["short", "long"], 0.6)}])
    (read,) = read_runs([run])
    against = next(quantity for quantity in QUANTITIES if quantity.across == "update tokens")
    x, y, _ = against.curve(read.run, "long")
    # Before training nothing; after step 2 (10 + 100) + (20 + 100); after step 4 also (30 + 100) + (40 + 100).
    assert (x, y) == ([0.0, 230.0, 500.0], [0.2, 0.6, 0.735])
    assert update_tokens(read.run) == 500.0


def test_hostile_runs_are_only_shown(tmp_path: Path) -> None:
    modes = ["m<b>$x^$", "short"]
    runs = []
    for place in (0, 1):
        path = tmp_path / f"r{place}<img src=x onerror=alert(1)>"
        path.mkdir()
        whole_run(path, modes)
        (path / "config.yaml").write_text(yaml.safe_dump({HOSTILE.replace("\ud800", ""): f"</pre><script>{place}"}))
        summary = json.loads((path / "summary.json").read_text()) | {"status": HOSTILE, "seed": HOSTILE}
        (path / "summary.json").write_text(json.dumps(summary))
        runs.append(path)
    page, picture = write_comparison(runs, tmp_path / "c.html")
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert not {tag for tag, _ in parsed.tags} & {"script", "iframe", "object", "link", "img"}
    assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "<script>alert(1)</script>" in parsed.text and "</pre><script>0" in parsed.text
    assert "\x1b" not in text and "\u202e" not in text
    with Image.open(picture) as image:
        assert image.size[0] > 400


def test_only_differing_keys_are_settings_that_differ() -> None:
    texts = ["a: {b: 1, c: [1, 2]}\nrun: {dir: x, live: true}", "a: {b: 1, c: [1]}\nrun: {dir: y}\nnew: true", "{torn"]
    assert differing_settings(texts[:2]) == [("a.c", ["[1, 2]", "[1]"]), ("new", [None, "true"])]
    assert differing_settings(texts[::2]) == [("a.b", ["1", None]), ("a.c", ["[1, 2]", None])]
    assert differing_settings(["a: 1", "a: '1'"]) == [("a", ["1", "'1'"])]


def test_labels_are_what_differs() -> None:
    def named(*texts: str) -> list[str]:
        return labels([Path(text) for text in texts])

    assert named("/r/a/seed_0", "/r/b/seed_0") == ["a", "b"]
    assert named("/r/a/seed_0", "/r/a/seed_1") == ["seed_0", "seed_1"]
    assert named("/r/a/seed_0", "/r/b/seed_1") == ["a/seed_0", "b/seed_1"]
    assert named("/r/x", "/r/y/x") == ["x", "y/x"]
    assert named("/r/x") == ["x"]


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_gets_its_report_anew_and_a_picture(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run = a_run(tmp_path / "run", steps=40)
    (run / "summary.json").unlink()  # it is not at its end
    (run / "report.html").write_text("old")
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", "report", str(run)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert capsys.readouterr().out.splitlines() == [f"page: {run / 'report.html'}", f"picture: {run / 'report.png'}"]
    assert "running or interrupted" in words(run / "report.html")
    first = (run / "report.png").read_bytes()
    assert Image.open(run / "report.png").format == "PNG"
    write_lines(run / "metrics.jsonl", [metrics(step, ["short", "long"]) for step in range(1, 30)])
    write_comparison([run], tmp_path)
    assert (tmp_path / "report.png").read_bytes() != first == (run / "report.png").read_bytes()


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs/none"], "no run folder runs/none"),
        (["runs"], "not a run folder: it has no config.yaml"),
        (["runs/mixed/seed_0", "runs/mixed/seed_0"], "given twice"),
        (["runs/mixed/seed_0", "runs/../runs/mixed/seed_0"], "given twice"),
        (["runs/empty"], "no finished step"),
        (["runs/mixed/seed_0", "runs/empty"], "run runs/empty has no finished step"),
        (["study"], "an ablation"),
        (["runs/mixed/seed_0", "--out", "x.pdf"], "ends in .html"),
        (["runs/mixed/seed_0", "--out", "none/x.html"], "not a folder you may write to"),
    ],
)
def test_bad_input_is_one_sentence(
    two: list[Path], arguments: list[str], said: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in (("runs/empty", "config.yaml"), ("study", "ablation.json")):
        Path(folder).mkdir()
        Path(folder, name).write_text("{}")
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", "report", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert end.value.code == 2
    assert said in errors and errors.count("\n") == 1
    assert not list(tmp_path.rglob("*.html"))


def test_more_runs_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="19 runs"):
        read_runs([tmp_path / str(number) for number in range(19)])


@pytest.mark.usefixtures("no_picture")
def test_a_place_that_cannot_be_written_to_is_one_sentence(two: list[Path], tmp_path: Path, monkeypatch: Any) -> None:

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunFolderError, match=r"c\.html cannot be written: No space left"):
        write_comparison(two, tmp_path / "c.html")
    assert not list(tmp_path.glob("c.*")) and not list(tmp_path.glob("*.tmp"))
