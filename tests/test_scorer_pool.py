"""Scorers in killable processes: what one bad case costs, and what it must not cost."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import PluginError, RewardError
from hybrid_rl.records import Outcome, Rollout
from hybrid_rl.scorer_pool.loading import RewardSpec
from hybrid_rl.scorer_pool.nursery import end_shared_nursery, scorer_environment
from hybrid_rl.scorer_pool.pool import Case, ScorerPool
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring import Scorer, refuse_errors

HERE = (str(Path(__file__).parent),)
SPECS = {name: RewardSpec(name, f"scorers.py:{name}", {}, HERE) for name in ("unruly", "lies", "secrets")}
LIMIT_S = 0.5
SLACK_S = 1.0


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ScorerPool]:
    pool = ScorerPool(SPECS, size=2, memory_mib=256, quarantine=tmp_path / "quarantine.jsonl")
    pool.run([Case("unruly", {"text": "started"})])
    yield pool
    pool.close()


def score(pool: ScorerPool, *texts: str) -> list[Verdict]:
    return pool.run([Case("unruly", {"text": text}, LIMIT_S) for text in texts])


@pytest.mark.parametrize("bad", ["hang", "sleep", "eat"])
def test_a_hung_or_greedy_scorer_costs_its_limit_and_nothing_else(pool: ScorerPool, bad: str) -> None:
    """`hang` is one long call into C, which no signal handler of Python's can leave."""
    began = time.monotonic()
    verdicts = score(pool, "a", "bb", bad, "dddd", "eeeee")
    assert time.monotonic() - began < LIMIT_S + SLACK_S
    assert [v.outcome for v in verdicts] == [Outcome.OK, Outcome.OK, Outcome.TIMEOUT, Outcome.OK, Outcome.OK]
    assert [v.value for v in verdicts] == [1.0, 2.0, None, 4.0, 5.0]
    assert pool.replaced == 1
    assert "took more than" in verdicts[2].reason
    assert score(pool, "again")[0].value == 5.0


def test_a_scorer_killed_from_outside_costs_no_score(pool: ScorerPool) -> None:
    """The case is scored again by another; only where that dies too is it the case's fault."""
    victim = int(score(pool, "whoami")[0].value or 0)
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    verdicts = pool.run([Case("unruly", {"text": "nap"}, 5.0), *(Case("unruly", {"text": "x" * i}) for i in range(40))])
    killer.join()
    assert [v.value for v in verdicts] == [3.0, *map(float, range(40))]
    died = score(pool, "die")[0]
    assert (died.outcome, died.reason) == (Outcome.ERROR, "failed: its process died, again and again")


def test_scorers_killed_while_idle_cost_no_score(pool: ScorerPool) -> None:
    for _ in range(4):
        os.kill(int(score(pool, "whoami")[0].value or 0), signal.SIGKILL)
    assert score(pool, "whoami", "four")[1].value == 4.0
    assert pool.replaced >= 3


@pytest.mark.parametrize(
    ("text", "outcome", "reason"),
    [
        ("raise", Outcome.ERROR, "failed: KeyError: 'grader'"),
        ("exit", Outcome.ERROR, "failed: SystemExit: 0"),
        ("nan", Outcome.ERROR, "returned nan; a reward returns a finite number, a Score, or None to abstain"),
        ("abstain", Outcome.ABSTAIN, "it abstained"),
    ],
)
def test_other_outcomes_cost_no_process(pool: ScorerPool, text: str, outcome: Outcome, reason: str) -> None:
    verdict = score(pool, text)[0]
    assert (verdict.outcome, verdict.value, verdict.reason) == (outcome, None, reason)
    assert pool.replaced == 0


def test_what_kills_twice_is_put_in_quarantine_and_remembered(pool: ScorerPool, tmp_path: Path) -> None:
    assert [v.outcome for v in score(pool, "sleep", "sleep")] == [Outcome.TIMEOUT, Outcome.TIMEOUT]
    row = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert row["arguments"] == {"text": "sleep"} and row["reward"] == "unruly"
    began = time.monotonic()
    assert score(pool, "sleep")[0].outcome is Outcome.ABSTAIN
    later = ScorerPool(SPECS, quarantine=tmp_path / "quarantine.jsonl")
    assert score(later, "sleep")[0].outcome is Outcome.ABSTAIN
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.parametrize(
    "frame",
    [
        b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",  # a pickle
        b'{"value": 1.0, "seconds": 0.0}' + b" " * 100,
        b'{"value": NaN, "seconds": 0}',
        b'{"value": true, "seconds": 0}',
        b"[1]",
        b"[" * 60_000,
        b"",
    ],
)
def test_a_scorer_that_was_taken_over_cannot_reach_the_parent(pool: ScorerPool, frame: bytes) -> None:
    """Its bytes are read as JSON of one form or not at all; what breaks the form costs it its life."""
    message = (len(frame).to_bytes(8, "big") + frame).decode("latin-1")
    verdicts = pool.run([Case("lies", {"text": message}), Case("unruly", {"text": "four"})])
    assert verdicts[0].outcome in (Outcome.OK, Outcome.ERROR)
    assert verdicts[0].value in (None, 0.0, 1.0)
    assert verdicts[1].value == 4.0
    assert score(pool, "still right")[0].value == 11.0


def test_a_scorer_that_announces_a_flood_is_replaced(pool: ScorerPool) -> None:
    verdict = pool.run([Case("lies", {"text": (1 << 40).to_bytes(8, "big").decode("latin-1")})])[0]
    assert verdict.outcome is Outcome.ERROR
    assert pool.replaced == 2


def test_no_secret_is_inherited(pool: ScorerPool) -> None:
    kept = scorer_environment({"PATH": "/bin", "OPENAI_API_KEY": "s3cret", "MY_OWN_WORD_FOR_IT": "s3cret"})
    assert kept["PATH"] == "/bin" and "s3cret" not in kept.values()
    assert pool.run([Case("secrets", {"text": "PYTEST"})])[0].value == 0.0


def test_a_reward_that_does_not_load_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text("import sys\nif '-c' in sys.argv: sys.exit(5)\ndef f(answer): return 1.0\n")
    pool = ScorerPool({"picky": RewardSpec("picky", "picky.py:f", {}, (str(tmp_path),))})
    with pytest.raises(PluginError, match=r"rewards.picky: 'picky.py:f' does not load in a scorer"):
        pool.run([Case("picky", {"answer": "1"})])


def make_scorer(**part: object) -> Scorer:
    config = {"accuracy": RewardConfig(target="scorers.py:at_most_one", timeout_s=LIMIT_S, **part)}  # type: ignore[arg-type]
    return Scorer(config, HERE, {"short": False, "long": True})


def test_in_training_a_timeout_leaves_the_group_and_the_other_scores_alone(
    make_rollout: Callable[..., Rollout],
) -> None:
    answers = ["1", "sleep", "0.5", "abstain"]
    scores = make_scorer().score_all([make_rollout(answer=answer) for answer in answers])
    assert [score.outcome.value for score in scores] == ["ok", "timeout", "ok", "abstain"]
    assert [score.value for score in scores] == [1.0, 0.0, 0.5, 0.0]
    assert scores[1].parts == {} and scores[1].outcomes == {"accuracy": Outcome.TIMEOUT}


def test_a_run_stops_where_a_reward_fails_on_more_than_its_share(make_rollout: Callable[..., Rollout]) -> None:
    rollouts = [make_rollout(answer=answer, group=f"{answer}/short@3") for answer in ("1", "raise", "1", "0.5")]
    with pytest.raises(RewardError, match=r"rewards.accuracy .* to raise/short@3 failed: KeyError: 'grader'"):
        make_scorer().score_all(rollouts)
    scores = make_scorer(max_error_share=0.3).score_all(rollouts)
    assert [score.outcome for score in scores].count(Outcome.ERROR) == 1
    refuse_errors(scores, {"accuracy": 0.25})
    with pytest.raises(RewardError, match=r"to raise/short@3 failed: .* on 1 of 4 responses, more than .* = 0.2"):
        refuse_errors(scores, {"accuracy": 0.2})


def test_inline_and_pool_give_the_same_numbers(make_rollout: Callable[..., Rollout]) -> None:
    rollouts = [make_rollout(answer=str(i / 7)) for i in range(7)]
    inline, pooled = (make_scorer(runs_in=place).score_all(rollouts) for place in ("inline", "pool"))
    assert [(score.value, score.parts) for score in inline] == [(score.value, score.parts) for score in pooled]


def test_a_pool_outlives_the_end_of_its_nursery(pool: ScorerPool) -> None:
    first = int(score(pool, "whoami")[0].value or 0)
    end_shared_nursery()
    end_shared_nursery()  # there is none
    assert score(pool, "whoami")[0].value not in (None, first)
