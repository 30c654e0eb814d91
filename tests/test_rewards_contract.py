"""The contract beyond one number a response: groups, batches, async, actors, own parts, choices, standardising."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hybrid_rl.bridges import TrlReward, VerlReward
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import ConfigError, PluginError, RewardError
from hybrid_rl.images import InlineImage
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.records import AnswerQuery, Message, Outcome, Prompt, Rollout, Score
from hybrid_rl.scoring import Scorer
from hybrid_rl.scoring.standardize import standardize
from hybrid_rl.workers.cluster import LocalCluster
from rewards.answer_shape import answer_shape

PLUGIN = """
import asyncio, os, time
from hybrid_rl import Score

def right(answer, gold): return float(answer == gold)

def rank(answer, gold):
    order = sorted(range(len(answer)), key=lambda i: abs(int(answer[i]) - int(gold[i])))
    return [order.index(i) / max(1, len(answer) - 1) for i in range(len(answer))]
rank.per = "group"

def how_many(answer): return [float(len(answer))] * len(answer)
how_many.per = "batch"

def too_few(answer): return [1.0]
too_few.per = "group"

def hangs(answer): time.sleep(60)
hangs.per = "group"

def bare(answer): return 1.0
bare.per = "batch"

def in_parts(answer, gold): return Score(value=0.5, parts={"reading": 0.75, "style": 0.25})

def some(answer): return [None if a == "?" else Score(value=float(a), parts={"a": 1}) for a in answer]
some.per = "group"

async def later(answer):
    await asyncio.sleep(float(answer))
    return 1.0

async def fails_later(answer): raise KeyError("lost")

active = most = 0
async def counts(answer):
    global active, most
    active += 1; most = max(most, active)
    await asyncio.sleep(0.02)
    active -= 1
    return float(most)

class Whole:
    runs_in = "actor"
    per = "batch"
    without_answer = None
    def __init__(self, factor=1.0): self.factor = factor; self.calls = 0
    def __call__(self, answer):
        self.calls += 1
        return [self.factor * len(answer) + 100 * self.calls for _ in answer]

class Process:
    runs_in = "actor"
    def __call__(self, answer): return float(os.getpid())

def likely(policy, ids, prompt, mode, gold):
    from hybrid_rl.records import AnswerQuery
    rows = zip(prompt, mode, ids)
    queries = [AnswerQuery(prompt=p, mode=m, prefix_ids=tuple(i), target_ids=(7,)) for p, m, i in rows]
    return [sum(row) for row in policy.answer_logprobs(queries)]
likely.per = "batch"

def likely_in_pool(policy): return 0.0
likely_in_pool.runs_in = "pool"

def bright(images): return sum(image.convert("L").getpixel((0, 0)) for image in images) / 255

def value(answer): return None if answer == "?" else float(answer)

def shape(prompt): return "short" if len(prompt.gold) < 3 else "wide"

class Patient:
    timeout_s = 1.5
    def __init__(self, search=()): self.search = search
    async def __call__(self, answer):
        await asyncio.sleep(1.1)
        return float(len(self.search))

class Hasty(Patient): timeout_s = 0

class NeedsServer:
    def __call__(self, answer): return 1.0
    def check(self):
        from hybrid_rl import PluginError
        raise PluginError("rewards.judge: nobody answers; start the server")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture
def scorer(folder: Path) -> Callable[..., Scorer]:
    def make(accuracy: str | dict[str, Any], *, policy: Any = None, hosts: Any = None, **other: Any) -> Scorer:
        parts = {"accuracy": accuracy, **other}
        config = {
            name: RewardConfig.model_validate({"target": f"mine.py:{part}"} if isinstance(part, str) else part)
            for name, part in parts.items()
        }
        return Scorer(config, [str(folder)], {"short": False, "long": True}, policy=policy, hosts=hosts)

    return make


Make = Callable[..., Rollout]


def grouped(make_rollout: Make, answers: Sequence[str | None], group: str = "g", **further: Any) -> list[Rollout]:
    rollouts = [make_rollout(answer=answer, **further) for answer in answers]
    return [replace(r, request=replace(r.request, group=group, index=i)) for i, r in enumerate(rollouts)]


def parts(scores: Sequence[Score], name: str = "accuracy") -> list[float | None]:
    return [score.parts.get(name) for score in scores]


# --- groups and batches ------------------------------------------------------------------------------------------


def test_a_group_reward_sees_the_responses_of_one_prompt_and_mode(
    scorer: Callable[..., Scorer], make_rollout: Make
) -> None:
    rollouts = grouped(make_rollout, ["7", "9", "5"], "a", gold="7") + grouped(make_rollout, ["1", "2"], "b", gold="2")
    assert parts(scorer("rank").score_all(rollouts)) == [0.0, 0.5, 1.0, 1.0, 0.0]


def test_a_batch_reward_is_called_once_and_not_for_responses_without_an_answer(
    scorer: Callable[..., Scorer], make_rollout: Make
) -> None:
    rollouts = grouped(make_rollout, ["7", None, "5"], "a") + grouped(make_rollout, ["1"], "b")
    found = scorer("right", size="how_many").score_all(rollouts)
    assert parts(found, "size") == [3.0, 0.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("reward", "said"), [("too_few", "returned 1 entries for 2 responses"), ("bare", "returned 1.0; scoring 2")]
)
@pytest.mark.parametrize("runs_in", ["pool", "inline"])
def test_a_list_of_the_wrong_length_is_an_error_with_the_response_named(
    scorer: Callable[..., Scorer], make_rollout: Make, reward: str, said: str, runs_in: str
) -> None:
    mine = scorer({"target": f"mine.py:{reward}", "runs_in": runs_in})
    with pytest.raises(RewardError, match=rf"mine.py:{reward}'\) on response 0 to g {said}"):
        mine.score_all(grouped(make_rollout, ["1", "2"]))


def test_a_hanging_group_is_killed_and_times_out_alone(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    mine = scorer({"target": "mine.py:hangs", "timeout_s": 0.1}, size="how_many")
    scores = mine.score_all(grouped(make_rollout, ["1", "2"]))
    assert [score.outcomes["accuracy"] for score in scores] == [Outcome.TIMEOUT] * 2
    assert parts(scores, "size") == [2.0, 2.0]


# --- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs_in", ["pool", "inline"])
def test_a_score_brings_parts_of_its_own(scorer: Callable[..., Scorer], make_rollout: Make, runs_in: str) -> None:
    score = scorer({"target": "mine.py:in_parts", "weight": 2.0, "runs_in": runs_in}).score(make_rollout(answer="1"))
    assert dict(score.parts) == {"accuracy": 0.5, "accuracy.reading": 0.75, "accuracy.style": 0.25}
    assert score.value == 1.0 and dict(score.terms) == {"accuracy": 1.0}
    assert score.seconds["accuracy"] > 0


def test_members_of_a_group_may_abstain_one_by_one(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    scores = scorer("some").score_all(grouped(make_rollout, ["1", "?", "0"]))
    assert [score.outcome for score in scores] == [Outcome.OK, Outcome.ABSTAIN, Outcome.OK]
    assert parts(scores) == [1.0, None, 0.0]


def test_a_reward_may_ask_for_pixels(scorer: Callable[..., Scorer], make_rollout: Make, tmp_path: Path) -> None:
    Image.new("L", (4, 4), 255).save(tmp_path / "white.png")
    image = InlineImage((tmp_path / "white.png").read_bytes())
    rollout = make_rollout(answer="1")
    prompt = replace(rollout.request.prompt, images=(image,))
    rollout = replace(rollout, request=replace(rollout.request, prompt=prompt))
    assert scorer("bright").score(rollout).value == 1.0


# --- async and actors ----------------------------------------------------------------------------------------------


def test_async_rewards_wait_together_and_time_out_one_by_one(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    mine = scorer({"target": "mine.py:later", "timeout_s": 0.6, "max_concurrency": 8})
    began = time.monotonic()
    scores = mine.score_all(grouped(make_rollout, ["0.3"] * 6 + ["30"]))
    assert time.monotonic() - began < 6 * 0.3  # one after the other they would take this long
    assert [score.outcome for score in scores] == [Outcome.OK] * 6 + [Outcome.TIMEOUT]
    assert scores[0].seconds["accuracy"] == pytest.approx(0.3, abs=0.25)


def test_at_most_max_concurrency_calls_are_under_way(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    mine = scorer("right", busy={"target": "mine.py:counts", "max_concurrency": 3})
    assert max(v or 0 for v in parts(mine.score_all(grouped(make_rollout, ["1"] * 12)), "busy")) == 3.0


def test_what_an_async_reward_raises_is_an_error_with_its_cause(
    scorer: Callable[..., Scorer], make_rollout: Make
) -> None:
    with pytest.raises(RewardError, match="failed: KeyError: 'lost'") as caught:
        scorer("fails_later").score(make_rollout(answer="1"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_async_reward_works_where_a_loop_is_running(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    """As in a notebook."""
    import asyncio

    async def notebook() -> float:
        return scorer("later").score(make_rollout(answer="0.01")).value

    assert asyncio.run(notebook()) == 1.0


def test_an_actor_reward_without_a_worker_runs_here_and_keeps_its_state(
    scorer: Callable[..., Scorer], make_rollout: Make
) -> None:
    mine = scorer("right", big={"target": "mine.py:Whole", "args": {"factor": 2.0}, "standardize": True})
    first = mine.score_all(grouped(make_rollout, ["1", None, "3"]))
    assert parts(first, "big") == [104.0, None, 104.0]
    assert [score.outcomes["big"] for score in first] == [Outcome.OK, Outcome.ABSTAIN, Outcome.OK]
    assert parts(mine.score_all(grouped(make_rollout, ["1"])), "big") == [202.0]


# --- the policy ----------------------------------------------------------------------------------------------------


class Flat:
    """A policy that finds everything equally likely, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[AnswerQuery] = []

    def answer_logprobs(self, queries: Sequence[AnswerQuery], *, initial: bool = False) -> list[tuple[float, ...]]:
        self.asked += queries
        return [(math.log(0.5),) * len(query.target_ids) for query in queries]


def test_a_reward_may_ask_the_policy(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    policy = Flat()
    mine = scorer("right", likely="likely", policy=policy)
    scores = mine.score_all(grouped(make_rollout, ["1", "2"]))
    assert parts(scores, "likely") == [pytest.approx(math.log(0.5))] * 2
    assert [query.mode for query in policy.asked] == ["short", "short"]


def test_without_a_run_there_is_no_policy(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    with pytest.raises(PluginError, match="asks for the policy, which is only there in a run"):
        scorer("likely").score(make_rollout(answer="1"))
    with pytest.raises(PluginError, match="scorer processes cannot reach"):
        scorer("likely_in_pool")


# --- choosing ------------------------------------------------------------------------------------------------------


def with_gold(rollout: Rollout, gold: str, **columns: Any) -> Rollout:
    prompt = replace(rollout.request.prompt, gold=gold, columns=columns)
    return replace(rollout, request=replace(rollout.request, prompt=prompt))


def test_a_column_picks_the_reward(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    mine = scorer({"column": "kind", "by_column": {"exact": "mine.py:right", "2": "mine.py:in_parts"}})
    rollouts = [
        with_gold(make_rollout(answer="1"), "1", kind="exact"),
        with_gold(make_rollout(answer="1"), "1", kind=2),
    ]
    assert parts(mine.score_all(rollouts)) == [1.0, 0.5]
    with pytest.raises(ConfigError, match=r"no reward for kind = 'exakt'.*did you mean 'exact'"):
        mine.check(with_gold(make_rollout(), "1", kind="exakt").request.prompt)


def test_the_shape_of_the_reference_picks_the_reward(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    mine = scorer(
        {"shape": "mine.py:shape", "by_shape": {"short": "mine.py:right", "wide": {"target": "mine.py:in_parts"}}}
    )
    rollouts = [with_gold(make_rollout(answer="1"), "1"), with_gold(make_rollout(answer="1"), "1 and 2")]
    assert parts(mine.score_all(rollouts)) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("gold", "shape"),
    [
        ("42", "rule"),
        ("B", "rule"),
        (r"\frac{3}{4} + x^2 + 2 x + 7", "rule"),
        ("x = 3 or x = 5 or x = 7", "rule"),
        ("San Francisco", "rule"),
        ("2x", "rule"),
        ("5 km/h", "probability"),
        ("25kg", "probability"),
        ("the light bends towards the normal", "probability"),
        ('[{"kind": "words", "max": 20}]', "constraints"),
        ('{"kind": "nothing that we know"}', "rule"),
    ],
)
def test_shapes_of_answers(gold: str, shape: str) -> None:
    prompt = Prompt(id="p", source="s", task="t", messages=(Message(role="user", text="?"),), gold=gold)
    assert answer_shape(prompt) == shape


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "give one of target, by_task, by_column, by_shape"),
        ({"target": "a:b", "by_task": {"x": "a:b"}}, "not target and by_task"),
        ({"by_column": {"x": "a:b"}}, "by_column and column belong together"),
        ({"target": "a:b", "column": "kind"}, "by_column and column belong together"),
    ],
)
def test_contradicting_choices_are_refused(config: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RewardConfig.model_validate(config)


# --- standardising -------------------------------------------------------------------------------------------------


def test_standardised_by_hand() -> None:
    # mean 2, unbiased variance ((1)^2 + 0 + 1^2) / 2 = 1
    assert standardize([1.0, 2.0, 3.0, None]) == [-1.0, 0.0, 1.0, 0.0]
    assert standardize([5.0, 5.0, 5.0]) == [0.0, 0.0, 0.0]
    assert standardize([5.0, None]) == [0.0, 0.0]
    assert standardize([0.0] * 99 + [1000.0])[-1] == 3.0  # 9.9 standard deviations, clipped


def test_a_standardised_part_is_relative_to_its_group_and_its_abstention_drops_nobody(
    scorer: Callable[..., Scorer], make_rollout: Make
) -> None:
    liked = {"target": "mine.py:value", "standardize": True, "weight": 0.5}
    mine = scorer("right", liked=liked)
    rollouts = grouped(make_rollout, ["1", "2", "3", "?"], "a", gold="3") + grouped(make_rollout, ["40"], "b", gold="3")
    scores = mine.score_all(rollouts)
    assert [score.value for score in scores] == [-0.5, 0.0, 1.5, 0.0, 0.0]
    assert [score.outcome for score in scores] == [Outcome.OK] * 5
    assert scores[3].outcomes["liked"] is Outcome.ABSTAIN
    assert parts(scores, "liked") == [1.0, 2.0, 3.0, None, 40.0]


def test_a_part_that_fails_still_takes_the_response_out(scorer: Callable[..., Scorer], make_rollout: Make) -> None:
    mine = scorer("right", liked={"target": "mine.py:value", "standardize": True, "max_error_share": 1.0})
    (score,) = mine.score_all(grouped(make_rollout, ["word"]))
    assert score.outcome is Outcome.ERROR


# --- services and bridges ------------------------------------------------------------------------------------------


def test_a_reward_that_cannot_work_says_so_before_the_run(scorer: Callable[..., Scorer]) -> None:
    with pytest.raises(PluginError, match="nobody answers; start the server"):
        scorer("NeedsServer").check_services()


def test_a_reward_may_declare_its_limit_and_gets_the_folders_of_the_search(
    scorer: Callable[..., Scorer], make_rollout: Make
) -> None:
    """Longer than the usual second; the config has the last word."""
    assert scorer("Patient").score(make_rollout()).value == 1.0
    assert scorer({"target": "mine.py:Patient", "timeout_s": 0.1}).score(make_rollout()).outcome is Outcome.TIMEOUT
    with pytest.raises(PluginError, match="declares timeout_s = 0"):
        scorer("Hasty")


def test_the_bridge_to_trl_serves_groups_and_coroutines(folder: Path) -> None:
    ranked = TrlReward("mine.py:rank", search=[str(folder)])
    assert ranked(["7", "9", "5"], prompt=["p", "p", "p"], gold=["7", "7", "7"]) == [0.0, 0.5, 1.0]
    assert ranked(["7", "9", "5"], prompt=["p", "q", "q"], gold=["7", "7", "6"]) == [0.0, 1.0, 0.0]
    assert TrlReward("mine.py:later", search=[str(folder)])(["0.01"]) == [1.0]
    with pytest.raises(PluginError, match="verl asks for one response at a time"):
        VerlReward("mine.py:rank", search=[str(folder)])


def test_actor_rewards_live_in_workers_of_their_own(folder: Path, make_rollout: Make) -> None:
    """Real Ray actors: the reward worker calls the reward's worker, which is another process."""
    import os

    from hybrid_rl import load_config
    from hybrid_rl.scoring import actor_specs
    from hybrid_rl.workers.pool import RewardPool
    from hybrid_rl.workers.ray_cluster import RayCluster
    from hybrid_rl.workers.reward import RewardWorker
    from hybrid_rl.workers.reward_actor import start_hosts

    config = load_config(
        Path(__file__).parent.parent / "configs" / "grpo_mixed.yaml",
        [
            f"search=[{folder}]",
            "rewards={accuracy: {target: 'mine.py:right'}, big: {target: 'mine.py:Whole'}, "
            "process: {target: 'mine.py:Process'}}",
            "cluster.reward_workers=2",
        ],
    )
    stop = StopSignal()
    for cluster in (LocalCluster(stop), RayCluster(config.cluster, stop, num_gpu_workers=2)):
        try:
            hosts = start_hosts(cluster, config, actor_specs(config))
            workers = [
                cluster.start(RewardWorker, config, {"short": False, "long": True}, None, hosts, gpu=False)
                for _ in range(2)
            ]
            pool = RewardPool(workers, {}, others=[host.handle for host in hosts.values()])
            pool.ready()
            scores = pool.score(grouped(make_rollout, ["7"] * 2, "a") + grouped(make_rollout, ["7"] * 3, "b"))
            assert {part or 0 for part in parts(scores, "big")} in ({102.0, 203.0}, {103.0, 202.0})
            (process,) = set(parts(scores, "process"))
            assert (process == os.getpid()) is isinstance(cluster, LocalCluster)
        finally:
            cluster.close()
