"""Models are asked about the responses that are trained, and about no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from test_updates import CONFIG, groups_of, rollouts_of

from hybrid_rl.algorithm.admission import AdmissionState, admit
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.config.admission import AdmissionConfig, DynamicSamplingConfig
from hybrid_rl.insight.metrics import step_metrics
from hybrid_rl.updates.grpo import UpdateFigures
from hybrid_rl.updates.trained_only import of_trained
from hybrid_rl.workers.cluster import InProcess
from hybrid_rl.workers.pool import SeparateReference
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.setup import WorkerSetup


def admitted(groups: Sequence[Group]) -> list[Group]:
    """The first group has no signal and is dropped; the last response of the others is not trained."""
    decided, _ = admit(groups, AdmissionState(), AdmissionConfig(dynamic_sampling=DynamicSamplingConfig()), 1)
    return [
        replace(group, samples=(*group.samples[:-1], replace(group.samples[-1], trained=False))) for group in decided
    ]


def test_a_dropped_group_never_reaches_the_reference() -> None:
    worker = ReferenceWorker(WorkerSetup(config=CONFIG, checkpoint=None))
    rollouts = rollouts_of(worker._policy)
    first = rollouts[0].request.group
    names = {r.generation.ids: r.request.group for r in rollouts}
    groups = admitted(groups_of(rollouts, lambda ids: 0.0 if names[ids] == first else sum(ids) / 1e4))
    assert [bool(group.dropped) for group in groups] == [True, False, False, False]
    everything = worker.logprobs(groups)
    whole = worker.take_figures()
    reference = SeparateReference(InProcess(lambda: worker))
    found = reference.logprobs(groups)
    for group, values, all_values in zip(groups, found, everything, strict=True):
        for sample, value, expected in zip(group.samples, values, all_values, strict=True):
            assert value == (pytest.approx(expected, abs=1e-5) if sample.trained else ())
    prompt = len(worker._policy.format.inputs(rollouts[0].request.prompt, rollouts[0].request.mode).ids)
    spared = [len(s.rollout.generation.ids) for group in groups for s in group.samples if not s.trained]
    assert reference.take_figures().tokens == whole.tokens - sum(spared) - prompt
    assert reference.logprobs(groups[:1]) == [[()] * 4] and reference.take_figures().tokens == 0


def test_a_mode_in_which_nothing_was_trained_has_no_kl() -> None:
    """0 would read as a policy that has not moved."""
    worker = ReferenceWorker(WorkerSetup(config=CONFIG, checkpoint=None))
    rollouts = rollouts_of(worker._policy)
    groups = groups_of(rollouts)
    silent = [
        replace(g, samples=tuple(replace(s, trained=False) for s in g.samples)) for g in groups if g.mode == "short"
    ]
    chosen = [*silent, *(group for group in groups if group.mode == "long")]

    def doubled(asked: Sequence[Group]) -> Any:
        return [[tuple(0.5 + v for v in s.rollout.generation.logprobs) for s in group.samples] for group in asked]

    found = step_metrics(chosen, UpdateFigures(), of_trained(chosen, doubled), {}, step=1, version=1)
    assert "kl/short" not in found
    assert found["kl/long"] == pytest.approx(2.718281828**0.5 - 1.5)
