"""`hybrid-rl rewards audit`: what is drawn, the page on which it is marked, and what marks amount to."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from typer.testing import CliRunner

from hybrid_rl.authoring.audit import FILE, Audit
from hybrid_rl.authoring.audit_draw import Draw, Key, draw
from hybrid_rl.authoring.audit_page import AuditServer
from hybrid_rl.cli.main import app
from hybrid_rl.errors import RunFolderError
from hybrid_rl.insight.recorded import RecordedRun, read_run
from hybrid_rl.run_folder import RunFolder

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202egnp.exe \ud800 {{ 7 * 7 }} </pre>"


def response(group: str, answer: str | None, accuracy: float, gold: str = "7", **more: Any) -> dict[str, Any]:
    return {
        "group": group,
        "answer": answer,
        "text": answer,
        "gold": gold,
        "mode": "short",
        "task": "read",
        "prompt_id": "p",
        "prompt": "Which digit?",
        "parts": {"accuracy": accuracy, **more.pop("parts", {})},
        "images": [],
        **more,
    }


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    def make(*steps: list[dict[str, Any]]) -> RecordedRun:
        (tmp_path / "rollouts").mkdir()
        (tmp_path / "images").mkdir()
        (tmp_path / "config.yaml").write_text("{}")
        Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "a.png")
        for step, rows in enumerate(steps, start=1):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / "rollouts" / f"step_{step:06d}.jsonl").write_text(lines)
        return read_run(tmp_path)

    return make


def test_responses_are_drawn_where_judges_disagree(make_run: Any) -> None:
    run = make_run(
        [
            *(response("a", "seven", 0.0) for _ in range(3)),  # most of the group say so, and it is judged wrong
            response("a", "8", 0.0),
            *(response("b", "7", 1.0) for _ in range(3)),
            response("b", "9", 0.0, parts={"likelihood": 0.9}),  # another part holds it for right
            response("c", None, 0.0),
            {"group": "c", "parts": {}},  # never judged
        ]
    )
    found = draw(run, samples=100, seed=0, parts=["likelihood"])
    assert found.population == {"graders": 0, "group": 3, "parts": 1, "control": 5}
    strata = {key.line: stratum for key, stratum in found.chosen}
    assert [strata[line] for line in range(9)] == ["group"] * 3 + ["control"] * 4 + ["parts", "control"]
    second = draw(run, samples=100, seed=0, second=lambda rows: [float(row["answer"] == "8") for row in rows])
    assert second.population == {"graders": 4, "group": 3, "parts": 0, "control": 2}


def test_half_of_the_samples_are_a_control_and_a_seed_repeats_a_draw(make_run: Any) -> None:
    run = make_run([response(f"g{i // 4}", "1" if i < 100 else str(i), 0.0) for i in range(400)])
    found = draw(run, samples=40, seed=3)
    assert found.population["group"] == 100
    assert sorted(s for _, s in found.chosen).count("control") == 20
    assert found == draw(run, samples=40, seed=3) != draw(run, samples=40, seed=4)
    assert len(set(found.chosen)) == 40
    assert [s for _, s in draw(run, samples=250, seed=3).chosen].count("group") == 100  # all there are


@pytest.fixture
def server(make_run: Any) -> Iterator[AuditServer]:
    rows = [response("a", HOSTILE, 0.0, gold=HOSTILE, prompt=HOSTILE, images=["images/a.png", "../secret.png"])]
    run = make_run([*rows, response("b", "7", 1.0), response("c", None, 0.0)])
    audit = Audit(RunFolder(run.path))
    audit.begin(Draw({"control": 3}, tuple((Key(1, line), "control") for line in range(3))))
    with AuditServer(run, audit) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: AuditServer, method: str, path: str, host: str | None = None, **form: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    headers = {"Host": host or f"127.0.0.1:{server.server_port}"}
    connection.request(method, path, urlencode(form) if form else None, headers)
    reply = connection.getresponse()
    found = reply.status, reply.read().decode(), reply.headers
    connection.close()
    return found


def test_what_a_model_wrote_cannot_act_on_the_page(server: AuditServer) -> None:
    status, page, headers = ask(server, "GET", f"/{server.token}/0")
    assert status == 200
    assert "<script" not in page and "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page and "</pre> " not in page
    assert not {"\x1b", "\u202e", "\ud800"} & set(page)
    assert page.count('src="data:image/png;base64,') == 1 and "../secret.png cannot be shown" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"] and "script-src" not in str(headers)
    assert headers["Cache-Control"] == "no-store"


def test_only_who_has_the_address_gets_in(server: AuditServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    for path in ("/", "/0", f"/{server.token[:-1]}/0", f"/{server.token}x/0"):
        assert ask(server, "GET", path)[0] == 403
    assert ask(server, "GET", f"/{server.token}/0", host="rebound.example")[0] == 403
    assert ask(server, "POST", "/wrong/0", mark="fine")[0] == 403
    for path in ("3", "-1", "x", "0/../1", "%C2%B2", "99999999999"):
        assert ask(server, "GET", f"/{server.token}/{path}")[0] == 404
    assert ask(server, "POST", f"/{server.token}/0", mark="splendid")[0] == 400
    assert ask(server, "POST", f"/{server.token}/0", mark="fine" * 2000)[0] == 413
    assert server.audit.marks == {}


def test_marks_are_kept_at_once_and_an_audit_goes_on_where_it_ended(server: AuditServer) -> None:
    folder = RunFolder(server.run.path)
    status, _, headers = ask(server, "POST", f"/{server.token}/0", mark="label wrong")
    assert (status, headers["Location"]) == (303, f"/{server.token}/1")
    assert Audit(folder).marks == {Key(1, 0): "label wrong"}
    ask(server, "POST", f"/{server.token}/0", mark="fine")  # thought better of it
    ask(server, "POST", f"/{server.token}/2", mark="verdict wrong")
    with (folder.path / FILE).open("a") as file:
        file.write('{"step": 1, "line": 1, "ma')  # a crash
    later = Audit(folder)
    assert later.marks == {Key(1, 0): "fine", Key(1, 2): "verdict wrong"}
    later.mark(Key(1, 1), "fine")
    assert Audit(folder).marks[Key(1, 1)] == "fine"
    with AuditServer(server.run, Audit(folder)) as again:
        assert again.first_open() == 2 and "3 marked, all done" in again.page(2)


def test_oversampled_disagreements_do_not_move_the_estimate(make_run: Any) -> None:
    """900 responses in the control, 100 that judges disagree on; 10 marks in each.

    Labels: 1 of 10 wrong where they disagree, none in the control: 0.9 * 1 + 0.1 * 0.9 = 0.99; unweighted 0.95.
    Reward: 5 of 10 and 1 of 10 wrong: 0.9 * 0.9 + 0.1 * 0.5 = 0.86; unweighted 0.7.
    Effective marks: 1 / (0.81 / 10 + 0.01 / 10) = 12.195. Wilson by hand for 0.86: centre (0.86 + 3.8415 / 24.390) /
    1.31500 = 0.77376, half width 1.95996 * sqrt(0.1204 / 12.195 + 3.8415 / 594.88) / 1.31500 = 0.19051.
    """
    run = make_run([])
    keys = [(Key(1, line), "group" if line < 10 else "control") for line in range(20)]
    audit = Audit(RunFolder(run.path))
    audit.begin(Draw({"graders": 7, "group": 100, "parts": 0, "control": 900}, tuple(keys)))
    faults = {0: "label wrong", 1: "verdict wrong", 2: "verdict wrong", 3: "verdict wrong", 4: "verdict wrong"}
    faults |= {5: "verdict wrong", 19: "verdict wrong"}
    for key, _ in keys:
        audit.mark(key, faults.get(key.line, "fine"))
    found = Audit(RunFolder(run.path)).report()
    assert found.label.share == pytest.approx(0.99)
    assert found.reward.share == pytest.approx(0.86)
    assert (found.reward.low, found.reward.high) == pytest.approx((0.77376 - 0.19051, 0.77376 + 0.19051), abs=2e-4)
    assert found.left_out == ("graders",)
    printed = CliRunner().invoke(app, ["rewards", "audit", str(run.path), "--report"], catch_exceptions=False).stdout
    assert "label accuracy 99.0%" in printed and "reward accuracy 86.0%, 95 % interval 58.3% to 96.4%" in printed
    as_json = CliRunner().invoke(app, ["rewards", "audit", str(run.path), "--report", "--json"])
    assert json.loads(as_json.stdout)["strata"]["group"]["verdict wrong"] == 5


def test_without_marks_there_is_no_report(make_run: Any, tmp_path: Path) -> None:
    run = make_run([])
    with pytest.raises(RunFolderError, match="has no marks yet"):
        Audit(RunFolder(run.path)).report()
    (run.path / FILE).write_text('{"nothing": 1}\n')
    with pytest.raises(RunFolderError, match="does not begin with a draw"):
        Audit(RunFolder(run.path))
