"""Our side of `benchmarks.grpo_step`: the product's workers take a step, in this process or as Ray actors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.grpo_cases import Workload, pictures, reward
from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.config import Config
from hybrid_rl.images import InlineImage
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.records import Message, Prompt, Request, Rollout, Score
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.cluster import Cluster, LocalCluster
from hybrid_rl.workers.pool import Actor, RolloutPool
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.setup import WorkerSetup, measured_first

_MODE = "answer"


class OurStep:
    """Workers that are up, and the step they take.

    Args:
        folder: of the policy.
    """

    def __init__(self, work: Workload, folder: Path, threads: int, cluster: Cluster) -> None:
        config = make_config(work, folder, threads)
        self.kernels = measured_first(config)
        setup = WorkerSetup(config=config, checkpoint=None, measured=self.kernels)
        self._actor = Actor(cluster.start(ActorWorker, setup))
        self._rollouts = RolloutPool(cluster, [cluster.start(RolloutWorker, setup)])
        self._grouping = make_grouping(config, {_MODE: "free"})
        self._work = work
        self._prompts = [_prompt(work, p) for p in range(len(work.texts))]
        self._steps = 0
        for worker in (self._actor, self._rollouts):
            worker.ready()

    def run(self) -> dict[str, float]:
        """One step: generate, score, update, hand over the weights."""
        self._steps += 1
        marks = [time.perf_counter()]
        rollouts = self._rollouts.generate(self._requests())
        marks.append(time.perf_counter())
        groups = self._grouping.groups(rollouts, [_score(rollout) for rollout in rollouts], self._steps)
        _, figures = self._actor.update(groups, None)
        marks.append(time.perf_counter())
        self._rollouts.load_weights(self._actor.weights())
        marks.append(time.perf_counter())
        tokens = sum(len(rollout.generation.ids) for rollout in rollouts)
        assert tokens == self._work.response_tokens
        wall = marks[-1] - marks[0]
        encodes = _encodes("generate", self._rollouts.take_figures()) | _encodes("update", figures.forward)
        return encodes | {
            "wall": wall,
            "generate_s": marks[1] - marks[0],
            "update_s": marks[2] - marks[1],
            "sync_s": marks[3] - marks[2],
            "tokens_per_s": tokens / wall,
        }

    def _requests(self) -> list[Request]:
        return [
            Request(
                prompt=prompt,
                mode=_MODE,
                group=f"{p}@{self._steps}",
                index=g,
                seed=1000 * self._steps + 100 * p + g,
                max_new_tokens=length,
                temperature=1.0,
                place=p,
            )
            for p, prompt in enumerate(self._prompts)
            for g, length in enumerate(self._work.lengths[p])
        ]


def make_config(work: Workload, folder: Path, threads: int) -> Config:
    """The config of the case; what it leaves out is the product's default."""
    parts = {"vision_tower": ["model.visual."], "decoder": ["model.", "lm_head."]}
    scale = {"vision_tower": 0.0} if work.case.tower == "frozen" else {}
    return Config.model_validate(
        {
            "model": {"path": str(folder), "modules": [], "device": "cpu", "dtype": work.case.dtype, "parts": parts},
            "data": {"sources": {"words": {"target": "benchmarks.grpo_cases:Workload"}}},
            "modes": {"kinds": {_MODE: {"max_new_tokens": work.longest}}},
            "rewards": {"accuracy": {"target": "benchmarks.grpo_cases:reward"}},
            "train": {
                "prompts_per_step": work.sizes.prompts,
                "responses_per_prompt": work.sizes.group,
                "optimizer": {"learning_rate_scale": scale},
            },
            "cluster": {"threads_per_worker": threads},
        }
    )


@contextlib.contextmanager
def our_cluster(*, ray: bool) -> Iterator[Cluster]:
    """Where the workers live."""
    with StopSignal() as stop:
        if not ray:
            yield LocalCluster(stop)
            return
        from hybrid_rl.config.cluster import ClusterConfig
        from hybrid_rl.workers.ray_cluster import RayCluster

        cluster = RayCluster(ClusterConfig(), stop, num_gpu_workers=0)
        try:
            yield cluster
        finally:
            cluster.close()


def _prompt(work: Workload, number: int) -> Prompt:
    images = tuple(map(InlineImage, pictures(work.sizes, number))) if work.case.tower else ()
    return Prompt(
        id=str(number),
        source="words",
        task="words",
        messages=(Message(role="user", text=work.texts[number]),),
        gold="",
        images=images,
    )


def _score(rollout: Rollout) -> Score:
    value = reward(list(rollout.generation.ids))
    return Score(value=value, parts={"accuracy": value})


def _encodes(phase: str, figures: RolloutFigures | ForwardFigures) -> dict[str, float]:
    """How often each different image was encoded in a phase, where there are images."""
    unique = figures.unique_images
    return {f"{phase}_encodes_per_image": figures.vision_encodes / unique} if unique else {}


def kernel_facts(step: OurStep) -> dict[str, Any]:
    """What our side was built with."""
    return {key: value for key, value in asdict(step.kernels).items() if key != "machine"}
