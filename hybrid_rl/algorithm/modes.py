"""Which prompt is answered in which mode, and the requests that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hybrid_rl.algorithm.length_target import with_target
from hybrid_rl.algorithm.quota import quotas
from hybrid_rl.config.modes import ModesConfig
from hybrid_rl.records import Prompt, Request, stable_seed


class StratifiedModes:
    """One mode a prompt, in exact proportion (MiniCPM-V 4.5, appendix A: half of 128 prompts think long).

    The counts of a step follow the cumulative quota of the run, so 128 prompts at 0.5 are 64 and 64 in every step, and
    odd numbers even out over steps. Along the list of prompts the modes alternate as evenly as their counts allow;
    since that list is ordered by source, every source gets its share of each mode to within one prompt.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = dict(shares)

    def assign(self, step: int, num_prompts: int) -> list[str]:
        counts = quotas(list(self.shares.values()), (step - 1) * num_prompts, step * num_prompts)
        modes = spread(dict(zip(self.shares, counts, strict=True)))
        # The pattern turns from step to step: a source that always has the same places is tied to no mode.
        turn = (step - 1) % max(1, num_prompts)
        return modes[turn:] + modes[:turn]


def spread(counts: Mapping[str, int]) -> list[str]:
    """A list with each name as often as counted, every prefix as close to proportion as possible.

    >>> spread({"a": 2, "b": 4})
    ['b', 'a', 'b', 'b', 'a', 'b']
    """
    placed = dict.fromkeys(counts, 0)
    result = []
    for _ in range(sum(counts.values())):
        # The name whose next item is due first: its (k + 1/2)-th of n items belongs at (k + 1/2) / n of the way.
        due = {name: (placed[name] + 0.5) / n for name, n in counts.items() if placed[name] < n}
        name = min(due, key=lambda n: due[n])
        placed[name] += 1
        result.append(name)
    return result


def make_requests(
    prompts: Sequence[Prompt],
    modes: Sequence[str],
    config: ModesConfig,
    *,
    step: int,
    num_responses: int,
    seed: int,
) -> list[Request]:
    """The requests of a step: `num_responses` for each prompt, adjacent, in the prompt's mode."""
    counts = [{mode: num_responses} for mode in modes]
    return deal_requests(prompts, counts, config, step=step, seed=seed)


def deal_requests(
    prompts: Sequence[Prompt],
    counts: Sequence[Mapping[str, int]],
    config: ModesConfig,
    *,
    step: int,
    seed: int,
    shares: Callable[[str], Mapping[str, float]] | None = None,
    first_place: int = 0,
) -> list[Request]:
    """The requests of a step: for each prompt as many as counted in each mode, those of a mode adjacent.

    Each response has a seed of its own, made of (run seed, step, prompt, response), so that what it samples does not
    depend on the number of workers or on the company it is generated in.

    Args:
        shares: for a source, by mode, the probability with which a response to one of its prompts is assigned to the
            mode; 1 where it does not matter.
        first_place: place of the first prompt in the step; the others follow.
    """
    requests = []
    for place, (prompt, count) in enumerate(zip(prompts, counts, strict=True), first_place):
        assigned = shares(prompt.source) if shares is not None else {}
        for mode, num_responses in count.items():
            kind, asked = config.kinds[mode], with_target(prompt, mode, config.kinds)
            for index in range(num_responses):
                requests.append(
                    Request(
                        prompt=asked,
                        mode=mode,
                        # The place tells two draws of one prompt apart, should a small data set repeat it in a step.
                        group=f"{prompt.id}/{mode}@{step}.{place}",
                        index=index,
                        seed=stable_seed(seed, step, place, prompt.id, mode, index),
                        max_new_tokens=kind.max_new_tokens,
                        temperature=kind.temperature,
                        max_think_tokens=kind.max_think_tokens,
                        place=place,
                        mode_share=assigned.get(mode, 1.0),
                    )
                )
    return requests
