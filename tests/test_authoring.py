"""The commands for authors of rewards, as they meet them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hybrid_rl.authoring import case_reward, check
from hybrid_rl.authoring.cases import LabelledCase
from hybrid_rl.authoring.check import CheckedCase
from hybrid_rl.authoring.listing import list_rewards
from hybrid_rl.cli.main import app
from hybrid_rl.errors import DataError, UserError
from hybrid_rl.plugins import load
from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.verdict import Verdict

MINE = """
CATALOG = {"same": "grader.py:same", "share": "grader.py:share", "near": "grader.py:Near", "rude": "grader.py:rude"}
def final_answer(text):
    head, found, tail = text.rpartition("answer:")
    return tail.strip() if found else None
def same(answer, gold): return float(answer == gold)
def share(text, gold, choices=()): return len(set(text) & set(gold)) / 4 + len(choices)
class Near:
    def __init__(self, atol=0.0): self.atol = atol
    def __call__(self, answer, gold, offset=0.0): return float(abs(float(answer) + offset - float(gold)) <= self.atol)
def rude(answer, gold):
    if answer == "hang": 9 ** 9 ** 9
    return {"abstain": None, "raise": 1 / len(answer.replace("raise", ""))}.get(answer, 1.0)
"""


@pytest.fixture
def check_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    (tmp_path / "grader.py").write_text(MINE)
    monkeypatch.setattr(check, "CATALOG", "grader.py:CATALOG")
    monkeypatch.setattr(check, "_CASE_REWARD", f"{tmp_path}/case.py:Mine")
    # Scorers import afresh: the stand-in for the final answer is named in a class of its own.
    (tmp_path / "case.py").write_text(
        "from hybrid_rl.authoring import case_reward\n"
        f"case_reward.FINAL_ANSWER = {str(tmp_path / 'grader.py:final_answer')!r}\n"
        "Mine = case_reward.CaseReward\n"
    )

    def run(*rows: dict[str, Any], options: tuple[str, ...] = ()) -> Any:
        path = tmp_path / "cases.jsonl"
        path.write_text("\n".join(json.dumps({"id": f"c{i}", "kind": "k"} | row) for i, row in enumerate(rows)))
        found = CliRunner().invoke(app, ["rewards", "check", str(path), "--json", *options], catch_exceptions=False)
        return json.loads(found.stdout)

    return run


def case(metric: str, pred: Any, gold: Any, expected: Any, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "pred": pred, "gold": gold, "expected": expected, **more}


def test_check_counts_right_verdicts_by_metric(check_file: Callable[..., Any]) -> None:
    found = check_file(
        case("same", "7", "7", True),
        case("same", "8", "7", True),
        case("same", "7", "7", False),
        case("same", "so the answer: 7", "7", True, form="response"),
        case("same", "I do not know", "7", False, form="response"),
        case("share", "ab", "abcd", 0.5),
        case("share", "ab", "abcd", 0.55, tol=0.1),
        case("share", "ab", "abcd", 2.5, choices=["a", "b"]),
        case("share>=0.6", "ab", "abcd", False),
        case("near", "7.5", "7", True, params={"atol": 0.5, "of": "no use"}),
        case("near", "7.5", "7", True, params={"offset": -0.5}),
        case("share", "", "abcd", 0.75, pred_spec={"pre": "a", "unit": "b", "times": 9, "post": "c"}),
    )  # fmt: skip
    assert set(found) == {"cases", "by_metric", "all"}
    assert set(found["by_metric"]) == {"same", "share", "share>=0.6", "near"}
    same = found["by_metric"]["same"]
    assert (same["n"], same["accuracy"], same["false_positives"], same["false_negatives"]) == (5, 0.6, 1, 1)
    assert {m: found["by_metric"][m]["accuracy"] for m in ("share", "share>=0.6", "near")} == {
        "share": 1.0, "share>=0.6": 1.0, "near": 1.0,
    }  # fmt: skip
    assert set(found["all"]) == {
        "n", "accuracy", "false_positives", "false_negatives", "abstained", "p50_ms", "p99_ms", "max_ms",
    }  # fmt: skip
    assert set(found["cases"][0]) == {"id", "metric", "kind", "score", "outcome", "ms"}


def test_no_verdict_is_no_credit_and_is_counted_apart(check_file: Callable[..., Any]) -> None:
    rows = [case("rude", word, "7", expected) for word in ("abstain", "raise", "hang") for expected in (False, True)]
    found = check_file(*rows, options=("--timeout-s", "0.5"))
    outcomes = ["abstain", "abstain", "error", "error", "timeout", "timeout"]
    assert [row["outcome"] for row in found["cases"]] == outcomes
    assert [row["score"] for row in found["cases"]] == [None] * 6
    figures = found["all"]
    assert (figures["abstained"], figures["accuracy"], figures["false_negatives"]) == (6, 0.5, 3)
    assert figures["false_positives"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"id": "a", "pred": "1", "gold": "1", "metric": "same"}', "line 2 has no 'expected'"),
        ('{"id": "a", "gold": "1", "metric": "same", "expected": true}', "line 2 has no 'pred'"),
        ('{"id": "a", "pred": "1", "gold": "1", "metric": "same", "expected": "yes"}', "expected is 'yes'"),
        ('{"id": "a", "pred": "1", "gold": "1", "metric": "same>=x", "expected": true}', "written NAME>=0.5"),
        ('{"id": "a", "pred": "1", "gold": "1", "metric": "some", "expected": true}', "did you mean 'same'"),
    ],
)
def test_a_bad_file_is_one_sentence(check_file: Callable[..., Any], tmp_path: Path, line: str, message: str) -> None:
    good = json.dumps(case("same", "7", "7", True, id="good"))
    (tmp_path / "bad.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=message):
        CliRunner().invoke(app, ["rewards", "check", str(tmp_path / "bad.jsonl")], catch_exceptions=False)


@pytest.mark.parametrize(
    ("expected", "value", "error"),
    [(True, 0.5, 0), (True, 0.49, -1), (False, 0.5, 1), (0.25, 0.2509, 0), (0.25, 0.3, 0.05), (0.25, None, -0.25)],
)
def test_the_error_of_a_verdict(expected: bool | float, value: float | None, error: float) -> None:
    labelled = LabelledCase(id="c", kind="", label="m", metric="m", pred="", gold="", expected=expected)
    outcome = Outcome.ABSTAIN if value is None else Outcome.OK
    assert CheckedCase(labelled, Verdict(outcome, value)).error == pytest.approx(error)


def test_every_listed_built_in_loads() -> None:
    found = {listed.name: listed.summary for listed in list_rewards()}
    assert found["rewards.ocr_match:ocr_match"].startswith("1 if the answer shows the text of the reference")
    for name in found:
        if ":" in name:
            assert callable(load(name))


# --- new, test, check-data ---------------------------------------------------------------------------------------

CONFIG = """
data:
  sources:
    mine: {target: "hybrid_rl.data.files:FileSource", args: {path: rows.jsonl, eval_fraction: 0.5}}
modes:
  kinds:
    quick: {max_new_tokens: 8}
rewards:  # weighted
  accuracy: {target: "rewards.ocr_match:ocr_match"}
"""


def invoke(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["rewards", *arguments], catch_exceptions=False)
    return found.stdout


def test_a_new_reward_works_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    written = invoke("new", "same_words", "--config", "config.yaml").split()
    assert [Path(path).name for path in written] == ["same_words.py", "test_same_words.py", "config.yaml"]
    entered = yaml.safe_load((tmp_path / "config.yaml").read_text())["rewards"]
    assert entered["same_words"] == {"target": "same_words.py:same_words", "weight": 0.5}
    assert "# weighted" in (tmp_path / "config.yaml").read_text()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "same_words", raising=False)
    assert pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(tmp_path / "test_same_words.py")]) == 0
    with pytest.raises(UserError, match="exists already"):
        invoke("new", "same_words")
    with pytest.raises(UserError, match="no name for a reward"):
        invoke("new", "same-words")


def test_a_good_reward_passes_and_bad_ones_are_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.py").write_text(
        "import random\n"
        "def good(answer, gold): return float(answer.split() == gold.split())\n"
        "def evals(answer, gold):\n"
        "    try: return float(eval(answer) == eval(gold))\n"
        "    except Exception: return 0.0\n"
        "def generous(answer, gold): return float(gold in answer or not answer.strip())\n"
        "def moody(answer, gold): return random.random()\n"
        "def needs(answer, height): return 1.0\n"
    )
    assert " NO " not in invoke("test", "some.py:good")
    expected = {"evals": "code", "generous": "hacks", "moody": "gold, determinism", "needs": "contract"}
    for name, topics in expected.items():
        with pytest.raises(UserError, match=f"does not keep: .*{topics}"):
            invoke("test", f"some.py:{name}", "--gold", "42")


def test_references_without_full_marks_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "grader.py").write_text("def short(answer, gold): return float(len(answer) < 4 or int(answer))\n")
    rows = [{"prompt": "?", "gold": text} for text in ("1", "two", "three", "22")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "4 references, all with full marks" in invoke("check-data", "config.yaml")
    with pytest.raises(DataError, match="1 of 4 references do not get full marks"):
        invoke("check-data", "config.yaml", "rewards.accuracy={target: 'grader.py:short'}")


def test_the_final_answer_is_found_by_name() -> None:
    assert case_reward.FINAL_ANSWER == "rewards.final_answer:final_answer"


def test_a_reference_that_only_equals_itself_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`math_answer` knows the same characters again, and abstains on everything else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    rows = [{"prompt": "?", "gold": text} for text in ("3", "x+1", "the \\frac{1}{ of it")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="1 of 3 references do not get full marks"):
        invoke("check-data", "config.yaml", "rewards.accuracy={target: math_answer}")
