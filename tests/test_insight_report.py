"""The report of whole, hostile, half written and empty run folders."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight import charts, formats, intervals
from hybrid_rl.insight.report import write_report
from hybrid_rl.insight.samples import balanced

HOSTILE = "<script>alert(1)</script> </think><img src=x onerror=alert(2)> \x1b[31mred \u202eolleh \ud800 \x00 {{ 7*7 }}"
VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """Start tags and their attributes, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def metrics(step: int, modes: list[str]) -> dict[str, float]:
    row: dict[str, float] = {"step": step, "version": step, "loss": 0.01, "grad_norm": 1.0, "tokens_per_s": 900.0}
    row |= {"wall_s/generate": 1.0, "wall_s/update": 0.5}
    for place, mode in enumerate(modes):
        names = ("reward", "accuracy", "tokens", "leaked", "entropy", "kl", "rollout_tokens", "update_tokens")
        row |= {f"{name}/{mode}": 0.1 * (place + 1) + 0.001 * step for name in names}
        row |= {f"part/format/{mode}": 0.5, f"task/sum/accuracy/{mode}": 0.25}
    return row


def sample(mode: str, group: int, index: int, **changes: Any) -> dict[str, Any]:
    answer = f"answer-{mode}-{group}-{index}"
    return {
        "step": 1, "prompt_id": f"p{group}", "group": f"p{group}/{mode}@1", "mode": mode, "task": f"task{group % 2}",
        "prompt": "How many circles?", "text": f"so</think>{answer}", "ids": [1, 2, 3], "gold": "3", "images": [],
        "parts": {"accuracy": float(index % 2)}, "reward": 0.5, "advantage": -0.5, "outcome": "ok", "finish": "stop",
        "policy_versions": [0, 1], "thought": f"thought-{index}", "answer": answer,
    } | changes  # fmt: skip


def evaluation(modes: list[str], accuracy: float) -> dict[str, Any]:
    tasks = {"sum": {"accuracy": accuracy / 2, "mean_tokens": 4.0, "n": 100}}
    entry = {
        "accuracy": accuracy, "accuracy_when_well_formed": accuracy, "mean_tokens": 5.5, "n": 200, "leak_rate": 0.0,
        "tasks": tasks, "sources": {},
    }  # fmt: skip
    return {mode: entry for mode in modes}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def whole_run(path: Path, modes: list[str], *, steps: int = 3, samples: list[dict[str, Any]] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    write_lines(path / "metrics.jsonl", [metrics(step, modes) for step in range(1, steps + 1)])
    rows = [sample(mode, group, index) for mode in modes for group in range(2) for index in range(4)]
    write_lines(path / "rollouts" / "step_000001.jsonl", rows if samples is None else samples)
    summary = {
        "status": "finished", "steps": steps, "seed": 3, "policy": {"parameters": 1234567},
        "wall_s": {"generate": 61.0},
        "eval": {"before": evaluation(modes, 0.2), "after": evaluation(modes, 0.735)},
        "tokens": {mode: {"rollout": 12345, "update": 2345} for mode in modes},
    }  # fmt: skip
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def page_of(path: Path) -> tuple[str, Page]:
    text = write_report(path).read_text(encoding="utf-8")
    return text, Page(text)


def test_numbers_equal_the_summary(tmp_path: Path) -> None:
    _, page = page_of(whole_run(tmp_path, ["short", "long"]))
    text = " ".join(page.text.split())
    for expected in ("20.0 %", "73.5 %", "+53.5", "10.0 %", "36.8 %", "12,345", "2,345", "1:01", "1.23 M", "finished"):
        assert expected in text, expected
    low, high = intervals.wilson(0.735, 200)
    assert f"{100 * low:.1f} – {100 * high:.1f}" in text


@pytest.mark.usefixtures("charts_drawn")
def test_hostile_text_is_only_shown(tmp_path: Path) -> None:
    hostile = sample(HOSTILE, 0, 1, task=HOSTILE, prompt=HOSTILE, text=HOSTILE, thought=HOSTILE, answer=HOSTILE)
    hostile |= {"gold": HOSTILE, "finish": HOSTILE, "outcome": HOSTILE, "images": [HOSTILE], "parts": {HOSTILE: 1.0}}
    whole_run(tmp_path, ["m<b>$x^$"], samples=[hostile])
    row = metrics(1, ["m<b>$x^$"]) | {f"part/{HOSTILE}/m<b>$x^$": 0.5, f"wall_s/{HOSTILE}": 1.0}
    write_lines(tmp_path / "metrics.jsonl", [row])
    (tmp_path / "config.yaml").write_bytes(b"a: </pre><script>\x1b[0m \xff")
    text, page = page_of(tmp_path)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object"}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((attributes["src"] or "").startswith("data:image/") for tag, attributes in page.tags if tag == "img")
    assert (
        "<script>alert(1)</script> </think><img src=x onerror=alert(2)> ␛[31mred ⟨U+202E⟩olleh � ␀ {{ 7*7 }}"
        in page.text
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)


@pytest.mark.usefixtures("charts_drawn")
def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text, page = page_of(whole_run(tmp_path, ["short", "long"], steps=40))
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r"https?://", without_namespaces)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("href", "xlink:href")]
    assert all((link or "").startswith("#") for link in links)
    assert "url(http" not in text and "@import" not in text


@pytest.mark.usefixtures("charts_drawn")
def test_charts_are_well_formed_and_deterministic(tmp_path: Path) -> None:
    whole_run(tmp_path, ["short", "long"], steps=40)
    text, _ = page_of(tmp_path)
    drawings = re.findall(r"<svg\b.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) > 10
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert write_report(tmp_path).read_text(encoding="utf-8") == text
    assert "var(--mode-0, #0072b2)" in text and "var(--mode-1, #d55e00)" in text


@pytest.mark.usefixtures("charts_drawn")
@pytest.mark.parametrize("values", [[0.0], [1e300, -1e300], [1e-300, 1e-300], [5.0] * 2000])
def test_charts_take_any_finite_numbers(values: list[float]) -> None:
    steps = list(range(1, len(values) + 1))
    line = charts.Line(place=20, steps=steps, values=values)
    for drawing in (charts.line_chart([line]), charts.stacked_chart(steps, [[abs(v) for v in values]])):
        ElementTree.fromstring(drawing)
        assert len(drawing) < 60_000


def test_sets_are_curves_over_all_their_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[charts.Line]] = []
    monkeypatch.setattr(charts, "line_chart", lambda lines, **_: drawn.append(list(lines)) or "<svg></svg>")
    whole_run(tmp_path, ["short", "long"], steps=6)
    summary = json.loads((tmp_path / "summary.json").read_text())

    def found(accuracy: float) -> dict[str, Any]:
        return {"hard<b>": {"long": {"accuracy": accuracy, "prompts": 50, "samples": 4, "n": 200, "pass": {}}}}

    summary["eval_sets"] = {"before": found(0.1), "after": found(0.4)}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    write_lines(tmp_path / "eval.jsonl", [{"step": 3, "eval_sets": found(0.2)}, {"step": 4, "eval_sets": [1]}])
    text, page = page_of(tmp_path)
    assert "Accuracy on evaluation sets" in page.text and "hard<b>" in page.text and "hard<b>" not in text
    (line,) = next(lines for lines in drawn if lines[0].values[-1:] == [0.4])
    assert (line.place, list(line.steps), line.values) == (1, [0, 3, 6], [0.1, 0.2, 0.4])
    # Four responses to a prompt are not four prompts.
    assert line.band[-1] == intervals.wilson(0.4, 50)


def test_shares_of_the_advantage_are_stacked_by_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[float], list[list[float]]]] = []
    monkeypatch.setattr(charts, "line_chart", lambda *_, **__: "<svg></svg>")
    monkeypatch.setattr(
        charts, "stacked_chart", lambda steps, layers, **_: drawn.append((list(steps), layers)) or "<svg></svg>"
    )
    whole_run(tmp_path, ["short", "long"])
    rows = [metrics(step, ["short", "long"]) for step in (1, 2)]
    rows[0] |= {"part_share/a/long": 0.75, "part_share/b/long": 0.25}
    rows[1] |= {"part_share/a/long": 0.5, "part_share/b/long": 0.5, "part_share/a/short": 1.0}
    write_lines(tmp_path / "metrics.jsonl", rows)
    page_of(tmp_path)
    assert ([1, 2], [[0.75, 0.5], [0.25, 0.5]]) in drawn  # long
    assert ([2], [[1.0], [0.0]]) in drawn  # short, which had no such figure in the first step


def test_a_group_card_shows_all_of_its_responses(tmp_path: Path) -> None:
    rows = [sample("short", 0, index) for index in range(20)]
    _, page = page_of(whole_run(tmp_path, ["short"], samples=rows))
    for index in range(20):
        # Once as the answer, once in the text as sampled.
        assert len(re.findall(rf"answer-short-0-{index}\b", page.text)) == 2
    assert sum(attributes.get("class") in ("response right", "response wrong") for _, attributes in page.tags) == 20
    assert "10 of 20 right" in " ".join(page.text.split())


def test_advantages_by_token_are_shown_as_their_mean(tmp_path: Path) -> None:
    _, page = page_of(whole_run(tmp_path, ["short"], samples=[sample("short", 0, 0, advantage=[1.0, 2.0])]))
    assert "advantage +1.50" in " ".join(page.text.split())


def test_groups_are_balanced_over_modes_and_tasks() -> None:
    groups = {f"{mode}{n}": [sample(mode, n, 0)] for mode in ("a", "b", "c") for n in range(10)}
    chosen = [(rows[0]["mode"], rows[0]["task"]) for rows in balanced(groups, 6)]
    assert sorted(chosen) == [(mode, task) for mode in "abc" for task in ("task0", "task1")]


@pytest.mark.usefixtures("charts_drawn")
def test_large_runs_stay_small(tmp_path: Path) -> None:
    text = "long thought " * 20_000
    rows = [sample("long", n % 6, n, text=text, thought=text, answer=text) for n in range(120)]
    path = write_report(whole_run(tmp_path, ["short", "long"], steps=1500, samples=rows))
    assert path.stat().st_size < 4_000_000
    assert "characters left out" in path.read_text(encoding="utf-8")


def test_images_are_embedded_and_stay_inside_the_folder(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "outside.png")
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    Image.new("RGB", (900, 500), "blue").save(run / "images" / "a.png")
    (run / "images" / "torn.png").write_bytes((run / "images" / "a.png").read_bytes()[:60])
    names = ["images/a.png", "../outside.png", "images/torn.png", "images/none.png"]
    _, page = page_of(whole_run(run, ["short"], samples=[sample("short", 0, 0, images=names)]))
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,")
    assert page.text.count("cannot be shown") == 3


@pytest.mark.usefixtures("charts_drawn")
def test_three_modes(tmp_path: Path) -> None:
    text, page = page_of(whole_run(tmp_path, ["fast", "medium", "deep"]))
    headings = [attributes for tag, attributes in page.tags if tag == "article" and attributes.get("class") == "tile"]
    assert len(headings) == 3
    assert {"--own: var(--mode-0)", "--own: var(--mode-1)", "--own: var(--mode-2)"} == {a["style"] for a in headings}
    assert all(mode in text for mode in ("fast", "medium", "deep"))


@pytest.mark.usefixtures("charts_drawn")
def test_a_mode_that_the_model_chooses_shows_its_choice(tmp_path: Path) -> None:
    """How often it thinks, over the steps and in evaluations, and whether that was the better mode."""
    modes = ["short", "auto"]
    whole_run(tmp_path, modes)
    assert "What the model chooses" not in page_of(tmp_path)[1].text
    rows = [
        metrics(step, modes) | {"leaked_thought/short": 0.0, "thinks/short": 0.0, "thinks/auto": 0.4} for step in (1, 2)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for when, thinks, better in (("before", 0.25, 0.5), ("after", 0.75, 0.875)):
        summary["eval"][when]["auto"] |= {"thinks": thinks, "hybrid_accuracy": better}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = "".join(page_of(tmp_path)[1].text.split())
    assert "Thinksshareofresponseswithathought" in text
    assert "autothinks25.0%75.0%+50.0" in text
    assert "inthebettermode50.0%87.5%+37.5" in text


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    _, page = page_of(tmp_path)
    assert "recorded nothing yet" in page.text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_no_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        write_report(tmp_path / "none")


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", "summary.json", "rollouts/step_000001.jsonl"])
@pytest.mark.parametrize(
    "content", [None, "", "{", "[1, 2]\n", '{"step": null, "eval": 3, "tokens": [], "policy": 1}\n']
)
def test_missing_and_broken_files(tmp_path: Path, missing: str, content: str | None) -> None:
    whole_run(tmp_path, ["short", "long"])
    (tmp_path / "config.yaml").write_text("modes:\n  kinds: {short: {}, long: {}}\n")
    if content is None:
        (tmp_path / missing).unlink()
    else:
        (tmp_path / missing).write_text(content)
    assert page_of(tmp_path)[1].text


def test_an_interrupted_run_shows_what_it_has(tmp_path: Path) -> None:
    whole_run(tmp_path, ["short"])
    (tmp_path / "summary.json").unlink()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    write_lines(tmp_path / "eval.jsonl", [{"step": s, "eval": evaluation(["short"], s / 10)} for s in (0, 2, 3)])
    (tmp_path / "rollouts" / "step_000009.jsonl").write_text('{"torn')
    _, page = page_of(tmp_path)
    text = " ".join(page.text.split())
    assert "running or interrupted" in text and "+30.0" in text and "steps3" in text
    assert "Step 1 " in text and "Step 9" not in text


def test_a_failed_write_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_run(tmp_path, ["short"])
    (tmp_path / "report.html").write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert not list(tmp_path.glob("*.tmp"))


def test_intervals() -> None:
    # Reference values: Newcombe (1998), Statistics in Medicine 17, table of method 3; and method 10, example (a).
    assert intervals.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert intervals.difference(48 / 80, 80, 56 / 70, 70) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert intervals.wilson(0.5, 0) == (0.0, 1.0)
    assert intervals.wilson(1.3, 10)[1] == pytest.approx(1.0)


def test_formats() -> None:
    assert [formats.number(v) for v in (None, 0, 0.5234, 12.34, 1234.5, 0.00123, float("nan"))] == [
        "–", "0", "0.52", "12.3", "1,234", "0.0012", "–",
    ]  # fmt: skip
    assert [formats.duration(v) for v in (0, 200, 3723)] == ["0:00", "3:20", "1:02:03"]
    assert formats.points(-0.123) == "−12.3" and formats.short_count(1_500_000) == "1.5 M"
