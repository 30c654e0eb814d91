"""What a judge has cost."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts since the judge was built, in this process.

    Attributes:
        asked: responses that were brought before the judge; the others were decided by the rule in front of it.
        cache_hits: of those, verdicts that were known.
        requests: sent to the endpoint, repeated ones included.
        retries: repeated requests.
        failures: responses without a verdict in the end.
        prompt_tokens: that the endpoint says it has read.
        completion_tokens: that it says it has written.
    """

    asked: int = 0
    cache_hits: int = 0
    requests: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: count + getattr(other, name) for name, count in asdict(self).items()})


class Meter:
    """Adds up usage, from any thread."""

    def __init__(self) -> None:
        self._total = Usage()
        self._lock = threading.Lock()

    def add(self, usage: Usage) -> None:
        with self._lock:
            self._total += usage

    @property
    def total(self) -> Usage:
        return self._total
