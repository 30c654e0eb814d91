"""Writes down what a run does: metrics, samples, evaluations, checkpoints, summary, report."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.build import Run
from hybrid_rl.errors import EngineMismatch, Interrupted, UserError, WorkerDied
from hybrid_rl.insight.evaluation import evaluate, evaluation_metrics
from hybrid_rl.insight.metrics import step_metrics
from hybrid_rl.insight.part_watch import PartWatch
from hybrid_rl.insight.report import write_report
from hybrid_rl.insight.samples_log import sample_rows
from hybrid_rl.loggers import first_groups, open_loggers
from hybrid_rl.updates.grpo import UpdateFigures


class PhaseClock:
    """`with clock("generate"): ...` shows the phase and adds its seconds to `wall_s`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.wall_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._run.view.phase(phase)
        start = time.monotonic()
        yield
        self.wall_s[phase] = self.wall_s.get(phase, 0.0) + time.monotonic() - start


class Recorder:
    """Used as a context manager: whatever ends the run, its state and what is known of it are written down."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._first_step = run.done + 1
        # A resumed run has its last step on disk, with the metric of that step, which is no longer known here.
        self._saved: int | None = run.done or None
        self._metric: float | None = None
        self._summary: dict[str, Any] = run.folder.summary() or {"eval": {}}
        self._summary.setdefault("warnings", [])
        rows = run.folder.metrics()
        self._update_tokens = sum(_update_tokens(row) for row in rows)
        self._parts = PartWatch(
            list(run.config.rewards),
            list(run.config.modes.kinds),
            rows,
            [warning["text"] for warning in self._summary["warnings"]],
        )

    def __enter__(self) -> Recorder:
        self._write_summary("running")
        config = self._run.config
        self._loggers = open_loggers(config.log, self._run.folder.path, config.model_dump(mode="json"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loggers.close()
        if error is None:
            return
        stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
        # After bad input or a request to stop the weights are those of the last finished step. After a forced stop or
        # an unexpected error nobody knows; the checkpoint before is there.
        if isinstance(error, (Interrupted, UserError)) and not self._run.warm_up_needed:
            self.checkpoint()
        self._write_summary("interrupted" if stopped else "failed")
        write_report(self._run.folder.path)
        if stopped:
            raise Interrupted(self._how_to_go_on()) from error
        if isinstance(error, (UserError, WorkerDied)):
            raise type(error)(f"{error} ({self._how_to_go_on()})") from error

    @property
    def stopped(self) -> bool:
        """The run has used up `run.max_update_tokens`, in this session or before it."""
        limit = self._run.config.run.max_update_tokens
        return limit is not None and self._update_tokens >= limit

    def phases(self) -> PhaseClock:
        return PhaseClock(self._run)

    def rollouts(self, step: int, groups: Sequence[Group]) -> None:
        folder = self._run.folder
        folder.write_rollouts(step, sample_rows(step, groups, folder, self._run.material.format.prompt_text))
        log = self._run.config.log
        if log.to and (step - 1) % log.samples_every_steps == 0:
            self._loggers.samples(step, first_groups(groups))

    def step(
        self,
        step: int,
        version: int,
        groups: Sequence[Group],
        figures: UpdateFigures,
        reference: Sequence[Sequence[tuple[float, ...]]] | None,
        wall_s: dict[str, float],
    ) -> None:
        config = self._run.config
        learning_rate = config.train.optimizer.learning_rate
        metrics = step_metrics(
            groups,
            figures,
            reference,
            wall_s,
            step=step,
            version=version,
            learning_rate=learning_rate,
            shares=self._run.modes.shares(step),
            thoughts=self._run.grouping.thoughts,
        )
        self._metric = metrics.get(config.checkpoints.keep_best or "")
        self._run.folder.append("metrics.jsonl", metrics)
        self._loggers.metrics(step, metrics)
        self._update_tokens += _update_tokens(metrics)
        self._run.done = step
        self._run.view.step(metrics, config.run.steps)
        for sentence in self._parts.step(metrics):
            self._summary["warnings"].append({"step": step, "text": sentence})
            self._run.view.note(f"warning      {sentence}")
        if step == self._first_step:
            self._check_on_policy(figures.ratio_deviation)

    def evaluation(self, when: Literal["before", "after"] | int) -> None:
        """Evaluate; `before` and `after` go into the summary, a step into eval.jsonl."""
        run = self._run
        prompts, modes = run.material.eval_prompts, run.config.modes
        name = f"evaluation {when}" if isinstance(when, str) else f"evaluation at step {when}"
        run.view.stage(name, len(prompts) * len(modes.kinds))
        with run.clock("evaluate"):
            found = evaluate(
                prompts,
                modes,
                run.rollouts,
                run.rewards,
                seed=run.config.run.seed,
                thoughts=run.grouping.thoughts,
                progress=lambda done: run.view.advance(done, {}),
                keep=lambda rows: run.folder.write_evaluation(when, rows),
            )
        self._loggers.metrics(run.done, evaluation_metrics(found))
        if isinstance(when, str):
            self._summary["eval"][when] = found
            self._write_summary("running")
        else:
            run.folder.append("eval.jsonl", {"step": when, "eval": found})
            run.view.stage("training", run.config.run.steps)

    def checkpoint(self) -> None:
        """Save the state after the last finished step, once."""
        run, rules = self._run, self._run.config.checkpoints
        if self._saved != run.done:
            run.view.phase("save")
            with run.clock("save"):
                run.folder.write_checkpoint(run.actor.save, "train", run.done, self._metric, run.admission.to_json())
                run.folder.prune_checkpoints(rules.keep_last, rules.best_is)
                self._write_summary("running")
                write_report(run.folder.path)
            self._saved = run.done

    def finish(self) -> dict[str, Any]:
        self._write_summary("completed")
        write_report(self._run.folder.path)
        return self._summary

    def _how_to_go_on(self) -> str:
        found = self._run.folder.checkpoints()
        if not found:  # forced to stop within the warm-up
            return "nothing was saved yet; start anew"
        where = "warm-up step" if found[-1].stage == "warmup" else "step"
        return f"stopped after {where} {found[-1].step}; go on with `hybrid-rl train --resume {self._run.folder.path}`"

    def _check_on_policy(self, deviation: float) -> None:
        """On-policy, sampler and trainer are the same function; if they differ, every later ratio is wrong."""
        tolerance = self._run.config.train.on_policy_tolerance
        if tolerance is None:
            tolerance = 1e-3 if self._run.material.full_precision else 0.3
        if deviation > tolerance:
            raise EngineMismatch(
                f"on the first step the trainer's and the sampler's probability of a token differ by a factor of up to "
                f"1 + {deviation:.2g}, more than train.on_policy_tolerance ({tolerance:g}); the rollout engine does "
                f"not compute what the actor computes"
            )

    def _write_summary(self, status: str) -> None:
        run = self._run
        phases: Counter[str] = Counter()
        tokens: dict[str, dict[str, int]] = defaultdict(lambda: {"rollout": 0, "update": 0})
        for mode in run.config.modes.kinds:
            tokens[mode] = {"rollout": 0, "update": 0}
        for row in run.folder.metrics():
            for key, value in row.items():
                name, _, rest = key.partition("/")
                if name == "wall_s":
                    phases[rest] += value
                elif name in ("rollout_tokens", "update_tokens"):
                    tokens[rest][name.removesuffix("_tokens")] += int(value)
        self._summary |= {
            "status": status,
            "run_dir": str(run.folder.path),
            "steps": run.done,
            "seed": run.config.run.seed,
            "policy": {
                "parameters": run.material.num_parameters,
                "trained_parameters": run.material.num_trained_parameters,
            },
            "wall_s": {**run.wall_s, **phases},
            "stages_wall_s": run.wall_s,
            "tokens": dict(tokens),
        }
        run.folder.write_summary(self._summary)


def _update_tokens(metrics: Mapping[str, float]) -> float:
    return sum(value for key, value in metrics.items() if key.startswith("update_tokens/"))
