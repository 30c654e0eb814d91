"""The pages that hybrid-rl writes, in a real browser: quiet, alone, whole, and used with mouse and keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from chromium import Chromium, Noticed, chromium, find_chromium
from PIL import Image
from test_insight_report import HOSTILE, metrics, sample, whole_run, write_lines
from test_studies import design, outcome

from hybrid_rl.authoring.audit import MARKS, Audit
from hybrid_rl.authoring.audit_draw import Draw, Key
from hybrid_rl.authoring.audit_page import AuditServer
from hybrid_rl.insight.recorded import read_run
from hybrid_rl.insight.report import write_report
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.studies.curves import make_curves
from hybrid_rl.studies.design import Design
from hybrid_rl.studies.page import render
from hybrid_rl.studies.results import Outcome, Point
from hybrid_rl.studies.side_by_side.write import write_comparison
from hybrid_rl.studies.table import make_table
from hybrid_rl.studies.training import MEASURES, training_curves

PROGRAM = find_chromium()
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="there is no chromium and no google-chrome on this machine"),
    pytest.mark.usefixtures("charts_drawn"),
]

SHOWN = "<script>alert(1)</script> </think><img src=x onerror=alert(2)> ␛[31mred ⟨U+202E⟩olleh � ␀ {{ 7*7 }}"
"""What readers see of the hostile text."""
BREAKS_OUT = "'\"></pre></style></details><svg onload=alert(3)><script>fetch('http://127.0.0.1:9/')</script>"

# Of each chart: how many curves and areas it has that can be seen, and whether its labels are inside and apart.
CHARTS = """
[...document.querySelectorAll('.chart > svg')].map(svg => {
  const outer = svg.getBoundingClientRect();
  const inside = r => r.left >= outer.left - 1 && r.right <= outer.right + 1
    && r.top >= outer.top - 1 && r.bottom <= outer.bottom + 1;
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
  const labels = [...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect());
  const curves = [...svg.querySelectorAll('path, use')].filter(mark => /--(mode|phase|chart-ink)/.test(mark.outerHTML));
  const seen = mark => mark.getBoundingClientRect().width > 10 && inside(mark.getBoundingClientRect());
  return {
    curves: curves.filter(seen).length,
    labels: labels.length,
    readable: labels.every((r, i) => inside(r) && labels.slice(i + 1).every(other => apart(r, other))),
  };
})
"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Red, green and blue together, of the text and of what it stands on.
BRIGHTNESS = """
['color', 'backgroundColor'].map(name =>
  getComputedStyle(document.body)[name].match(/[0-9]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0))
"""
FOREIGN = "document.querySelectorAll('script, iframe, object, link, base, [onload], [onerror], img[src=x]').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One for all tests: starting it takes longer than all they do with it."""
    assert PROGRAM is not None
    with chromium(PROGRAM, tmp_path_factory.mktemp("profile")) as found:
        yield found


def look(browser: Chromium, url: str, charts: int) -> Noticed:
    """Open a page at two widths and both colour schemes, and hold it to what every page of ours keeps."""
    for scheme, width in (("dark", 420), ("light", 1400)):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        noticed = browser.open(url, width=width)
        assert noticed.faults == []
        assert noticed.requests == [url], "nothing but the page itself is asked for"
        assert browser.run(FOREIGN) == 0
        assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert browser.run(OVERFLOW) <= 0, f"wider than a window of {width}"
        drawn = browser.run(CHARTS)
        assert len(drawn) >= charts
        assert all(chart["curves"] and chart["labels"] and chart["readable"] for chart in drawn), drawn
        ink, paper = browser.run(BRIGHTNESS)
        assert (ink > 500 > paper) if scheme == "dark" else (ink < 250 < paper), scheme
    return noticed


def shown(browser: Chromium, selector: str) -> list[str]:
    """The text of the elements that can be seen, as it is read."""
    elements = f"[...document.querySelectorAll({json.dumps(selector)})]"
    return [str(text) for text in browser.run(f"{elements}.filter(e => e.checkVisibility()).map(e => e.innerText)")]


def test_the_browser_notices_a_page_that_does_not_escape(browser: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "careless.html"
    text = f"<!doctype html><p style='width: 2000px'>{HOSTILE}{BREAKS_OUT}"
    page.write_bytes(text.encode("utf-8", "replace"))
    noticed = browser.open(page.as_uri())
    assert [f"dialog: {number}" in noticed.faults for number in (1, 2, 3)] == [True] * 3
    assert "http://127.0.0.1:9/" in noticed.requests
    assert browser.run(OVERFLOW) > 0 and browser.run(FOREIGN) > 0


def hostile_run(path: Path) -> Path:
    """Two steps; the last has a picture, and a response that tries to leave its place by every door."""
    path.mkdir(parents=True)
    hostile = {"prompt": HOSTILE, "text": HOSTILE + BREAKS_OUT, "thought": BREAKS_OUT} | dict.fromkeys(
        ("answer", "gold"), HOSTILE
    )
    rows = [sample("long", 0, index, images=["images/a.png"], **(hostile if index == 0 else {})) for index in range(4)]
    modes = ["short", "long"]
    whole_run(path, modes)
    # A dozen charts are enough, and each takes its time.
    kept = {"step", "reward", "accuracy", "tokens", "update_tokens", "part", "wall_s"}
    steps = [{k: v for k, v in metrics(step, modes).items() if k.split("/")[0] in kept} for step in range(1, 41)]
    write_lines(path / "metrics.jsonl", steps)
    write_lines(path / "rollouts" / "step_000002.jsonl", [row | {"step": 2} for row in rows])
    (path / "images").mkdir()
    Image.new("RGB", (24, 12), "red").save(path / "images" / "a.png")
    (path / "config.yaml").write_text(yaml.safe_dump({"run": {"dir": str(path)}, "name": BREAKS_OUT}))
    return path


def test_the_report_of_a_hostile_run_is_quiet_and_can_be_used(browser: Chromium, tmp_path: Path) -> None:
    noticed = look(browser, write_report(hostile_run(tmp_path / "run")).as_uri(), charts=6)
    assert SHOWN in shown(browser, ".answer") and BREAKS_OUT in shown(browser, ".thought")
    assert browser.run("document.querySelectorAll('.question img').length") == 1
    # A response as it was sampled, opened and closed with the mouse.
    assert shown(browser, ".raw pre") == []
    browser.click("details.step[open] .raw summary")
    assert shown(browser, ".raw pre") == [SHOWN + BREAKS_OUT]
    browser.click("details.step[open] .raw summary")
    assert shown(browser, ".raw pre") == []
    # An earlier step, opened with the keyboard.
    groups = len(shown(browser, ".group"))
    browser.run("document.querySelector('details.step:not([open]) > summary').focus()")
    browser.press("Enter", 13, "\r")
    assert len(shown(browser, ".group")) > groups
    # The links at the top lead to their sections.
    for place in browser.run("[...document.querySelectorAll('nav a')].map(link => link.getAttribute('href'))"):
        browser.run("scrollTo(0, 0)")
        browser.click(f"nav a[href='{place}']")
        top = browser.run(f"document.querySelector({json.dumps(place)}).getBoundingClientRect().top")
        assert -1 < top < 900, place
    assert noticed.faults == [] and len(noticed.requests) == 1


def test_a_comparison_of_hostile_runs_is_quiet_and_can_be_used(
    browser: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybrid_rl.studies.side_by_side.write.draw", lambda *_: b"")
    name = "<img src=x onerror=alert(5)>"
    runs = [hostile_run(tmp_path / f"{name}{place}") for place in (1, 2)]
    page, _ = write_comparison(runs, tmp_path / "c.html")
    noticed = look(browser, page.as_uri(), charts=6)
    assert {f"{name}1", f"{name}2"} <= set(shown(browser, ".run"))
    tables = len(shown(browser, "#accuracy table"))
    browser.click("#accuracy summary")
    assert len(shown(browser, "#accuracy table")) == tables - 1
    assert noticed.faults == [] and len(noticed.requests) == 1


def study(path: Path) -> tuple[Design, dict[str, list[Outcome]]]:
    """Two arms of two seeds with three evaluations each; names of arms, keys and tasks are hostile."""
    planned = design(path, "modes.long_ratio=0.5,1", seeds=2)
    arms = tuple(replace(one, name=f"<img src=x onerror=alert(6)>{one.name}") for one in planned.arms)
    arms = tuple(replace(one, values={**one.values, BREAKS_OUT: HOSTILE}) for one in arms)
    tasks = {HOSTILE: {"accuracy": 0.5}}
    found = {}
    for place, one in enumerate(arms):
        points = tuple(
            Point(
                when=str(step),
                step=step,
                tokens=120_000.0 * step * (1 + place),
                samples={"long": 8.0 * step},
                accuracy={"long": 0.2 + 0.01 * step},
            )
            for step in (0, 10, 20)
        )
        training = {(measure, "long"): {step: 0.02 * step for step in range(1, 41)} for measure in MEASURES}
        runs = [outcome(seed, [1, 0, seed, 1], 100.0 * (1 + place)) for seed in (0, 1)]
        found[one.name] = [
            replace(run, after={"long": {**run.after["long"], "tasks": tasks}}, points=points, training=training)
            for run in runs
        ]
    return replace(planned, arms=arms), found


def test_an_ablation_with_hostile_names_is_quiet_and_can_be_used(browser: Chromium, tmp_path: Path) -> None:
    planned, found = study(tmp_path)
    rows = make_table(planned.arms, found)
    training = training_curves({name: [run.training for run in runs] for name, runs in found.items()})
    page = tmp_path / "ablation.html"
    page.write_text(render(planned, rows, make_curves(found), training, [HOSTILE]), encoding="utf-8")
    noticed = look(browser, page.as_uri(), charts=1 + len(MEASURES))
    assert SHOWN in shown(browser, "#results th") and SHOWN in shown(browser, "#results .note")
    assert "<img src=x onerror=alert(6)>long_ratio=1" in shown(browser, ".chip")
    assert shown(browser, "#config pre") == []
    browser.click("#config summary")
    assert "long_ratio" in shown(browser, "#config pre")[0]
    assert noticed.faults == [] and len(noticed.requests) == 1


@contextmanager
def served(run: Path, lines: int) -> Iterator[AuditServer]:
    """The page of an audit of the first responses of step 2."""
    audit = Audit(RunFolder(run))
    audit.begin(Draw({"control": lines}, tuple((Key(2, line), "control") for line in range(lines))))
    with AuditServer(read_run(run), audit) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_hostile_responses_are_audited_with_mouse_and_keys(browser: Chromium, tmp_path: Path) -> None:
    with served(hostile_run(tmp_path / "run"), 3) as server:
        noticed = look(browser, server.url, charts=0)
        assert shown(browser, ".pair .text") == [SHOWN, SHOWN]
        assert browser.run("document.images.length") == 1
        browser.click("summary")
        assert shown(browser, "pre") == [SHOWN + BREAKS_OUT]
        browser.after_load(lambda: browser.click("button[value='fine']"))
        assert server.audit.marks == {Key(2, 0): "fine"} and shown(browser, "nav b") == ["2 of 3"]
        browser.run("document.querySelector(\"button[value='label wrong']\").focus()")
        browser.after_load(lambda: browser.press("Enter", 13, "\r"))
        assert server.audit.marks[Key(2, 1)] == "label wrong" and shown(browser, "nav b") == ["3 of 3"]
        browser.after_load(lambda: browser.click("nav a"))
        assert shown(browser, "button.given") == [f"{1 + MARKS.index('label wrong')} label wrong"]
        assert noticed.faults == [] and all(url.startswith(server.url) for url in noticed.requests)
