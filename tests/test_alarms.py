"""Alarms and the leak meter: what goes wrong in a mode is seen, said once, and stops the run where it is to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_groups

import hybrid_rl
from hybrid_rl.config import Config
from hybrid_rl.config.alarms import AlarmsConfig
from hybrid_rl.errors import AlarmStop
from hybrid_rl.insight.alarms import AlarmWatch
from hybrid_rl.insight.thought_metrics import Markers, thought_metrics
from hybrid_rl.records import Finish, Rollout, Score
from hybrid_rl.train import resume

MARKERS = Markers(AlarmsConfig().markers)


# --- the leak meter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Wait, let me check that. Hmm.", 3),
        ("The waiter waited; a waiting room.", 0),
        ("let\n me  double-check", 1),  # one marker, not two
        ("等等，让我想想", 2),
        ("12", 0),
    ],
)
def test_markers_are_whole_words_in_any_case(text: str, count: int) -> None:
    assert MARKERS.count(text) == count


def measured(*rollouts: Rollout) -> dict[str, float]:
    groups = make_groups(rollouts, [Score(value=1.0)] * len(rollouts), eps=1e-4, min_std=1e-6)
    thoughts: Any = {"short": "closed", "long": "opened"}
    return thought_metrics(groups, thoughts, MARKERS)


def test_thought_in_a_mode_without_it_is_seen_in_tags_and_outside(make_rollout: Callable[..., Rollout]) -> None:
    found = measured(
        make_rollout(),
        make_rollout(text="Wait. 12", answer="Wait. 12"),
        make_rollout(text="3+4</think>12", thought="3+4", leaked=True),
        make_rollout(text="Hmm</think>Hmm, 12", answer="Hmm, 12", leaked=True),
    )
    assert found["leaked_thought/short"] == 0.75
    assert found["visible_thought/short"] == 0.5
    assert found["reflections_per_1k/short"] == 250.0  # three in twelve tokens
    assert "empty_thought/short" not in found


def test_a_thought_may_doubt_itself_and_an_empty_one_is_counted(make_rollout: Callable[..., Rollout]) -> None:
    found = measured(
        make_rollout(mode="long", text="wait</think>12", thought="wait", answer="12"),
        make_rollout(mode="long", text="\n</think>12", thought="", answer="12", finish=Finish.BUDGET),
    )
    assert found["visible_thought/long"] == 0.0
    assert found["empty_thought/long"] == 0.5
    assert found["closed_by_budget/long"] == 0.5
    assert "leaked_thought/long" not in found


# --- alarms ----------------------------------------------------------------------------------------------------------


def watch(**alarms: Any) -> AlarmWatch:
    return AlarmWatch(AlarmsConfig.model_validate(alarms), ["short", "long"])


GOOD = {
    "leaked_thought/short": 0.0, "tokens/short": 4.0, "empty_thought/long": 0.0, "reflections_per_1k/long": 3.0,
    "share/short": 0.5, "share/long": 0.5, "share_asked/short": 0.5, "share_asked/long": 0.5,
    "entropy/short": 0.4, "entropy/long": 0.4, "truncated/short": 0.0, "truncated/long": 0.02,
    "zero_variance/short": 0.5, "zero_variance/long": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "alarm", "words"),
    [
        ({"leaked_thought/short": 0.3}, "leaked_thought", ["mode short", "30 %", "length"]),
        ({"tokens/short": 14.0}, "length_drift", ["mode short", "3.5 times", "max_new_tokens"]),
        ({"empty_thought/long": 0.6}, "empty_thought", ["mode long", "60 %"]),
        ({"reflections_per_1k/long": 55.0}, "reflection", ["mode long", "55.0", "max_think_tokens"]),
        ({"entropy/long": 0.01}, "entropy", ["mode long", "2 %", "clip_high"]),
        ({"truncated/long": 0.4}, "truncation", ["mode long", "40 %", "max_new_tokens"]),
        ({"zero_variance/short": 0.95}, "zero_variance", ["mode short", "95 %"]),
        ({"share/short": 0.3, "share/long": 0.7}, "mode_share", ["mode short", "20 %"]),
    ],
)
def test_each_alarm_is_raised_once_a_mode_and_says_what_to_change(
    bad: dict[str, float], alarm: str, words: list[str]
) -> None:
    names = [name for name in AlarmsConfig.model_fields if name not in ("markers", "blind_accuracy")]
    watched = watch(**{name: {"window_steps": 1} for name in names})
    assert [a for _ in range(5) for a in watched.step(GOOD)] == []
    found = watched.step(GOOD | bad)
    assert {a.name for a in found} == {alarm}
    assert all(word in found[0].text for word in words), found[0].text
    assert found[0].text.startswith(f"alarms.{alarm}: ")
    assert [a for _ in range(5) for a in watched.step(GOOD | bad)] == []


def test_an_alarm_is_raised_when_the_mean_over_its_window_is_there() -> None:
    watched = watch()  # truncation: 0.3 over ten steps
    raised = [len(watched.step(step)) for step in [GOOD] * 10 + [GOOD | {"truncated/long": 0.5}] * 10]
    # (5 x 0.5 + 5 x 0.02) / 10 is not yet 0.3; one more is.
    assert raised == [0] * 15 + [1] + [0] * 4


def test_one_bad_step_in_a_window_is_no_alarm() -> None:
    watched = watch()
    steps = [GOOD] * 20 + [GOOD | {"truncated/long": 1.0}] + [GOOD] * 20
    assert [a for step in steps for a in watched.step(step)] == []


def test_thresholds_windows_actions_and_null_come_from_the_config() -> None:
    watched = watch(truncation={"threshold": 0.01, "window_steps": 2, "action": "stop"}, leaked_thought=None)
    assert watched.step(GOOD | {"leaked_thought/short": 1.0}) == []
    (alarm,) = watched.step(GOOD | {"leaked_thought/short": 1.0})
    assert (alarm.name, alarm.mode, alarm.action) == ("truncation", "long", "stop")


def test_a_mode_that_no_step_has_has_no_share() -> None:
    watched = watch(mode_share={"window_steps": 2})
    lopsided = {"share/short": 1.0, "share_asked/short": 0.5, "share_asked/long": 0.5}
    assert watched.step(lopsided) == []
    assert {a.mode for a in watched.step(lopsided)} == {"short", "long"}


def test_a_mode_that_comes_later_is_compared_with_its_own_first_steps() -> None:
    """A ratio that begins at 0: the mode is not there when the run begins."""
    without = {key: value for key, value in GOOD.items() if not key.endswith("/short")}
    watched = watch(length_drift={"window_steps": 2}, entropy={"window_steps": 2})
    assert [a for row in [without] * 3 + [GOOD] * 4 for a in watched.step(row)] == []
    drifted = GOOD | {"tokens/short": 16.0, "entropy/short": 0.01}
    raised = {a.name for row in [drifted] * 2 for a in watched.step(row)}
    assert raised == {"length_drift", "entropy"}


def test_a_resumed_run_knows_its_steps_and_its_alarms() -> None:
    bad = GOOD | {"truncated/long": 0.4}
    fresh = AlarmWatch(AlarmsConfig(), ["long"], [bad] * 9)
    assert [a.name for a in fresh.step(bad)] == ["truncation"]
    again = AlarmWatch(AlarmsConfig(), ["long"], [bad] * 30, raised=[("truncation", "long")])
    assert again.step(bad) == []


def evaluated(blind: float, sighted: float) -> dict[str, float]:
    return {"eval/blind_accuracy/long": blind, "eval/image_gap/long": sighted - blind}


@pytest.mark.parametrize(
    ("blind", "sighted", "raised"),
    [
        (0.30, 0.60, True),  # blind +20, gap 40 -> 30
        (0.30, 0.80, False),  # blind up, but so is what the images add
        (0.10, 0.40, False),  # the gap closes because sight gets worse
        (0.12, 0.50, False),  # too little
    ],
)
def test_blind_accuracy_that_rises_while_the_gap_closes(blind: float, sighted: float, raised: bool) -> None:
    watched = watch()
    assert watched.evaluation(0, evaluated(0.1, 0.5)) == []
    assert watched.evaluation(5, {"eval_set/hard/accuracy/long": 0.1}) == []
    found = watched.evaluation(10, evaluated(blind, sighted))
    assert [a.name for a in found] == (["blind_accuracy"] if raised else [])
    assert all("without looking" in a.text and "mode long" in a.text for a in found)


# --- a run that drifts -----------------------------------------------------------------------------------------------

REWARD = """
def thinks_aloud(answer: str) -> float:
    return float("wait" in answer)
"""


@pytest.fixture
def drifting(tmp_path: Path, small_config: Callable[..., Config]) -> Callable[..., Config]:
    """A run whose reward pays for visible thought in a mode that asks for none; after a warm-up that shows it at times.

    Text only and one short question that the data answer in two ways: the steps take fractions of a second.
    """
    (tmp_path / "aloud.py").write_text(REWARD)
    rows = [{"prompt": "Read the digits", "gold": "wait 7" if i % 4 == 0 else "7"} for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"target": "hybrid_rl.data.files:FileSource"}
    source |= {"args": {"path": str(tmp_path / "rows.jsonl"), "eval_fraction": 0.25}}  # type: ignore[dict-item]
    kinds = {"short": {"template_args": {"enable_thinking": False}, "max_new_tokens": 10}}
    warmup = {"steps": 30, "batch_size": 16, "warmup_steps": 3, "cache": False, "sources": {"rows": source}}
    warmup["optimizer"] = {"learning_rate": 3e-3}

    def make(*overrides: str) -> Config:
        return small_config(
            f"data.sources={json.dumps({'rows': source})}",
            f"warmup={json.dumps(warmup)}",
            "modes.long_ratio=null",
            f"modes.kinds={json.dumps(kinds)}",
            f"rewards={json.dumps({'accuracy': {'target': f'{tmp_path}/aloud.py:thinks_aloud', 'runs_in': 'inline'}})}",
            "checkpoints={every_steps: 100}",
            "evaluation={before: false, after: false}",
            "train.responses_per_prompt=8",
            "train.optimizer.learning_rate=3e-3",
            "run.steps=12",
            *overrides,
        )

    return make


def test_a_run_whose_short_mode_drifts_into_visible_thought_raises_the_alarm_and_stops(
    drifting: Callable[..., Config], tmp_path: Path
) -> None:
    config = drifting("alarms.leaked_thought={threshold: 0.6, window_steps: 2, action: stop}")
    with pytest.raises(AlarmStop, match=r"mode short asks for no thought.*--resume") as error:
        hybrid_rl.run(config)
    run = tmp_path / "run"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    visible = [row["visible_thought/short"] for row in metrics]
    assert visible[0] < 0.6 <= sum(visible[-2:]) / 2, visible
    assert len(metrics) < 12
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "stopped"
    (warning,) = [w for w in summary["warnings"] if w.get("alarm") == "leaked_thought"]
    assert warning["step"] == len(metrics) and warning["mode"] == "short"
    assert warning["text"] in str(error.value)
    assert "asks for no thought" in (run / "report.html").read_text()
    # The weights of the last step are there, and whoever goes on regardless is not stopped by the same alarm again.
    assert (run / "checkpoints" / f"step_{len(metrics):06d}").is_dir()
    assert resume(run)["status"] == "completed"
