"""The workers of a run as the loop sees them: one object a role, calls spread and gathered in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, Protocol

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.machine.yardstick import Yardstick
from hybrid_rl.records import Request, Rollout, Score
from hybrid_rl.rollout_figures import RolloutFigures
from hybrid_rl.scorer_pool.verdict import Verdict
from hybrid_rl.scoring import refuse_errors
from hybrid_rl.scoring.stages import STAGES, Stage
from hybrid_rl.scoring.summing import sum_up
from hybrid_rl.updates.forward_figures import ForwardFigures
from hybrid_rl.updates.grpo import UpdateFigures
from hybrid_rl.updates.trained_only import of_trained
from hybrid_rl.workers.broadcast import BroadcastWeights, can_broadcast, join
from hybrid_rl.workers.cluster import Cluster, Handle, Pending, gather
from hybrid_rl.workers.flight import Flight, StreamedFlight
from hybrid_rl.workers.outbox import Judges
from hybrid_rl.workers.sync import ActorWeights


class RolloutPool:
    """All rollout workers. They answer calls in the order that these are made in.

    Args:
        ahead: new weights are not waited for; what is generated next by them waits instead.
    """

    def __init__(self, cluster: Cluster, handles: Sequence[Handle], *, ahead: bool = False) -> None:
        self._cluster = cluster
        self._handles = handles
        self._ahead = ahead
        self._loading: list[Pending] = []
        self._broadcasts = False

    def ready(self) -> None:
        """Wait until all are up."""
        gather([handle.call("ready") for handle in self._handles])

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout a request, in order. A group stays together, so that its prompt is prefilled once."""
        groups = [list(members) for _, members in groupby(requests, key=lambda request: request.group)]
        return spread_over(self._handles, "generate", groups)

    def take_figures(self) -> RolloutFigures:
        """What the workers have done since they were asked last, but for what was launched: its flight tells that."""
        return RolloutFigures.total(gather([handle.call("take_figures") for handle in self._handles]))

    def launch(self, requests: Sequence[Request], rewards: RewardPool) -> Flight:
        """The same, without waiting; what comes back is scored by `rewards`, as early as can be."""
        groups = [list(members) for _, members in groupby(requests, key=lambda request: request.group)]
        shares, early = dealt(self._handles, groups), rewards.early
        if early is None or not self._cluster.overlaps:
            pending = [handle.call("generate", share) for handle, share in shares]
            return Flight(pending, self._loading, rewards, figures=_figures_of(shares))
        pending = [handle.call("generate_judged", share, early) for handle, share in shares]
        return StreamedFlight(pending, self._loading, rewards, self._cluster.adopt, figures=_figures_of(shares))

    def join(self, actor: Actor, timeout_s: float) -> bool:
        """Meet the actor for broadcasts, where every worker has a GPU to itself; returns whether they have.

        Args:
            timeout_s: how long one of them waits for the others.
        """
        handles = (actor.handle, *self._handles)
        if self._ahead or not can_broadcast(gather([handle.call("device_identity") for handle in handles])):
            return False
        join(actor.handle, self._handles, timeout_s)
        self._broadcasts = True
        return True

    def load_weights(self, weights: ActorWeights) -> None:
        """Hand all workers the same weights, moved once."""
        if self._ahead:
            self._loading = weights.send_ahead(self._handles)
        elif self._broadcasts:
            BroadcastWeights(weights.actor).send_to(self._handles)
        else:
            weights.send_to(self._handles)


def _figures_of(shares: Sequence[tuple[Handle, list[Any]]]) -> list[Pending]:
    """Asked for right behind the rollouts, of the same workers: they speak of these and of nothing else."""
    return [handle.call("take_figures") for handle, _ in shares]


class RewardPool:
    """All reward workers.

    Args:
        config: the rewards by part name.
        stages: at which they are called.
        others: further workers that the reward workers call.
    """

    def __init__(
        self,
        handles: Sequence[Handle],
        config: Mapping[str, RewardConfig],
        stages: frozenset[Stage] = STAGES,
        others: Sequence[Handle] = (),
    ) -> None:
        self._handles = handles
        self._others = others
        self._config = config
        self._stages = stages

    @property
    def early(self) -> Judges | None:
        """What can be judged before a batch is complete; None where that is nothing."""
        early = self._stages - {"batch"}
        return Judges(self._handles, early) if early else None

    def ready(self) -> None:
        """Wait until all are up."""
        gather([handle.call("ready") for handle in (*self._handles, *self._others)])

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout, in order. A group stays together: it is what some rewards look at.

        Raises:
            RewardError: a reward failed on more of them than is allowed.
        """
        scores: list[Score] = spread_over(self._handles, "score", _by_group(rollouts))
        return self._accepted(scores)

    def finish(self, rollouts: Sequence[Rollout], early: Sequence[Mapping[str, Verdict]]) -> list[Score]:
        """The same, where all but the rewards of whole batches have been called.

        Args:
            early: for each rollout, what these said.
        """
        found = [dict(verdicts) for verdicts in early]
        if "batch" in self._stages:
            late = frozenset[Stage](("batch",))
            pending = [handle.call("judge", share, late) for handle, share in dealt(self._handles, _by_group(rollouts))]
            verdicts = [of_one for judged in gather(pending) for of_one in judged.verdicts]
            found = [own | more for own, more in zip(found, verdicts, strict=True)]
        return self._accepted(sum_up(self._config, rollouts, found))

    def _accepted(self, scores: list[Score]) -> list[Score]:
        refuse_errors(scores, {name: part.max_error_share for name, part in self._config.items()})
        return scores


def _by_group(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    return [list(members) for _, members in groupby(rollouts, key=lambda rollout: rollout.request.group)]


class Actor:
    """The actor worker. Calls that change it or write it down are never interrupted halfway."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def _call(self, method: str, *arguments: Any) -> Any:
        return self.handle.call(method, *arguments).result(interruptible=False)

    def ready(self) -> None:
        """Wait until it is up. Nothing has begun that an interruption could break."""
        self.handle.call("ready").result()

    def yardstick(self) -> Yardstick:
        """What its work costs, and what its machine can do."""
        found: Yardstick = self.handle.call("yardstick").result()
        return found

    def warm_up(self, count: int) -> tuple[int, float]:
        done, loss = self._call("warm_up", count)
        return int(done), float(loss)

    def warm_up_done(self) -> int:
        return int(self._call("warm_up_done"))

    def end_warm_up(self) -> None:
        self._call("end_warm_up")

    def update(
        self, groups: Sequence[Group], reference: Sequence[Sequence[tuple[float, ...]]] | None
    ) -> tuple[int, UpdateFigures]:
        version, figures = self._call("update", groups, reference)
        return version, figures

    def reference_logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        found: list[list[tuple[float, ...]]] = self.handle.call("reference_logprobs", groups).result()
        return found

    def take_reference_figures(self) -> ForwardFigures:
        found: ForwardFigures = self._call("take_reference_figures")
        return found

    def weights(self) -> ActorWeights:
        return ActorWeights(self.handle)

    def save(self, folder: str) -> None:
        self._call("save", folder)


class Reference(Protocol):
    """Serves log-probabilities of the policy as it was before the first GRPO step."""

    def ready(self) -> None:
        """Wait until it is up."""
        ...

    def load_weights(self, weights: ActorWeights) -> None:
        """Take the weights that the first step begins with."""
        ...

    def logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        """Log-probability of each token of each sample of each group, in nats; empty where nothing is trained."""
        ...

    def take_figures(self) -> ForwardFigures:
        """What went through the model since this was asked last."""
        ...


class SeparateReference:
    """The reference as a worker of its own."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def ready(self) -> None:
        self._handle.call("ready").result()

    def load_weights(self, weights: ActorWeights) -> None:
        weights.send_to([self._handle])

    def logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        return of_trained(groups, lambda trained: self._handle.call("logprobs", trained).result())

    def take_figures(self) -> ForwardFigures:
        found: ForwardFigures = self._handle.call("take_figures").result(interruptible=False)
        return found


class AdapterOff:
    """The reference of a policy with an adapter: the actor with the adapter off. It is always there and never old."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def ready(self) -> None:
        return None

    def load_weights(self, weights: ActorWeights) -> None:
        return None

    def logprobs(self, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        return of_trained(groups, self._actor.reference_logprobs)

    def take_figures(self) -> ForwardFigures:
        return self._actor.take_reference_figures()


def spread_over(
    handles: Sequence[Handle], method: str, bundles: Sequence[Sequence[Any]], *, interruptible: bool = True
) -> list[Any]:
    """Deal bundles to workers in contiguous runs of like size, and return the flat results in the bundles' order."""
    pending = [handle.call(method, share) for handle, share in dealt(handles, bundles)]
    return [value for part in gather(pending, interruptible=interruptible) for value in part]


def dealt(handles: Sequence[Handle], bundles: Sequence[Sequence[Any]]) -> list[tuple[Handle, list[Any]]]:
    """Bundles dealt to workers in contiguous runs of like size; workers that get nothing are left out."""
    cuts = [round(i * len(bundles) / len(handles)) for i in range(len(handles) + 1)]
    shares = [[item for bundle in bundles[a:b] for item in bundle] for a, b in pairwise(cuts)]
    return [(handle, share) for handle, share in zip(handles, shares, strict=True) if share]
