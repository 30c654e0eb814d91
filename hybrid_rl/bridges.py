"""One reward, every trainer: a reward of ours as TRL's reward function and as verl's `compute_score`.

Signatures: TRL 1.16 `f(prompts, completions, completion_ids, **columns) -> list[float | None]`; verl 0.9
`f(data_source, solution_str, ground_truth, extra_info) -> float | dict`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from hybrid_rl.errors import PluginError, RewardError
from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.loading import POLICY, Per, RewardSpec, load_reward
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.calls import Call
from hybrid_rl.scoring.runners import Placed, Runners

THINK = ("<think>", "</think>")


class _Bridge:
    """Calls a reward in killable processes, from any thread.

    Args:
        target: `module:name`, `file.py:name` or an entry point, as in a config.
        args: arguments of the reward, if it is a class.
        search: folders that files and modules are looked up in.
        timeout_s: limit of one verdict; None for what the reward declares.
        processes: scorers that work at the same time.
        think: the tags around a thought.

    Raises:
        PluginError: the reward does not load, or asks for the policy.
    """

    def __init__(
        self,
        target: str,
        *,
        args: Mapping[str, Any] | None = None,
        search: Sequence[str] = (),
        timeout_s: float | None = None,
        processes: int = 2,
        think: tuple[str, str] = THINK,
    ) -> None:
        self._spec = RewardSpec(target.rpartition(":")[2], target, dict(args or {}), tuple(search))
        self._timeout_s = timeout_s
        self._processes = processes
        self._think = think
        self.__name__ = self._spec.name
        self._open()

    def _open(self) -> None:
        self._reward = load_reward(self._spec)
        if POLICY in self._reward.required:
            raise PluginError(
                f"'{self._spec.target}' asks for the policy, which no other trainer lends to a reward and no column "
                f"can give; train with `hybrid-rl train`, or choose a reward that does not ask for it"
            )
        placed = Placed(self._spec, self._reward, self._reward.runs_in)
        self._runners = Runners({self._spec.name: placed}, processes=self._processes)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # Trainers send reward functions to other processes; each has scorers of its own.
        return {name: value for name, value in vars(self).items() if name not in ("_reward", "_runners", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _verdicts(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Score responses; each row has `text` and whatever else is known. Neighbours with one prompt are a group.

        Raises:
            PluginError: the reward asks for what the trainer does not give.
            RewardError: it failed on a response.
        """
        found: dict[int, Verdict] = {}
        asked: list[tuple[int, dict[str, Any]]] = []
        for place, row in enumerate(rows):
            thought, answer, leaked = split_thought(row["text"], self._think)
            closed = answer is not None and not leaked
            offered = {"thought": thought, "answer": answer, "leaked": leaked, "well_formed": closed, **row}
            missing = sorted(self._reward.required - offered.keys())
            if missing:
                raise PluginError(
                    f"'{self._spec.target}' asks for '{missing[0]}', which is not among {', '.join(sorted(offered))}; "
                    f"add such a column to the data"
                )
            if answer is None and self._reward.needs_answer:
                absent = self._reward.without_answer
                found[place] = Verdict(Outcome.ABSTAIN if absent is None else Outcome.OK, absent)
            else:
                asked.append((place, offered))
        bundles = _bundled(asked, self._reward.per)
        with self._lock:
            verdicts = self._runners.run([self._call([offered for _, offered in bundle]) for bundle in bundles])
        for bundle, answers in zip(bundles, verdicts, strict=True):
            for (place, _), verdict in zip(bundle, answers, strict=True):
                if verdict.outcome is Outcome.ERROR:
                    sentence = f"'{self._spec.target}' on response {place} of the batch {verdict.reason}"
                    raise RewardError(sentence) from verdict.cause
                found[place] = verdict
        return [found[place] for place in range(len(rows))]

    def _call(self, bundle: Sequence[Mapping[str, Any]]) -> Call:
        each = [self._reward.chosen(offered) for offered in bundle]
        each_s = self._timeout_s or self._reward.timeout_s
        if self._reward.per == "sample":
            return Call(self._spec.name, each[0], None, each_s)
        arguments = {name: [values.get(name) for values in each] for name in each[0]}
        return Call(self._spec.name, arguments, len(each), each_s * len(each))


class TrlReward(_Bridge):
    """A reward as one of `GRPOTrainer(reward_funcs=[...])`.

    The reward may ask for `answer`, `thought`, `text`, `ids`, `well_formed`, `leaked` and every column of the data set.
    Where it abstains or is over its limit TRL gets None, and leaves the sample out.

    Args:
        gold: the column that the reward knows as `gold`.
        further: see `_Bridge`.
    """

    def __init__(self, target: str, *, gold: str = "gold", **further: Any) -> None:
        super().__init__(target, **further)
        self._gold = gold

    def __call__(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One score a completion; a conversational completion is the text of its messages."""
        lists = {
            name: values
            for name, values in columns.items()
            if isinstance(values, (list, tuple)) and len(values) == len(completions)
        }
        rows = []
        for place, completion in enumerate(completions):
            row = {name: values[place] for name, values in lists.items()} | {"text": _text(completion)}
            if self._gold in row:
                row["gold"] = row[self._gold]
            if completion_ids is not None:
                row["ids"] = tuple(completion_ids[place])
            rows.append(row)
        return [verdict.value for verdict in self._verdicts(rows)]


class VerlReward(_Bridge):
    """A reward as verl's `compute_score` (`reward.custom_reward_function.path` and `.name`).

    The reward may ask for `answer`, `thought`, `text`, `well_formed`, `leaked`, `gold`, `task` (the data source) and
    every key of `extra_info`. verl knows no abstention: such a sample gets `abstained_score`, and 1 under `abstained`.
    """

    def __init__(self, target: str, *, abstained_score: float = 0.0, **further: Any) -> None:
        super().__init__(target, **further)
        if self._reward.per != "sample":
            raise PluginError(f"'{target}' scores a whole {self._reward.per}; verl asks for one response at a time")
        self._abstained_score = abstained_score

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **further: Any,
    ) -> dict[str, float]:
        """`score` for training; the rest become metrics."""
        row = {**further, **(extra_info or {}), "text": solution_str, "gold": ground_truth, "task": data_source}
        (verdict,) = self._verdicts([row])
        abstained = verdict.value is None
        score = self._abstained_score if verdict.value is None else verdict.value
        return {"score": score, "acc": score, "abstained": float(abstained)}


def _bundled(asked: Sequence[tuple[int, dict[str, Any]]], per: Per) -> list[list[tuple[int, dict[str, Any]]]]:
    """The responses of each call."""
    if per == "sample":
        return [[one] for one in asked]
    if per == "batch":
        return [list(asked)] if asked else []
    return [list(members) for _, members in groupby(asked, key=lambda one: one[1].get("prompt"))]


def split_thought(text: str, think: tuple[str, str] = THINK) -> tuple[str, str | None, bool]:
    """Thought, final answer and `leaked` of a response given as text.

    A prompt may end in the opening tag, so a closing one alone ends a thought. An open thought has no answer, and more
    than one block is a leak, as in `ChatFormat.parse`.
    """
    opening, closing = think
    thought, closed, answer = text.rpartition(closing)
    if not closed:
        return (text.partition(opening)[2].strip(), None, False) if opening in text else ("", text.strip(), False)
    inner = thought.lstrip().removeprefix(opening)
    leaked = opening in inner or closing in inner or opening in answer
    return inner.strip(), None if opening in answer else answer.strip(), leaked


def _text(completion: Any) -> str:
    """The text of a completion: itself, or what its messages say."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_content(message["content"]) for message in completion if message.get("role") == "assistant")


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or ())
