"""Scoring begins when a rollout finishes: in any order and any parcels, the scores are those of the whole batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, SMALL
from test_run import BARE, assert_same_run, metrics, rows

import hybrid_rl
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import RewardError
from hybrid_rl.records import Outcome, Rollout, Score
from hybrid_rl.scoring import Scorer, place_rewards
from hybrid_rl.scoring.stages import stages_of
from hybrid_rl.workers.cluster import InProcess, LocalCluster
from hybrid_rl.workers.flight import StreamedFlight
from hybrid_rl.workers.outbox import Judges, Outbox
from hybrid_rl.workers.pool import RewardPool
from hybrid_rl.workers.reward import Judged
from hybrid_rl.workers.rollout import Streamed

GRADERS = """
import asyncio
def inline(function):
    function.runs_in = "inline"
    return function
@inline
def length(ids): return float(len(ids))
async def later(ids):
    await asyncio.sleep(0)
    return float(sum(ids))
@inline
def sometimes(ids): return None if len(ids) % 3 == 0 else 1.0
@inline
def strict(ids):
    if len(ids) == 4: raise ValueError("four")
    return 0.0
@inline
def longest(ids): return [float(len(i) == max(map(len, ids))) for i in ids]
longest.per = "group"
@inline
def share(ids): return [len(i) / sum(map(len, ids)) for i in ids]
share.per = "batch"
def asks(ids, mode, policy): return float(len(policy.format.stop_ids(mode)))
"""


@pytest.fixture(scope="module")
def graders(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("graders")
    (folder / "mine.py").write_text(GRADERS)
    return str(folder)


def parts_of(*names: str, **options: dict[str, Any]) -> dict[str, RewardConfig]:
    return {n: RewardConfig(target=f"mine.py:{n}", weight=0.5 + i, **options.get(n, {})) for i, n in enumerate(names)}


ALL = parts_of(
    "length", "later", "sometimes", "strict", "longest", "share",
    sometimes={"standardize": True}, strict={"max_error_share": 1.0}, longest={"standardize": True},
)  # fmt: skip


class Worker:
    """A reward worker in this process, that remembers what it was sent."""

    def __init__(self, config: dict[str, RewardConfig], search: str) -> None:
        self.scorer = Scorer(config, [search], {"short": False})
        self.calls: list[tuple[frozenset[str], int]] = []

    def judge(self, rollouts: Sequence[Rollout], stages: Any) -> Judged:
        self.calls.append((stages, len(rollouts)))
        return Judged(self.scorer.judge(rollouts, stages), 0.0)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return self.scorer.score_all(rollouts)


def batch(make_rollout: Callable[..., Rollout], sizes: Sequence[int], per_group: int) -> list[Rollout]:
    """Rollouts of these lengths, so many to a group."""
    made = [make_rollout(ids=range(1, size + 1), group=f"g{i // per_group}") for i, size in enumerate(sizes)]
    return [replace(r, request=replace(r.request, index=i % per_group)) for i, r in enumerate(made)]


def timeless(scores: Sequence[Score]) -> list[Score]:
    return [replace(score, seconds={}) for score in scores]


def streamed(rollouts: Sequence[Rollout], order: Sequence[int], pool: RewardPool) -> list[Score]:
    """The scores of rollouts that finish in some order."""
    assert pool.early is not None
    outbox = Outbox(pool.early, [rollout.request for rollout in rollouts])
    for place in order:
        outbox.add(place, rollouts[place])
    outbox.send()
    flight = StreamedFlight([_There(Streamed(list(rollouts), outbox.sent))], [], pool, lambda call: call)
    return flight.scores()


class _There:
    """A call that has been answered."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def result(self, *, interruptible: bool = True) -> Any:
        return self.value


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_scores_do_not_depend_on_the_order_in_which_rollouts_finish(
    workers: int, seed: int, graders: str, make_rollout: Callable[..., Rollout]
) -> None:
    chance = random.Random(seed)
    sizes = [chance.randint(1, 9) for _ in range(chance.randint(1, 30))]
    order = chance.sample(range(len(sizes)), len(sizes))
    rollouts = batch(make_rollout, sizes, per_group=4)
    made = [Worker(ALL, graders) for _ in range(workers)]
    handles = [InProcess(lambda worker=worker: worker) for worker in made]  # type: ignore[misc]
    pool = RewardPool(handles, ALL, stages_of(place_rewards(ALL, [graders])))
    assert timeless(streamed(rollouts, order, pool)) == timeless(pool.score(rollouts))


def test_a_batch_is_sent_in_a_few_parcels_and_groups_only_when_complete(
    graders: str, make_rollout: Callable[..., Rollout]
) -> None:
    config = parts_of("length", "longest")
    worker = Worker(config, graders)
    pool = RewardPool([InProcess(lambda: worker)], config, stages_of(place_rewards(config, [graders])))
    rollouts = batch(make_rollout, [5] * 64, per_group=8)
    # One response of each group finishes last.
    order = [i for i in range(64) if i % 8] + [i for i in range(64) if i % 8 == 0]
    streamed(rollouts, order, pool)
    by_stage = {stage: [n for (s,), n in worker.calls if s == stage] for stage in ("sample", "group", "batch")}
    assert by_stage == {"sample": [8] * 8, "group": [64], "batch": []}


def test_every_rollout_is_sent_once_a_stage(graders: str, make_rollout: Callable[..., Rollout]) -> None:
    worker = Worker(ALL, graders)
    judges = Judges([InProcess(lambda: worker)], frozenset(("sample", "group")))
    rollouts = batch(make_rollout, [3] * 13, per_group=4)
    outbox = Outbox(judges, [rollout.request for rollout in rollouts])
    for place in (12, 0, 7, 3, 11, 1, 2, 10, 4, 9, 5, 8, 6):
        outbox.add(place, rollouts[place])
    outbox.send()
    seen = Counter((stage, place) for sent, (stages, _) in zip(outbox.sent, worker.calls, strict=True)
                   for stage in stages for place in sent.places)  # fmt: skip
    assert seen == Counter((stage, place) for stage in ("sample", "group") for place in range(13))


def test_a_reward_that_fails_stops_it_with_the_same_sentence(
    graders: str, make_rollout: Callable[..., Rollout]
) -> None:
    config = parts_of("length", "strict")
    worker = Worker(config, graders)
    pool = RewardPool([InProcess(lambda: worker)], config, stages_of(place_rewards(config, [graders])))
    rollouts = batch(make_rollout, [3, 4, 5], per_group=3)
    sentences = []
    for attempt in (lambda: pool.score(rollouts), lambda: streamed(rollouts, [2, 1, 0], pool)):
        with pytest.raises(
            RewardError, match=r"rewards.strict .* on response 1 to g0 failed: ValueError: four"
        ) as found:
            attempt()
        sentences.append(str(found.value))
    assert sentences[0] == sentences[1]
    allowed = parts_of("length", "strict", strict={"max_error_share": 0.3})
    other = Worker(allowed, graders)
    pool = RewardPool([InProcess(lambda: other)], allowed, stages_of(place_rewards(allowed, [graders])))
    with pytest.raises(RewardError, match="it failed on 1 of 3 responses"):
        streamed(rollouts, [0, 1, 2], pool)


def test_a_reward_that_asks_for_the_policy_waits_for_the_batch(graders: str) -> None:
    assert stages_of(place_rewards(parts_of("asks"), [graders])) == {"batch"}
    assert stages_of(place_rewards(ALL, [graders])) == {"sample", "group", "batch"}
    assert RewardPool([], {}, frozenset(("batch",))).early is None


def test_abstentions_stay_abstentions(graders: str, make_rollout: Callable[..., Rollout]) -> None:
    config = parts_of("length", "sometimes")
    worker = Worker(config, graders)
    pool = RewardPool([InProcess(lambda: worker)], config, stages_of(place_rewards(config, [graders])))
    found = streamed(batch(make_rollout, [2, 3], per_group=2), [1, 0], pool)
    assert [score.outcome for score in found] == [Outcome.OK, Outcome.ABSTAIN]


# --- whole runs ------------------------------------------------------------------------------------------------------

ENGINE = """
from rollouts.torch_engine import TorchEngine
class Backwards(TorchEngine):
    "Hands out the last response first."
    def stream(self, requests):
        yield from reversed(list(super().stream(requests)))
"""


def project(folder: Path, *overrides: str) -> list[str]:
    (folder / "mine.py").write_text(GRADERS)
    (folder / "engine.py").write_text(ENGINE)
    rewards = ", ".join(f"{name}: {{target: '{folder}/mine.py:{name}'}}" for name in ("length", "longest", "share"))
    return [
        *SMALL, *BARE, "warmup=null", "run.steps=2", "train.optimizer.learning_rate=1.0e-3",
        f"rewards={{accuracy: {{target: 'rewards.ocr_match:ocr_match'}}, {rewards}}}",
        f"rollout.engine={folder}/engine.py:Backwards", f"run.dir={folder / 'run'}", *overrides,
    ]  # fmt: skip


def test_a_run_is_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = [f"rewards.asks={{target: '{tmp_path}/mine.py:asks'}}"]
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, project(tmp_path, *more)))
    monkeypatch.setattr(LocalCluster, "overlaps", True)
    more.append(f"run.dir={tmp_path / 'streamed'}")
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, project(tmp_path, *more)))
    assert_same_run(tmp_path / "run", tmp_path / "streamed", steps=2)
    assert {"length", "longest", "share", "asks"} < set(rows(tmp_path / "streamed", 1)[0]["parts"])


@pytest.mark.slow
def test_runs_on_ray_and_in_one_process_are_the_same(tmp_path: Path) -> None:
    """Two steps ahead, scored as rollouts finish."""
    more = ["run.steps=3", "train.async_steps=2"]
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, project(tmp_path, *more)))
    more += ["cluster.executor=ray", f"run.dir={tmp_path / 'ray'}"]
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, project(tmp_path, *more)))
    assert_same_run(tmp_path / "run", tmp_path / "ray", steps=3)
    assert [row["lag_max"] for row in metrics(tmp_path / "ray")] == [0, 1, 2]
    assert "scoring_hidden_s" in (tmp_path / "ray" / "metrics.jsonl").read_text()
