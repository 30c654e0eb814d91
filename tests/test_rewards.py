"""Built-in rewards as tables of cases, and the contract between rewards and the scorer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import PluginError, RewardError
from hybrid_rl.records import Finish, Outcome, Rollout
from hybrid_rl.scoring import Scorer
from rewards.math_answer import math_answer
from rewards.mode_format import mode_format
from rewards.ocr_match import ocr_match
from rewards.repetition import Repetition


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("40215", "40215", 1),
        (" 40215\n", "40215", 1),
        ("４０２１５", "40215", 1),
        ("line one\nline  two", "line one line two", 1),
        ("040215", "40215", 0),
        ("4 0 2 1 5", "40215", 0),
        ("4021", "40215", 0),
        ("", "40215", 0),
        ("Total", "total", 1),
    ],
)
def test_ocr_match(answer: str, gold: str, expected: float) -> None:
    assert ocr_match(answer, gold) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("27", "27", 1),
        ("+27", "27", 1),
        ("27.0", "27", 1),
        (r"\frac{1}{2}", "0.5", 1),
        ("1/2", "0.5", 1),
        ("72", "27", 0),
        ("27 or 28", "27", 0),
        ("2 7", "27", 0),
        ("4+0=4+2=6", "6", 0),
        ("4+0+2", "6", 0),
        ("7=6", "6", 0),
        ("x=6", "6", 0),
        (r"6\text{abc}", "6", 0),
        ("-6", "-6.0", 1),
        ("x+1", "1+x", 1),
        ("", "27", 0),
        ("x" * 300, "27", 0),
        ("9^9^9^9", "27", 0),
        ("(9**9)**9999999", "27", 0),
        ("100000!", "27", 0),
        ("9" * 5000, "27", 0),
        ("__import__('os').system('false')", "27", 0),
        ("123456789012345678901234567890", "123456789012345678901234567891", 0),
    ],
)
def test_math_answer(answer: str, gold: str, expected: float) -> None:
    assert math_answer(answer, gold) == expected


@pytest.mark.parametrize(
    ("well_formed", "wants_thought", "thought", "answer", "expected"),
    [
        (True, False, "", "7", 1),
        (True, True, "3+4", "7", 1),
        (True, True, "", "7", 0),
        (False, True, "3+4", "7", 0),
        (True, False, "", "", 0),
        (False, True, "3+4", None, 0),
    ],
)
def test_mode_format(well_formed: bool, wants_thought: bool, thought: str, answer: str | None, expected: float) -> None:
    assert mode_format(well_formed, wants_thought, thought, answer) == expected


def test_repetition_finds_loops_and_leaves_text_alone() -> None:
    detector = Repetition(window=4, limit=3)
    assert detector([1, 2, 3, 4] * 3) == -1
    assert detector([1, 2, 3, 4] * 2) == 0
    assert detector(list(range(100))) == 0
    assert detector([]) == 0


# --- the scorer ------------------------------------------------------------------------------------------------

PLUGIN = """
def constant(gold): return 0.5
def abstains(text): return None
def broken(answer): raise KeyError("lost")
def not_a_number(text): return float("nan")
def words(text): return "much"
def too_high(text): return 2.0
def by_position(answer, /): return 1.0
def asks_for_column(answer, height): return float(height)
async def later(answer): return 1.0
class Scaled:
    def __init__(self, factor): self.factor = factor
    def __call__(self, answer, gold): return self.factor * (answer == gold)
value = 3
"""


@pytest.fixture
def scorer(tmp_path: Path) -> Callable[..., Scorer]:
    (tmp_path / "mine.py").write_text(PLUGIN)

    def make(**parts: Any) -> Scorer:
        config = {
            name: RewardConfig(**({"target": f"mine.py:{part}"} if isinstance(part, str) else part))
            for name, part in parts.items()
        }
        return Scorer(config, [str(tmp_path)], {"short": False, "long": True})

    return make


def test_parts_are_weighted_and_kept_unweighted(
    scorer: Callable[..., Scorer], make_rollout: Callable[..., Rollout]
) -> None:
    mine = scorer(
        accuracy={"target": "mine.py:Scaled", "args": {"factor": 1.0}, "weight": 2.0},
        style={"target": "mine.py:constant", "weight": 0.1},
    )
    score = mine.score(make_rollout(answer="12", gold="12"))
    assert score.outcome is Outcome.OK
    assert dict(score.parts) == {"accuracy": 1.0, "style": 0.5}
    assert score.value == pytest.approx(2.05)


def test_without_an_answer_a_reward_on_the_answer_is_zero(
    scorer: Callable[..., Scorer], make_rollout: Callable[..., Rollout]
) -> None:
    """It is not even called: `broken` would raise."""
    assert scorer(accuracy="broken").score(make_rollout(answer=None)).parts["accuracy"] == 0.0


def test_a_part_for_other_tasks_is_left_out_and_an_abstention_is_no_zero(
    scorer: Callable[..., Scorer], make_rollout: Callable[..., Rollout]
) -> None:
    mine = scorer(accuracy="constant", extra={"by_task": {"sum": "mine.py:constant"}})
    assert set(mine.score(make_rollout(task="read")).parts) == {"accuracy"}
    assert set(mine.score(make_rollout(task="sum")).parts) == {"accuracy", "extra"}
    assert scorer(accuracy="abstains").score(make_rollout()).outcome is Outcome.ABSTAIN


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("broken", "failed: KeyError"),
        ("not_a_number", "returned nan"),
        ("words", "returned 'much'"),
        ("too_high", "between 0 and 1"),
    ],
)
def test_a_failing_reward_stops_the_run_and_names_the_sample(
    scorer: Callable[..., Scorer], make_rollout: Callable[..., Rollout], part: str, message: str
) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        scorer(accuracy=part).score(make_rollout(group="p/short@3"))
    assert "p/short@3" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("missing", "has no 'missing'; it has"),
        ("constnat", "has no 'constnat'; did you mean 'constant'"),
        ("by_position", "called by parameter name"),
        ({"target": "mine.py:later", "runs_in": "pool"}, "is async"),
        ({"target": "mine.py:constant", "runs_in": "async"}, "is not async"),
        ("value", "not callable"),
        ({"target": "mine.py:Scaled"}, "missing a required argument: 'factor'"),
        ({"target": "mine.py:Scaled", "args": {"faktor": 1}}, "unexpected keyword argument 'faktor'|missing"),
        ({"target": "mine.py:constant", "args": {"x": 1}}, "takes no args"),
        ({"target": "nowhere.py:x"}, "there is no file"),
        ({"target": "no_such_module_here:x"}, "does not import"),
        ({"target": "nothing"}, "write module:name or file.py:name"),
    ],
)
def test_a_reward_that_cannot_be_used_is_refused_at_start(
    scorer: Callable[..., Scorer], part: Any, message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        scorer(accuracy=part)


def test_a_reward_may_ask_for_a_column_and_is_refused_where_there_is_none(
    scorer: Callable[..., Scorer], make_rollout: Callable[..., Rollout]
) -> None:
    mine = scorer(accuracy="asks_for_column")
    with_column = make_rollout(columns={"height": 1})
    mine.check(with_column.request.prompt)
    assert mine.score(with_column).value == 1.0
    with pytest.raises(PluginError, match="asks for 'height'"):
        mine.check(make_rollout().request.prompt)


def test_well_formed_means_ended_and_in_the_form_of_the_mode(make_rollout: Callable[..., Rollout]) -> None:
    assert make_rollout().well_formed
    assert not make_rollout(finish=Finish.LENGTH).well_formed
    assert not make_rollout(leaked=True).well_formed
