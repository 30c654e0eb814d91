"""A rule in front of a judge: any reward, which decides where it can."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_rl.records import Outcome
from hybrid_rl.scorer_pool.loading import POLICY, RewardSpec, load_reward
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring.calls import Call
from hybrid_rl.scoring.runners import Placed, Runners
from rewards.judging.errors import JudgeError

_KEY = "behind"


class Rule:
    """A reward, called where it says it runs: in a process that can be killed, if it says nothing.

    Args:
        target: as in a config.
        args: arguments of the reward, if it is a class.
        search: folders that files and modules are looked up in.
        timeout_s: limit of one call.

    Raises:
        PluginError: it does not load.
        ValueError: it does not score one response at a time, or asks for the policy.
    """

    def __init__(self, target: str, args: Mapping[str, Any], search: Sequence[str], timeout_s: float) -> None:
        spec = RewardSpec(_KEY, target, dict(args), tuple(search))
        self._reward = load_reward(spec)
        if self._reward.per != "sample" or POLICY in self._reward.wanted or self._reward.wants_all:
            raise ValueError(f"behind: '{target}' cannot stand in front; it must score one response by names it lists")
        self._target = target
        self._timeout_s = timeout_s
        self._runners = Runners({_KEY: Placed(spec, self._reward, self._reward.runs_in)}, processes=1)
        self._lock = threading.Lock()

    @property
    def required(self) -> frozenset[str]:
        """Names that it must be called with."""
        return self._reward.required

    @property
    def wanted(self) -> frozenset[str]:
        """Names that it takes."""
        return self._reward.wanted

    async def verdict(self, offered: Mapping[str, Any]) -> Verdict:
        """What it says: OK, an abstention, or that it was over its limit.

        Raises:
            JudgeError: it failed.
        """
        if offered.get("answer") is None and self._reward.needs_answer:
            return Verdict(Outcome.ABSTAIN)
        call = Call(_KEY, self._reward.chosen(offered), None, self._timeout_s)
        verdict = await asyncio.to_thread(self._run, call)
        if verdict.outcome is Outcome.ERROR:
            raise JudgeError(f"the rule '{self._target}' in front of the judge {verdict.reason}")
        return verdict

    def _run(self, call: Call) -> Verdict:
        with self._lock:
            ((verdict,),) = self._runners.run([call])
            return verdict
