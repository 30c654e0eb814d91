"""What the metrics and warnings say about the parts of the reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_groups

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.insight.part_metrics import advantage_shares, part_metrics
from hybrid_rl.insight.part_watch import PartWatch
from hybrid_rl.insight.recorded import read_run
from hybrid_rl.records import Outcome, Rollout, Score

Make = Callable[..., Rollout]


def score(accuracy: float, style: float, ms: float = 1.0) -> Score:
    return Score(
        value=accuracy + 0.5 * style,
        parts={"accuracy": accuracy, "style": style},
        outcomes={"accuracy": Outcome.OK, "style": Outcome.OK},
        terms={"accuracy": accuracy, "style": 0.5 * style},
        seconds={"accuracy": ms / 1e3, "style": 0.0},
    )


def groups(make_rollout: Make, scores: list[Score], **further: str) -> list[Group]:
    rollouts = [make_rollout(**further) for _ in scores]
    rollouts = [replace(r, request=replace(r.request, index=i)) for i, r in enumerate(rollouts)]
    return make_groups(rollouts, scores, eps=1e-4, min_std=1e-6)


def test_shares_of_the_advantage_by_hand(make_rollout: Make) -> None:
    # accuracy 1, 0 lies 0.5 from its mean; style 0, 1 at weight 0.5 lies 0.25 from its mean, and pulls the other way.
    found = advantage_shares(groups(make_rollout, [score(1.0, 0.0), score(0.0, 1.0)]))
    assert found == {"accuracy": pytest.approx(2 / 3), "style": pytest.approx(1 / 3)}


def test_a_part_that_is_the_same_for_all_decides_nothing(make_rollout: Make) -> None:
    assert advantage_shares(groups(make_rollout, [score(1.0, 1.0), score(0.0, 1.0)])) == {"accuracy": 1.0, "style": 0.0}
    assert advantage_shares(groups(make_rollout, [score(1.0, 1.0), score(1.0, 1.0)])) == {}


def test_figures_of_a_part_over_all_and_by_source(make_rollout: Make) -> None:
    both = [
        *groups(make_rollout, [score(1.0, 0.0, ms=2.0), score(0.0, 1.0, ms=4.0)], source="a", group="a"),
        *groups(make_rollout, [score(1.0, 1.0), score(1.0, 0.0)], source="b", group="b"),
    ]
    found = part_metrics(both, "short")
    assert found["part/accuracy/short"] == 0.75
    assert found["part_std/accuracy/short"] == pytest.approx(0.5)
    assert found["part_ms/accuracy/short"] == pytest.approx(2.0)
    assert found["part_ms_max/accuracy/short"] == pytest.approx(4.0)
    assert found["source/a/part/accuracy/short"] == 0.5 and found["source/b/part/accuracy/short"] == 1.0
    assert found["source/b/part_share/style/short"] == 1.0
    assert found["source/a/part_ms_max/accuracy/short"] == pytest.approx(4.0)
    assert not any(key.startswith("source/") for key in part_metrics(both[:1], "short"))


def row(mean: float, std: float, share: float) -> dict[str, float]:
    return {"part/style/long": mean, "part_std/style/long": std, "part_share/style/long": share}


def test_a_part_that_says_the_same_to_everyone_is_named_once() -> None:
    watch = PartWatch(["accuracy", "style"], ["long"])
    said = [watch.step(row(1.0, 0.0, 0.0)) for _ in range(40)]
    assert [len(sentences) for sentences in said].index(1) == 19  # not before it has been so for 20 steps
    assert "rewards.style has given every response in mode long nearly the same value" in said[19][0]
    assert sum(map(len, said)) == 1


def test_a_penalty_that_nobody_earns_is_no_cause_for_alarm_but_accuracy_zero_is() -> None:
    watch = PartWatch(["accuracy", "style"], ["long"])
    assert not any(watch.step(row(0.0, 0.0, 0.0)) for _ in range(40))
    watch = PartWatch(["accuracy"], ["long"])
    assert any(watch.step({"part/accuracy/long": 0.0, "part_std/accuracy/long": 0.0}) for _ in range(40))


def test_a_part_that_decides_nearly_everything_is_named() -> None:
    watch = PartWatch(["accuracy", "style"], ["long"], past=[row(0.5, 0.5, 0.99)] * 19)
    assert "rewards.style has made up more than 95 % of the advantage" in watch.step(row(0.5, 0.5, 0.97))[0]
    assert not PartWatch(["accuracy", "style"], ["long"], past=[row(0.5, 0.5, 0.99)] * 19).step(row(0.5, 0.5, 0.9))
    accuracy = {"part/accuracy/long": 0.5, "part_std/accuracy/long": 0.5, "part_share/accuracy/long": 1.0}
    assert not PartWatch(["accuracy", "style"], ["long"], past=[accuracy] * 19).step(accuracy)


def test_a_resumed_run_does_not_repeat_what_was_said() -> None:
    first = PartWatch(["accuracy", "style"], ["long"], past=[row(1.0, 0.0, 0.0)] * 19)
    (sentence,) = first.step(row(1.0, 0.0, 0.0))
    again = PartWatch(["accuracy", "style"], ["long"], past=[row(1.0, 0.0, 0.0)] * 20, said=[sentence])
    assert again.step(row(1.0, 0.0, 0.0)) == []


def test_the_report_has_a_row_for_each_part_mode_and_source_and_shows_warnings(tmp_path: Path) -> None:
    import json

    from hybrid_rl.insight.part_table import part_rows
    from hybrid_rl.insight.report import write_report

    steps = [
        {"step": n, "reward/long": 0.1, **row(0.25, 0.5, 0.125), "part_ms/style/long": 3.0,
         "outcome/style/timeout/long": 2, "source/a<b/part/style/long": 0.5, "source/a<b/part_std/style/long": 0.25}
        for n in (1, 2)
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    warnings = [{"step": 2, "text": "rewards.style is <odd>"}]
    (tmp_path / "summary.json").write_text(json.dumps({"warnings": warnings, "eval": {}}))
    (tmp_path / "config.yaml").write_text("modes: {kinds: {long: {}}}\n")
    whole, part = part_rows(read_run(tmp_path))
    assert (whole.part, whole.source, whole.mean, whole.share, whole.outcomes) == ("style", "", 0.25, 0.125, (0, 4, 0))
    assert (part.source, part.mean, part.std, part.share) == ("a<b", 0.5, 0.25, None)
    html = write_report(tmp_path).read_text()
    assert "rewards.style is &lt;odd&gt;" in html and "share of |advantage|" in html and "a&lt;b" in html
