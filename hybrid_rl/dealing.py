"""What is asked for at a step: prompts, modes, seeds. The same wherever and whenever it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from hybrid_rl.algorithm.modes import deal_requests
from hybrid_rl.algorithm.refill import Vacancy, fill
from hybrid_rl.config import Config
from hybrid_rl.data.mixture import Mixture
from hybrid_rl.protocols import ModeSchedule
from hybrid_rl.records import Prompt, Request


class Dealer:
    """Makes the requests of a step."""

    def __init__(self, config: Config, prompts: Mixture, modes: ModeSchedule) -> None:
        self._config = config
        self._prompts = prompts
        self._modes = modes

    def first(self, step: int) -> list[Request]:
        """The requests that a step begins with; they depend on the step alone."""
        train = self._config.train
        prompts = self._prompts.draw(step, train.prompts_per_step)
        return self._requests(step, prompts, self._modes.assign(step, prompts, train.responses_per_prompt), 0)

    def again(
        self, step: int, wanted: Sequence[Vacancy], used: Mapping[str, int], first_place: int
    ) -> tuple[list[Request], dict[str, int]]:
        """Requests that replace what was dropped.

        Args:
            used: spare prompts used up so far, by source.
            first_place: number of prompts that the step has had; it makes groups and seeds new ones.

        Returns:
            The requests, and `used` after them.
        """
        prompts, used_now = fill(wanted, self._prompts, used, self._fits)
        counts = [vacancy.counts for vacancy in wanted]
        return self._requests(step, prompts, counts, first_place), used_now

    def _requests(
        self, step: int, prompts: Sequence[Prompt], counts: Sequence[Mapping[str, int]], first_place: int
    ) -> list[Request]:
        config = self._config
        return deal_requests(
            prompts,
            counts,
            config.modes,
            step=step,
            seed=config.run.seed,
            shares=partial(self._modes.shares, step),
            first_place=first_place,
        )

    def _fits(self, prompt: Prompt, counts: Mapping[str, int]) -> bool:
        """Where the data decide on the mode, a prompt replaces only one of its own mode."""
        if self._config.modes.assign != "column":
            return True
        (own,) = self._modes.assign(1, [prompt], 1)
        return own.keys() == counts.keys()
