"""Writes down what a run does: metrics, samples, evaluations, checkpoints, summary, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.build import Run
from hybrid_rl.collecting import Collected
from hybrid_rl.config.condition import Condition
from hybrid_rl.errors import AlarmStop, EngineMismatch, Interrupted, UserError, WorkerDied
from hybrid_rl.insight.alarms import Alarm, AlarmWatch
from hybrid_rl.insight.collection_metrics import RefillWatch, collection_metrics
from hybrid_rl.insight.evaluation_metrics import evaluation_metrics
from hybrid_rl.insight.evaluator import Evaluator
from hybrid_rl.insight.metrics import step_metrics
from hybrid_rl.insight.part_watch import PartWatch
from hybrid_rl.insight.phase_clock import PhaseClock
from hybrid_rl.insight.report import write_report
from hybrid_rl.insight.run_accounting import forget, step_accounting, untold
from hybrid_rl.insight.samples_log import sample_rows
from hybrid_rl.insight.spending import spent, update_tokens
from hybrid_rl.insight.thought_metrics import Markers, thought_metrics
from hybrid_rl.loggers import first_groups, open_loggers
from hybrid_rl.updates.grpo import UpdateFigures

_REPORT_EVERY_S = 20.0
"""A report takes half a second: more than a step of a small model. At its end every run writes one in any case."""


class Recorder:
    """Used as a context manager: whatever ends the run, its state and what is known of it are written down."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._first_step = run.done + 1
        # A resumed run has its last step on disk, with the metric of that step, which is no longer known here.
        self._saved: int | None = run.done or None
        self._metric: float | None = None
        self._reported = time.monotonic()
        self._summary: dict[str, Any] = run.folder.summary() or {"eval": {}}
        self._summary.setdefault("warnings", [])
        rows = run.folder.metrics()
        self._now: dict[str, float] = dict(rows[-1]) if rows else {}
        self._update_tokens = sum(update_tokens(row) for row in rows)
        self._evaluator = Evaluator(run.config, run.material, run.rollouts, run.rewards)
        self._markers = Markers(run.config.alarms.markers)
        self._alarms = AlarmWatch(
            run.config.alarms,
            list(run.config.modes.kinds),
            rows,
            self._past_evaluations(),
            [(warning["alarm"], warning["mode"]) for warning in self._summary["warnings"] if "alarm" in warning],
        )
        self._parts = PartWatch(
            list(run.config.rewards),
            list(run.config.modes.kinds),
            rows,
            [warning["text"] for warning in self._summary["warnings"]],
        )

        self._refill = RefillWatch(run.config, [warning["text"] for warning in self._summary["warnings"]])

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
        status = "stopped" if isinstance(error, AlarmStop) else "interrupted" if stopped else "failed"
        self._write_summary(status)
        write_report(self._run.folder.path)
        if stopped:
            raise Interrupted(self._how_to_go_on()) from error
        if isinstance(error, (UserError, WorkerDied)):
            raise type(error)(f"{error} ({self._how_to_go_on()})") from error

    def phases(self) -> PhaseClock:
        return PhaseClock(self._run.view.phase)

    def rollouts(self, step: int, groups: Sequence[Group]) -> None:
        folder = self._run.folder
        folder.write_rollouts(step, sample_rows(step, groups, folder, self._run.material.format))
        log = self._run.config.log
        if log.to and (step - 1) % log.samples_every_steps == 0:
            self._loggers.samples(step, first_groups(groups, self._run.material.format.clip))

    def step(
        self,
        step: int,
        version: int,
        collected: Collected,
        figures: UpdateFigures,
        reference: Sequence[Sequence[tuple[float, ...]]] | None,
        wall_s: dict[str, float],
    ) -> None:
        config, groups = self._run.config, collected.groups
        metrics = step_metrics(
            groups,
            figures,
            reference,
            wall_s,
            step=step,
            version=version,
            shares=self._run.modes.shares(step),
            thoughts=self._run.grouping.thoughts,
        )
        metrics |= thought_metrics(groups, self._run.grouping.thoughts, self._markers)
        accounts, notices = step_accounting(self._run, collected, figures, wall_s)
        metrics |= accounts
        metrics |= collection_metrics(collected, config, version - 1)
        self._now = metrics
        self._metric = metrics.get(config.checkpoints.keep_best or "")
        self._run.folder.append("metrics.jsonl", metrics)
        self._loggers.metrics(step, metrics)
        self._update_tokens += update_tokens(metrics)
        self._run.done = step
        self._run.view.step(metrics, config.run.steps)
        new = untold(notices, self._summary["warnings"])
        for sentence in (*new, *self._parts.step(metrics), *self._refill.step(collected)):
            self._warn({"step": step, "text": sentence})
        if step == self._first_step and not metrics.get("lag_max"):
            self._check_on_policy(figures.ratio_deviation)
        self._sound(step, self._alarms.step(metrics))

    def evaluation(self, when: Literal["before", "after"] | int) -> None:
        """Evaluate what is due; `before` and `after` go into the summary, a step into eval.jsonl."""
        proper, sets = self._due(when)
        if not proper and not sets:
            return
        run, evaluator = self._run, self._evaluator
        label = when if isinstance(when, str) else f"at step {when}"
        found: dict[str, Any] = {}

        def measured(name: str, evaluate: Callable[..., dict[str, Any]], of: str, *of_set: str) -> dict[str, Any]:
            keep = partial(run.folder.write_evaluation, when, of=of)
            return self._measure(f"{name} {label}", partial(evaluate, keep=keep), *of_set)

        if proper:
            found["eval"] = measured("evaluation", evaluator.plain, "")
        if proper and run.config.evaluation.blind:
            found["eval_blind"] = measured("blind evaluation", evaluator.blind, "blind")
        if sets:
            found["eval_sets"] = {n: measured(f"evaluation of {n}", evaluator.on_set, f"set_{n}", n) for n in sets}
        metrics = evaluation_metrics(found.get("eval"), found.get("eval_blind"), found.get("eval_sets"))
        self._now |= metrics
        self._loggers.metrics(run.done, metrics)
        if isinstance(when, str):
            for kind, figures in found.items():
                self._summary.setdefault(kind, {})[when] = figures
            self._write_summary("running")
            self._sound(run.done, self._alarms.evaluation(run.done, metrics), may_stop=False)
        else:
            run.folder.append("eval.jsonl", {"step": when, **found, "metrics": metrics})
            run.view.stage("training", run.config.run.steps)
            self._sound(when, self._alarms.evaluation(when, metrics))

    def catch_up(self) -> None:
        """Do for the last finished step of a resumed run what an interruption may have kept it from."""
        done = self._run.done
        if not done or self.stopped:
            return
        past = next((row for row in self._run.folder.evaluations() if row["step"] == done), None)
        self._now |= past.get("metrics", {}) if past else {}
        if past is None:
            self.evaluation(done)
        self.check_stop()

    @property
    def stopped(self) -> bool:
        """`run.max_update_tokens` are used up or `run.stop_when` is met, in this session or before it."""
        limit = self._run.config.run.max_update_tokens
        if limit is not None and self._update_tokens >= limit:
            return True
        found = self._summary.get("stopped")
        return found is not None and found["step"] <= self._run.done

    def check_stop(self) -> None:
        """Find out whether `run.stop_when` is met by the metrics of the step and its evaluations."""
        wanted = self._run.config.run.stop_when
        condition = Condition.parse(wanted) if wanted is not None else None
        if condition is not None and condition.met(self._now):
            reason = f"run.stop_when: {condition} ({condition.metric} is {self._now[condition.metric]:.4g})"
            self._summary["stopped"] = {"step": self._run.done, "reason": reason}
            self._run.view.note(f"stop         after step {self._run.done}: {reason}")

    def checkpoint(self) -> None:
        """Save the state after the last finished step, once."""
        run, rules = self._run, self._run.config.checkpoints
        if self._saved != run.done:
            run.view.phase("save")
            with run.clock("save"):
                run.folder.write_checkpoint(self._save, "train", run.done, self._metric, run.admission.to_json())
                run.folder.prune_checkpoints(rules.keep_last, rules.best_is)
                self._write_summary("running")
                if time.monotonic() - self._reported > _REPORT_EVERY_S:
                    write_report(run.folder.path)
                    self._reported = time.monotonic()
            self._saved = run.done

    def _save(self, folder: str) -> None:
        self._run.actor.save(folder)
        self._run.ahead.save(Path(folder), self._run.done)

    def finish(self) -> dict[str, Any]:
        self._write_summary("completed")
        write_report(self._run.folder.path)
        return self._summary

    def _due(self, when: str | int) -> tuple[bool, list[str]]:
        """Whether the evaluation proper is due, and which sets are."""
        evaluation = self._run.config.evaluation
        if isinstance(when, str):
            return True, list(evaluation.sets)
        proper = evaluation.every_steps is not None and when % evaluation.every_steps == 0
        return proper, [n for n in evaluation.sets if (every := evaluation.every(n)) is not None and when % every == 0]

    def _measure(self, name: str, evaluate: Callable[..., dict[str, Any]], *of_set: str) -> dict[str, Any]:
        run = self._run
        run.view.stage(name, self._evaluator.responses(*of_set))
        with run.clock("evaluate"):
            found = evaluate(*of_set, progress=lambda done: run.view.advance(done, {}))
        for notice in untold(forget(run), self._summary["warnings"]):
            self._warn({"step": run.done, "text": notice})
        return found

    def _past_evaluations(self) -> list[tuple[int, dict[str, float]]]:
        """Step and metrics of the evaluations so far, of a resumed run."""
        tables = [self._summary.get(kind, {}).get("before") for kind in ("eval", "eval_blind")]
        first = [(0, evaluation_metrics(*tables))] if tables[0] else []
        return first + [(row["step"], row["metrics"]) for row in self._run.folder.evaluations() if "metrics" in row]

    def _warn(self, warning: dict[str, Any]) -> None:
        self._summary["warnings"].append(warning)
        self._run.view.note(f"warning      {warning['text']}")

    def _sound(self, step: int, alarms: Sequence[Alarm], *, may_stop: bool = True) -> None:
        """Write alarms down; raise an AlarmStop if one of them is to stop the run."""
        for alarm in alarms:
            self._warn({"step": step, "text": alarm.text, "alarm": alarm.name, "mode": alarm.mode})
        stopping = [alarm.text for alarm in alarms if alarm.action == "stop"]
        if stopping and may_stop:
            raise AlarmStop("; ".join(stopping))

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
        phases, tokens = spent(run.folder.metrics(), list(run.config.modes.kinds))
        self._summary |= {
            "status": status,
            "run_dir": str(run.folder.path),
            "steps": run.done,
            "seed": run.config.run.seed,
            "policy": {
                "parameters": run.material.num_parameters,
                "trained_parameters": run.material.num_trained_parameters,
            },
            "machine": run.yardstick.kernels.to_json(),
            "wall_s": {**run.wall_s, **phases},
            "stages_wall_s": run.wall_s,
            "tokens": tokens,
        }
        run.folder.write_summary(self._summary)
