"""From the actor to the others: weights move bucket by bucket and never through the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid_rl.workers.cluster import Handle, Pending, gather


@dataclass(frozen=True, slots=True)
class ActorWeights:
    """The actor's weights as they are when they are sent."""

    actor: Handle

    def send_to(self, receivers: Sequence[Handle]) -> None:
        """Give all receivers the same weights; returns when they have them. It is not interrupted halfway.

        Two buckets are on their way at a time: one is made while the one before is copied into place.

        Raises:
            WorkerDied: one of the workers did.
        """
        loading: list[Pending] = []
        for number in range(self._count()):
            bucket = self.actor.call_kept("weight_bucket", number).result(interruptible=False)
            gather(loading, interruptible=False)
            loading = [receiver.call("load_bucket", bucket) for receiver in receivers]
        gather(loading, interruptible=False)

    def send_ahead(self, receivers: Sequence[Handle]) -> list[Pending]:
        """The same without waiting, for receivers that are at work: they take the weights when they have finished it.

        Until then the object store holds one copy of the weights.
        """
        buckets = [
            self.actor.call_kept("weight_bucket", number).result(interruptible=False) for number in range(self._count())
        ]
        # One call, so that nobody else's comes in between.
        return [receiver.call("load_buckets", *buckets) for receiver in receivers]

    def _count(self) -> int:
        count: int = self.actor.call("weight_buckets").result(interruptible=False)
        return count
