"""`hybrid-rl rewards audit` on a run that was really trained: drawn, marked on the page, reported."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from typer.testing import CliRunner

import hybrid_rl
from hybrid_rl.authoring.audit import FILE
from hybrid_rl.authoring.audit_judges import judging_parts
from hybrid_rl.authoring.audit_page import AuditServer
from hybrid_rl.cli.main import app
from hybrid_rl.config import Config, dump_config

PARTS = [
    "rewards.near={target: edit_similarity, weight: 0.1}",
    "rewards.liked={target: 'mine.py:liked', weight: 0.1}",
]


def ask(server: AuditServer, method: str, path: str, body: str | None = None) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, body)
    reply = connection.getresponse()
    found = reply.status, reply.read().decode(), reply.headers.get("Location", "")
    connection.close()
    return found


def marked_by_hand(pages: list[str]) -> Callable[[AuditServer], None]:
    """Instead of serving for ever: serve, look at every page as a browser would, mark it, and press Ctrl-C."""
    serve = AuditServer.serve_forever

    def visit(server: AuditServer) -> None:
        thread = threading.Thread(target=serve, args=(server,), kwargs={"poll_interval": 0.01})
        thread.start()
        path = urlsplit(server.url).path
        try:
            for number in range(len(server.keys)):
                status, page, _ = ask(server, "GET", path)
                assert status == 200
                pages.append(page)
                mark = "verdict wrong" if number == 0 else "fine"
                status, _, path = ask(
                    server, "POST", f"/{server.token}/{server.first_open()}", urlencode({"mark": mark})
                )
                assert status == 303
        finally:
            server.shutdown()
            thread.join()
        raise KeyboardInterrupt

    return visit


def test_a_trained_run_is_audited_from_the_draw_to_the_report(
    small_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def liked(answer): return len(answer) / 100\n")
    brief = ["warmup=null", "run.steps=1", "evaluation.before=false", "evaluation.after=false"]
    brief += ["train.prompts_per_step=2"]
    config = small_config(*brief, *PARTS, f"search=[{tmp_path}]")
    hybrid_rl.run(config)
    run = Path(config.run.dir or "")
    assert judging_parts(hybrid_rl.load_config(run / "config.yaml")) == ["near"], "the one that looks at the reference"

    pages: list[str] = []
    monkeypatch.setattr(AuditServer, "serve_forever", marked_by_hand(pages))
    command = ["rewards", "audit", str(run), "--samples", "6", "--second", "rewards.text_exact:exact"]
    printed = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert "6 responses drawn" in printed and "http://127.0.0.1:" in printed and "reward accuracy" in printed
    rows = [json.loads(line) for path in sorted((run / "rollouts").iterdir()) for line in path.read_text().splitlines()]
    draw, *marks = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    judged = sum("accuracy" in row["parts"] for row in rows)
    assert sum(draw["population"].values()) == judged > 0
    assert [mark["mark"] for mark in marks] == ["verdict wrong", *["fine"] * 5]
    # Each page shows the response that the draw names, with its reference and its picture.
    for page, key in zip(pages, draw["chosen"], strict=True):
        row = rows[[r["step"] for r in rows].index(key["step"]) + key["line"]]
        assert row["gold"] in page and 'src="data:image/png;base64,' in page

    report = CliRunner().invoke(app, ["rewards", "audit", str(run), "--report", "--json"], catch_exceptions=False)
    found = json.loads(report.stdout)
    assert found["label_accuracy"]["share"] == 1.0 and found["reward_accuracy"]["share"] < 1.0
    assert found["reward_accuracy"]["low"] < found["reward_accuracy"]["share"] < found["reward_accuracy"]["high"]


def test_a_second_grader_that_cannot_be_asked_is_named(
    small_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config()
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(dump_config(config))
    for target, sentence in (
        ("rewards.likelihood:Likelihood", "asks for the policy, which only a run has"),
        ("rewards.length_shaping:l1_max", "which a run does not record"),
        ("rewards.math_answer:math_anser", "math_answer"),
    ):
        found = CliRunner().invoke(app, ["rewards", "audit", str(tmp_path / "run"), "--second", target])
        assert found.exit_code != 0 and sentence in str(found.exception), found.exception
