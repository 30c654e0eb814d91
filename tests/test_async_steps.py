"""`train.async_steps`: rollouts ahead of the learner, how old they are, and how that is corrected and survives."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from test_run import BARE, assert_same_run, interrupt_after, metrics, rows, summary

import hybrid_rl
from hybrid_rl.ahead import FILE, resampled, stored_rollouts
from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.algorithm.estimators import BUILT_IN, load_estimator
from hybrid_rl.algorithm.importance import truncated_importance
from hybrid_rl.algorithm.loss import token_loss
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.config import Config
from hybrid_rl.dealing import Dealer
from hybrid_rl.errors import ConfigError, Interrupted, PluginError, RunFolderError
from hybrid_rl.insight.recorder import Recorder
from hybrid_rl.interrupt import StopSignal
from hybrid_rl.preflight import prepare
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.train import resume
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.cluster import InProcess, LocalCluster
from hybrid_rl.workers.flight import Flight
from hybrid_rl.workers.pool import RolloutPool
from hybrid_rl.workers.rollout import RolloutWorker

# --- the correction --------------------------------------------------------------------------------------------------


def test_weights_worked_by_hand() -> None:
    """The policy has made a token half, equally and three times as likely as when it was sampled; C = 2."""
    sampler = torch.log(torch.tensor([0.2, 0.2, 0.2]))
    start = torch.log(torch.tensor([0.1, 0.2, 0.6]))
    found = truncated_importance(start, sampler, 2.0)
    assert found.weight_N.tolist() == pytest.approx([0.5, 1.0, 2.0])
    assert found.capped_N.tolist() == [False, False, True]


def test_the_gradient_is_the_policy_gradient_times_the_weight() -> None:
    """Before a step has changed anything the ratio is 1, so that d loss = -w A d log pi, without a clip."""
    now = torch.log(torch.tensor([0.1, 0.2, 0.6])).requires_grad_()
    sampler = torch.log(torch.tensor([0.2, 0.2, 0.2]))
    advantages = torch.tensor([1.0, -1.0, 2.0])
    found = token_loss(now, sampler, advantages, now.detach(), clip_low=0.2, clip_high=0.28, importance_cap=2.0)
    found.policy.sum().backward()
    assert now.grad is not None
    assert now.grad.tolist() == pytest.approx([-0.5, 1.0, -4.0])
    assert not found.clipped.any()
    assert found.ratio.tolist() == [1.0, 1.0, 1.0]


def test_the_clip_is_of_what_the_step_has_changed() -> None:
    """In a later mini-batch the policy has moved by e^0.5 since the step began; the sampler was e^-0.1 away then."""
    start, sampler, now = torch.tensor([-1.0]), torch.tensor([-0.9]), torch.tensor([-0.5], requires_grad=True)
    found = token_loss(
        now, sampler, torch.tensor([1.0]), now.detach(), clip_low=0.2, clip_high=0.28, importance_cap=2.0,
        start_logprobs_N=start,
    )  # fmt: skip
    assert found.clipped.tolist() == [True]
    assert float(found.policy.detach()) == pytest.approx(-math.exp(-0.1) * 1.28)
    found.policy.sum().backward()
    assert now.grad is not None and now.grad.tolist() == [0.0]


@settings(max_examples=25)
@given(
    logprobs=st.lists(st.floats(-8, 0, width=32), min_size=1, max_size=6),
    name=st.sampled_from([name for name in BUILT_IN if name != "gspo"]),
)
def test_on_policy_nothing_is_corrected(logprobs: list[float], name: str) -> None:
    estimator = load_estimator(name, [])
    advantages = torch.linspace(-1, 1, len(logprobs))
    found = []
    for cap in (None, 2.0):
        now = torch.tensor(logprobs, requires_grad=True)
        terms = token_loss(
            now, now.detach(), advantages, now.detach(), estimator=estimator, importance_cap=cap,
            clip_low=estimator.clip_low, clip_high=estimator.clip_high,
        )  # fmt: skip
        terms.policy.sum().backward()
        assert now.grad is not None
        found.append((terms.policy.tolist(), now.grad.tolist()))
    assert found[0] == found[1]


def test_an_expectation_is_that_of_the_policy_as_long_as_no_weight_is_capped() -> None:
    """E under mu of w f is E under pi: what importance sampling is for."""
    mu, pi, f = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.25, 0.35]), torch.tensor([1.0, -2.0, 5.0])
    weight = truncated_importance(pi.log(), mu.log(), 2.0).weight_N
    assert float((mu * weight * f).sum()) == pytest.approx(float((pi * f).sum()))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BUILT_IN, "mine"])
def test_an_estimator_without_correction_is_refused(
    name: str, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from hybrid_rl.algorithm.estimators import grpo\n"
        "class Mine:\n"
        "    normalizer, clip_low, clip_high = 'token_mean', 0.2, 0.2\n"
        "    advantages, policy_loss = grpo.advantages, grpo.policy_loss\n"
    )
    target = f"{tmp_path}/mine.py:Mine" if name == "mine" else name
    chosen = f"train.estimator={target}"
    assert loss_rules(small_config(chosen)).importance_cap is None
    if name in ("gspo", "mine"):
        with pytest.raises(ConfigError, match=r"train.async_steps: estimator '.*' has no importance correction"):
            loss_rules(small_config(chosen, "train.async_steps=1"))
    else:
        assert loss_rules(small_config(chosen, "train.async_steps=1")).importance_cap == 2.0


def test_a_reward_that_asks_for_the_policy_is_refused(small_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def asks(ids, policy): return 0.0\n")
    part = f"rewards.mine={{target: '{tmp_path}/mine.py:asks'}}"
    with pytest.raises(PluginError, match=r"rewards.mine: .* asks for the policy .* set train.async_steps to 0"):
        prepare(small_config(part, "train.async_steps=1"))


# --- runs ------------------------------------------------------------------------------------------------------------

FAST = [*BARE, "warmup=null", "run.steps=4", "checkpoints.every_steps=2", "train.optimizer.learning_rate=1.0e-3"]


def lags(folder: Path, steps: int = 4) -> list[set[int]]:
    """By step, how many updates its rollouts are behind."""
    return [{step - 1 - row["policy_versions"][0] for row in rows(folder, step)} for step in range(1, steps + 1)]


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, two ahead, in one process."""
    folder = tmp_path_factory.mktemp("ahead") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        overrides = [*SMALL, *FAST, "train.async_steps=2", f"run.dir={folder}"]
        hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, overrides))
    return folder


def test_rollouts_are_as_old_as_asked_for_and_their_age_is_logged(ahead: Path) -> None:
    assert lags(ahead) == [{0}, {1}, {2}, {2}]
    assert [row["lag_max"] for row in metrics(ahead)] == [0, 1, 2, 2]
    assert [row["lag_mean"] for row in metrics(ahead)] == [0, 1, 2, 2]


def test_weights_are_logged_by_mode(ahead: Path) -> None:
    found = metrics(ahead)
    for mode in ("short", "long"):
        # On-policy all weights are 1, but for the last bits of a batched matrix product.
        assert found[0][f"importance_weight/{mode}"] == pytest.approx(1, abs=1e-5)
        assert found[0][f"importance_capped/{mode}"] == 0
        assert abs(found[2][f"importance_weight/{mode}"] - 1) > 1e-4
        assert all(0 <= row[f"importance_capped/{mode}"] <= 1 for row in found)


def test_the_next_rollouts_are_asked_for_before_the_update(
    small_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noted(owner: type, method: str, say: Callable[..., str]) -> None:
        original = getattr(owner, method)

        def wrapped(self: Any, *args: Any) -> Any:
            calls.append(say(*args))
            return original(self, *args)

        monkeypatch.setattr(owner, method, wrapped)

    noted(RolloutWorker, "generate", lambda requests, *rest: "ask " + requests[0].group.split("@")[1].split(".")[0])
    noted(RolloutWorker, "load_buckets", lambda *buckets: f"weights {buckets[0].version}")
    noted(ActorWorker, "update", lambda groups, reference: "update")
    hybrid_rl.run(small_config(*FAST, "run.steps=3", "train.async_steps=1"))
    assert calls == [
        "weights 0", "ask 1", "ask 2", "update", "weights 1", "ask 3", "update", "weights 2", "update", "weights 3",
    ]  # fmt: skip


def test_an_interrupted_run_goes_on_with_the_rollouts_that_it_had_asked_for(
    ahead: Path, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "step", calls=2)
        with pytest.raises(Interrupted, match="stopped after step 2"):
            hybrid_rl.run(small_config(*FAST, "train.async_steps=2"))
    stored = [json.loads(line) for line in (folder / "checkpoints" / "step_000002" / FILE).read_text().splitlines()]
    assert {(row["step"], tuple(row["policy_versions"])) for row in stored} == {(3, (0, 0)), (4, (1, 1))}
    resume(folder)
    assert_same_run(folder, ahead, steps=4)


def test_a_run_that_is_interrupted_within_a_step_goes_on_exactly(
    ahead: Path, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Flight, "scores", calls=2)
        with pytest.raises(Interrupted, match="stopped after step 1"):
            hybrid_rl.run(small_config(*FAST, "train.async_steps=2"))
    resume(folder)
    assert_same_run(folder, ahead, steps=4)


def test_stored_rollouts_of_another_config_are_refused(ahead: Path, tmp_path: Path) -> None:
    config = hybrid_rl.load_config(ahead / "config.yaml")
    material = prepare(config)
    dealer = Dealer(config, material.prompts, mode_schedule(config))
    found = stored_rollouts(ahead / "checkpoints" / "step_000002", dealer, material.format)
    assert {step: len(of_step) for step, of_step in found.items()} == {3: 16, 4: 16}
    (tmp_path / FILE).write_text((ahead / "checkpoints" / "step_000002" / FILE).read_text().split("\n")[0] + "\n")
    with pytest.raises(RunFolderError, match="does not hold the responses that the config asks for at step 3"):
        stored_rollouts(tmp_path, dealer, material.format)
    assert stored_rollouts(ahead, dealer, material.format) == {}


def test_a_run_whose_limit_is_raised_after_it_was_reached_goes_on_exactly(
    ahead: Path, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    """The limit ends it after step 2; the evaluation behind that is interrupted, so that it may go on."""
    folder, limit = tmp_path / "run", 1 + sum(metrics(ahead)[0][f"update_tokens/{mode}"] for mode in ("short", "long"))
    ended = ["train.async_steps=2", f"run.max_update_tokens={limit}", "evaluation.after=true"]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "checkpoint", calls=3)
        with pytest.raises(Interrupted, match="stopped after step 2"):
            hybrid_rl.run(small_config(*FAST, *ended))
    config = (folder / "config.yaml").read_text()
    raised = config.replace(f"max_update_tokens: {limit}", "max_update_tokens: null").replace(
        "  after: true", "  after: false"
    )
    assert len(raised) != len(config)
    (folder / "config.yaml").write_text(raised)
    resume(folder)
    assert_same_run(folder, ahead, steps=4)


def test_a_run_that_cannot_go_on_exactly_says_so() -> None:
    """Older weights would have sampled the next steps, two ahead, and are gone."""
    assert resampled({3, 4}, done=2, steps=2, last=9) is None
    assert resampled({}, done=2, steps=2, last=2) is None
    assert resampled({}, done=0, steps=2, last=9) is None, "before the first update the weights are the same"
    assert resampled({}, done=2, steps=0, last=9) is None
    assert "holds no rollouts of step 4, so" in (resampled({3}, done=2, steps=2, last=9) or "")
    assert "holds no rollouts of steps 3 to 5, so" in (resampled({}, done=2, steps=3, last=9) or "")


def test_sampling_is_accounted_for_in_the_step_that_trains_on_it(ahead: Path) -> None:
    """Each prompt and each token of a step's responses went through the sampler once; its images were encoded once."""
    for row in map(json.loads, (ahead / "metrics.jsonl").read_text().splitlines()):
        assert row["encodes_per_image/generate"] == 1.0 and row["padding/generate"] == 0.0
        assert row["forwarded_per_s/generate"] > 0


class Counting:
    """A rollout worker whose engine feeds a token a request."""

    def __init__(self) -> None:
        self._figures = RolloutFigures()

    def generate(self, requests: list[Any]) -> list[Any]:
        self._figures = RolloutFigures.total((self._figures, RolloutFigures(row_steps=len(requests))))
        return requests

    def take_figures(self) -> RolloutFigures:
        found, self._figures = self._figures, RolloutFigures()
        return found


def test_what_an_engine_did_belongs_to_the_rollouts_that_it_did_it_for() -> None:
    """Two steps are under way when the first is waited for, and an evaluation comes in between."""
    pool = RolloutPool(LocalCluster(StopSignal()), [InProcess(Counting), InProcess(Counting)], ahead=True)
    rewards: Any = SimpleNamespace(early=None)

    def asked(*groups: str) -> list[Any]:
        return [SimpleNamespace(group=group) for group in groups]

    first = pool.launch(asked("a", "a", "b"), rewards)
    second = pool.launch(asked("c", "c", "c", "d"), rewards)
    pool.generate(asked("e", "e"))
    assert [of_worker.row_steps for of_worker in first.figures()] == [2, 1]
    assert [of_worker.row_steps for of_worker in second.figures()] == [3, 1]
    assert pool.take_figures().row_steps == 2


WORDY = """
from dataclasses import replace
from rollouts.torch_engine import TorchEngine


class Wordy(TorchEngine):
    "Says the same at every call."

    def generate(self, requests):
        made = super().generate(requests)
        self.figures = replace(self.figures, notices=("the engine is wordy",))
        return made
"""


def test_what_the_engine_has_to_say_is_told_once(small_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "wordy.py").write_text(WORDY)
    engine = f"rollout.engine={tmp_path}/wordy.py:Wordy"
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "step", calls=2)
        with pytest.raises(Interrupted):
            hybrid_rl.run(small_config(*FAST, "train.async_steps=1", engine))
    resume(folder)
    found = summary(folder)
    assert [w for w in found["warnings"] if w["text"] == "the engine is wordy"] == [
        {"step": 1, "text": "the engine is wordy"}
    ]
    assert found["steps"] == 4


def test_mini_batches_are_clipped_against_the_beginning_of_the_step(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    hybrid_rl.run(small_config(*FAST, "run.steps=1", "train.async_steps=1", "train.mini_batches=2"))
    for mode in ("short", "long"):
        first = metrics(tmp_path / "run")[0]
        # Sampled on-policy: all weights are 1 also in the second mini-batch, where the policy has moved.
        assert first[f"importance_weight/{mode}"] == pytest.approx(1, abs=1e-5)


def test_dynamic_sampling_goes_with_it(small_config: Callable[..., Config], tmp_path: Path) -> None:
    """What replaces a dropped group is sampled by the newest weights."""
    (tmp_path / "mine.py").write_text("def same(ids): return 1.0\n")
    overrides = [
        *FAST, "run.steps=2", "train.async_steps=1", "admission.dynamic_sampling={max_rounds: 1}",
        f"rewards={{accuracy: {{target: '{tmp_path}/mine.py:same'}}}}",
    ]  # fmt: skip
    hybrid_rl.run(small_config(*overrides))
    second = rows(tmp_path / "run", 2)
    assert [row["policy_versions"][0] for row in second] == [0] * 16 + [1] * 16
    assert metrics(tmp_path / "run")[1]["lag_mean"] == 0.5
    assert summary(tmp_path / "run")["status"] == "completed"
