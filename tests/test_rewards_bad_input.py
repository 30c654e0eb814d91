"""`hybrid-rl rewards ...` on what cannot work: one sentence on standard error, exit code 2, no traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid_rl.bridges import TrlReward, VerlReward
from hybrid_rl.cli.main import main
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import PluginError
from hybrid_rl.scoring import Scorer

LIKELIHOOD = "rewards.likelihood:Likelihood"
MINE = """\
def nan(answer, gold): return float("nan")
def text(answer, gold): return "good"
def too_many(answer, gold): return [1.0, 2.0]
too_many.per = "group"
def pairs(answer, gold): return [float(a == g) for a, g in zip(answer, gold)]
pairs.per = "group"
async def waits(answer, gold): return float(answer == gold)
def asks(answer, policy): return 1.0
"""
GOOD = {"id": "a", "metric": "math", "gold": "7", "pred": "7", "expected": True}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one sentence of a refused command."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD))
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hybrid-rl", "rewards", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        lines = capfd.readouterr().err.splitlines()
        assert exit_.value.code == 2 and len(lines) == 1 and lines[0].startswith("hybrid-rl: "), lines
        return lines[0]

    return ask


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metric": "mth"}, "line 2: there is no metric 'mth'; did you mean 'math'?"),
        ({"metric": "zzz"}, "line 2: there is no metric 'zzz'; there are"),
        ({"metric": 5}, "line 2: metric is 5"),
        ({"metric": "math>=much"}, "a threshold is written NAME>=0.5"),
        ({"expected": "yes"}, "line 2: expected is 'yes'; it is true, false or a score"),
        ({"expected": float("nan")}, "line 2: expected is nan"),
        ({"tol": -1}, "line 2: tol is -1"),
        ({"form": "letter"}, "line 2: form is 'letter'"),
        ({"params": [1]}, "line 2: params is not an object"),
        ({"choices": "AB"}, "line 2: choices is not a list of texts"),
        ({"pred_spec": {"pre": "", "unit": "ab", "times": 10**12, "post": ""}}, "line 2: pred_spec"),
        ({"pred_spec": {"pre": ""}}, "line 2: pred_spec needs pre, unit, times and post"),
    ],
)
def test_a_case_with_a_wrong_field(said: Callable[..., str], change: dict[str, object], expected: str) -> None:
    Path("bad.jsonl").write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n")
    assert expected in said("check", "bad.jsonl")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read as a file of cases"), ("", "has no cases"), ("{}\n", "line 1 has no 'id'"),
     (f"{json.dumps(GOOD)}\n\n{{'id': 1}}\n", "line 3 is not JSON"), ("[]", "line 1 is not a JSON object")],
)  # fmt: skip
def test_a_file_that_is_none(said: Callable[..., str], content: str | None, expected: str) -> None:
    if content is not None:
        Path("cases.jsonl").write_text(content)
    assert expected in said("check", "cases.jsonl")


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (
            "mine.py:nan",
            "failed on every case; on .*good.jsonl, line 1 it returned nan; a reward returns a finite number",
        ),
        ("mine.py:text", "returned 'good'; a reward returns a finite number"),
        ("mine.py:too_many", "returned 2 entries for 1 responses"),
        ("mine.py:asks", "asks for the policy, which only a run has"),
        (LIKELIHOOD, "asks for the policy, which only a run has"),
        ("mine.py:nun", "did you mean 'nan'"),
        ("mth_answer", "did you mean 'math_answer'"),
        ("nowhere.py:f", "nowhere.py"),
    ],
)
def test_check_of_a_reward_that_cannot_be_right(said: Callable[..., str], reward: str, expected: str) -> None:
    import re

    assert re.search(expected, said("check", "good.jsonl", "--reward", reward))


@pytest.mark.parametrize("reward", ["mine.py:pairs", "mine.py:waits"])
def test_check_of_rewards_on_groups_and_of_async_ones(said: Callable[..., str], reward: str) -> None:
    from typer.testing import CliRunner

    from hybrid_rl.cli.main import app

    found = CliRunner().invoke(app, ["rewards", "check", "good.jsonl", "--reward", reward, "--json"])
    assert json.loads(found.stdout)["all"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mine.py:asks"], ["does not keep: contract", "only a run has", "hybrid-rl doctor CONFIG"]),
        ([LIKELIHOOD], ["asks for the policy", "hybrid-rl train CONFIG run.steps=1"]),
        (["mine.py:nan", "--gold", "7"], ["does not keep: gold"]),
        (["mine.py:too_many", "--gold", "7"], ["does not keep: "]),
        (["mine.py:nun"], ["did you mean 'nan'"]),
        (["math_answer", "--args", "[1"], ["--args is not a JSON object"]),
    ],
)
def test_rewards_test_says_why(said: Callable[..., str], arguments: list[str], expected: list[str]) -> None:
    sentence = said("test", *arguments)
    assert all(piece in sentence for piece in expected), sentence


@pytest.mark.parametrize("bridge", [TrlReward, VerlReward])
def test_no_other_trainer_lends_its_policy(bridge: type) -> None:
    with pytest.raises(PluginError, match="asks for the policy, which no other trainer lends") as caught:
        bridge(LIKELIHOOD)
    assert "column to the data" not in str(caught.value)


def test_an_unknown_baseline_mode_is_found_before_anything_starts() -> None:
    """The preflight asks every reward, with the names of the modes."""
    sure = RewardConfig(target=LIKELIHOOD, args={"baseline_mode": "shor"})
    expected = r"rewards\.sure: baseline_mode: there is no mode 'shor'; did you mean 'short'"
    with pytest.raises(PluginError, match=expected):
        Scorer({"sure": sure}, [], {"short": False, "long": True}).check_services()
