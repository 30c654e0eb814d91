"""The actor: the policy that is trained, and its optimizer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.algorithm.schedule import wsd
from hybrid_rl.machine.yardstick import Yardstick, linear_weights
from hybrid_rl.policy import training_mode
from hybrid_rl.run_folder import read_json
from hybrid_rl.stages.supervised import SupervisedStage
from hybrid_rl.updates.forward import group_logprobs
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.updates.grpo import UpdateFigures, grpo_update
from hybrid_rl.updates.optimizer import PartOptimizer
from hybrid_rl.workers.broadcast import BroadcastMember, Rendezvous, device_identity, free_address
from hybrid_rl.workers.setup import WorkerSetup
from hybrid_rl.workers.weights import Bucket, Span, plan_buckets, read_bucket

_OPTIMIZER = "optimizer.safetensors"
_STATE = "actor.json"


class ActorWorker:
    """Holds weights and optimizer; its version number counts updates."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._config = setup.config
        self._policy = setup.load(trainable=True)
        self._kernels = setup.kernels()
        self._stage: SupervisedStage | None = None
        self._optimizer: PartOptimizer | None = None
        self._version = 0
        self._reference_figures = ForwardFigures()
        self._member: BroadcastMember | None = None
        self._buckets: list[list[Span]] = []
        self._rules = loss_rules(setup.config)
        if setup.checkpoint is not None and (Path(setup.checkpoint) / _STATE).is_file():
            self._load(Path(setup.checkpoint))

    def ready(self) -> None:
        """Answers once the worker is up."""

    def yardstick(self) -> Yardstick:
        """What updates cost, and what their machine can do."""
        dtype = str(self._policy.compute_dtype).removeprefix("torch.")
        return Yardstick(kernels=self._kernels, linear_weights=linear_weights(self._policy.model), dtype=dtype)

    def warm_up(self, count: int) -> tuple[int, float]:
        """Take up to `count` supervised steps.

        Returns:
            Steps taken in all, and the mean loss of these ones, nats a token.
        """
        stage = self._supervised()
        with training_mode(self._policy), self._kernels.matmul():
            loss = stage.advance(count)
        return stage.done, loss

    def warm_up_done(self) -> int:
        """Supervised steps taken in all."""
        return self._supervised().done

    def end_warm_up(self) -> None:
        """Forget the supervised optimizer; GRPO starts with a fresh one."""
        self._stage = None

    def update(
        self, groups: Sequence[Group], reference: Sequence[Sequence[tuple[float, ...]]] | None
    ) -> tuple[int, UpdateFigures]:
        """Train on the groups of a step and return the new version with what was measured."""
        config = self._config.train
        with training_mode(self._policy), self._own_randomness(), self._kernels.matmul():
            scale = wsd(self._version + 1, self._config.run.steps, config)
            figures = grpo_update(self._policy, self._grpo_optimizer(), groups, reference, config, self._rules, scale)
        self._version += 1
        return self._version, figures

    def reference_logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        """As `ReferenceWorker.logprobs`, by the weights under the adapter. Only with `model.lora`."""
        assert self._policy.lora is not None
        with self._policy.lora.off(), self._kernels.matmul():
            budget = self._config.train.max_tokens_per_micro_batch
            return group_logprobs(self._policy, groups, budget, self._reference_figures)

    def take_reference_figures(self) -> ForwardFigures:
        """As `ReferenceWorker.take_figures`."""
        found, self._reference_figures = self._reference_figures, ForwardFigures()
        return found

    def weight_buckets(self) -> int:
        """How many buckets the weights that are trained make."""
        self._buckets = plan_buckets(self._policy.trained_parameters(), self._dtype_sent)
        return len(self._buckets)

    def weight_bucket(self, number: int) -> Bucket:
        """One of them. All weights go in the dtype they are computed in, an adapter, computed so, in float32."""
        parameters = self._policy.trained_parameters()
        return read_bucket(parameters, self._buckets, number, self._dtype_sent, self._version)

    def device_identity(self) -> str:
        """Which GPU this is; empty for a CPU."""
        return device_identity(self._policy.device)

    def meeting_point(self) -> str:
        """Where receivers of a broadcast may meet this worker."""
        return free_address()

    def join_broadcast(self, rendezvous: Rendezvous, rank: int) -> None:
        """Become the sender."""
        self._member = BroadcastMember(rendezvous, rank, self._policy.device)

    def broadcast_weights(self) -> int:
        """Send all weights to those who have joined; returns their version."""
        assert self._member is not None
        self._member.send(self._policy.trained_parameters(), self._dtype_sent)
        return self._version

    @property
    def _dtype_sent(self) -> torch.dtype:
        return self._policy.compute_dtype if self._policy.lora is None else torch.float32

    def save(self, folder: str) -> None:
        """Write everything needed to go on: a folder that also loads as a model, or as an adapter of its base."""
        path = Path(folder)
        if self._policy.lora is not None:
            self._policy.lora.save(path)
        else:
            self._policy.model.save_pretrained(path)
        self._policy.processor.save_pretrained(path)
        optimizer = self._stage.optimizer if self._stage is not None else self._optimizer
        if optimizer is not None:
            optimizer.save(path / _OPTIMIZER)
        state = {"version": self._version, "warmup_steps": self._stage.done if self._stage is not None else None}
        (path / _STATE).write_text(json.dumps(state))

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """What an update draws (dropout) depends on the seed and its number alone: a resumed run draws the same."""
        devices = [self._policy.device] if self._policy.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._config.run.seed * 1_000_003 + self._version)
            yield

    def _load(self, path: Path) -> None:
        state = read_json(path / _STATE)
        self._version = state["version"]
        if state["warmup_steps"] is not None:
            optimizer = self._supervised(done=state["warmup_steps"]).optimizer
        else:
            optimizer = self._grpo_optimizer()
        if (path / _OPTIMIZER).is_file():
            optimizer.load(path / _OPTIMIZER)

    def _supervised(self, done: int = 0) -> SupervisedStage:
        if self._stage is None:
            self._stage = SupervisedStage(self._policy, self._config, done=done)
        return self._stage

    def _grpo_optimizer(self) -> PartOptimizer:
        if self._optimizer is None:
            model = self._config.model
            self._optimizer = PartOptimizer(
                self._policy.model, self._config.train.optimizer, model.parts, self._policy.trained_parameters()
            )
        return self._optimizer
