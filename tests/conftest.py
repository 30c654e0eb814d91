"""Shared builders: a tiny config, a tiny policy, rollouts made by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from hybrid_rl.quiet import quiet_environment

quiet_environment()

from hybrid_rl.algorithm.advantage import Group, group_advantages  # noqa: E402
from hybrid_rl.config import Config, load_config  # noqa: E402
from hybrid_rl.insight import charts  # noqa: E402
from hybrid_rl.policy import Policy, load_policy  # noqa: E402
from hybrid_rl.records import (  # noqa: E402
    Finish,
    Generation,
    Message,
    Outcome,
    Prompt,
    Request,
    Response,
    Rollout,
    Sample,
    Score,
)
from hybrid_rl.workers.actor import ActorWorker  # noqa: E402
from hybrid_rl.workers.cluster import InProcess  # noqa: E402
from hybrid_rl.workers.reference import ReferenceWorker  # noqa: E402
from hybrid_rl.workers.rollout import RolloutWorker  # noqa: E402
from hybrid_rl.workers.sync import ActorWeights  # noqa: E402

# The machine may be busy: a property is judged by its outcome, not by its seconds, and by the same examples every time.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = REPOSITORY / "configs" / "grpo_mixed.yaml"
_DRAWN = {"line_chart": charts.line_chart, "stacked_chart": charts.stacked_chart}

SMALL = [
    "model.args={hidden_size: 128, num_hidden_layers: 1, intermediate_size: 64, vision_hidden_size: 32, "
    "vision_num_hidden_layers: 1, vision_num_attention_heads: 2, vision_intermediate_size: 32, query_num: 4}",
    "run.steps=3",
    "run.live=false",
    "train.prompts_per_step=4",
    "train.responses_per_prompt=4",
    "train.reference_every_steps=1",
    "train.estimator=grpo",
    "train.decay_fraction=0",  # so that a run of fewer steps is the beginning of a longer one
    "warmup.steps=10",
    "warmup.batch_size=8",
    "warmup.warmup_steps=2",
    "evaluation.prompts_per_mode=8",
    "checkpoints.every_steps=1",
    "cluster.executor=local",
    "cluster.threads_per_worker=1",
    "machine.kernels=plain",
]
"""Overrides that make the default config a matter of seconds."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache of warm-ups; tests share one, so that equal warm-ups are made once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _charts_undrawn() -> Iterator[None]:
    """Reports of runs in this process have empty charts, which otherwise take most of the time of a tiny run.

    Tests of the charts ask for the fixture `charts_drawn`; runs in processes of their own draw.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in _DRAWN:
            patch.setattr(charts, name, lambda *_, **__: "<svg></svg>")
        yield


@pytest.fixture
def charts_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are drawn as users see them."""
    for name, draw in _DRAWN.items():
        monkeypatch.setattr(charts, name, draw)


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Config]:
    """Make the small config, with further overrides; the run folder is `tmp_path/run`."""

    def make(*overrides: str) -> Config:
        return load_config(DEFAULT_CONFIG, [*SMALL, f"run.dir={tmp_path / 'run'}", *overrides])

    return make


def hand_over(actor: ActorWorker, *workers: RolloutWorker | ReferenceWorker) -> None:
    """Give the actor's weights to workers of this process."""
    receivers = [InProcess(lambda worker=worker: worker) for worker in workers]  # type: ignore[misc]
    ActorWeights(InProcess(lambda: actor)).send_to(receivers)


@pytest.fixture(scope="session")
def tiny_policy() -> Policy:
    """A policy with random weights in the two modes of the default config."""
    config = load_config(DEFAULT_CONFIG, SMALL)
    return load_policy(config.model, config.modes, seed=0, search=config.search)


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    """A rollout made by hand."""

    def make(
        ids: Sequence[int] = (1, 2, 3),
        *,
        mode: str = "short",
        group: str = "g",
        task: str = "read",
        source: str = "read",
        gold: str = "12",
        text: str = "12",
        answer: str | None = "12",
        thought: str = "",
        leaked: bool = False,
        finish: Finish = Finish.STOP,
        logprobs: Sequence[float] | None = None,
        sampled: Sequence[bool] | None = None,
        columns: dict[str, Any] | None = None,
        prompt: Prompt | None = None,
    ) -> Rollout:
        prompt = prompt or Prompt(
            id="p",
            source=source,
            task=task,
            messages=(Message(role="user", text="?"),),
            gold=gold,
            columns=columns or {},
        )
        request = Request(prompt=prompt, mode=mode, group=group, index=0, seed=0, max_new_tokens=8, temperature=1.0)
        generation = Generation(
            ids=tuple(ids),
            logprobs=tuple(logprobs if logprobs is not None else [-1.0] * len(ids)),
            sampled=tuple(sampled if sampled is not None else [True] * len(ids)),
            finish=finish,
        )
        response = Response(text=text, thought=thought, answer=answer, closed=answer is not None, leaked=leaked)
        return Rollout(request=request, generation=generation, response=response, versions=(0, 0))

    return make


def cores() -> int:
    return len(os.sched_getaffinity(0))


def make_groups(rollouts: Sequence[Rollout], scores: Sequence[Score], *, eps: float, min_std: float) -> list[Group]:
    """Join rollouts and scores into groups of samples. Responses of a group are adjacent.

    A response without a score is not trained on: it counts in no numerator and no denominator.
    """
    groups = []
    pairs = list(zip(rollouts, scores, strict=True))
    for _, members_iterator in groupby(pairs, key=lambda pair: pair[0].request.group):
        members = list(members_iterator)
        rewards = [score.value if score.outcome is Outcome.OK else None for _, score in members]
        advantage = group_advantages(rewards, eps=eps, min_std=min_std)
        samples = tuple(
            Sample(
                rollout=rollout,
                score=score,
                advantages=(value,) * len(rollout.generation.ids),
                trained=score.outcome is Outcome.OK,
            )
            for (rollout, score), value in zip(members, advantage.values, strict=True)
        )
        groups.append(Group(samples=samples, advantage=advantage))
    return groups
