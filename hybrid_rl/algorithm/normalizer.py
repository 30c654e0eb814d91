"""How much each token weighs in the loss of an optimizer step.

Two modes differ tenfold in length. With a plain token-mean the short mode gets the share l_s / (l_s + l_l) of the
gradient, 9 % at 1:10; with a mean of sequence means its tokens weigh ten times as much. With |o_i| the trained tokens
of response i of mode m, lambda_m the mode's `loss_weight`, sums over the responses i that have any:

    mode_balanced  lambda_m R_m / (sum_n lambda_n R_n) / T_m     token-mean inside a mode, modes by their responses R_m
    token_mean     lambda_m / (sum_i lambda_i |o_i|)             DAPO; verl's token-mean, TRL's dapo
    sequence_mean  lambda_m / (sum_i lambda_i) / |o_i|           GRPO as published; verl's seq-mean-token-mean
    constant       lambda_m / (sum_i lambda_i) / C               Dr.GRPO; verl's seq-mean-token-sum-norm

T_m are the trained tokens of the mode and R_m the responses of those of its groups that have any; where every prompt
is answered in one mode, R_m goes with the number of its prompts. All but `constant` add up to 1. The weights depend on
the whole optimizer step, never on a micro-batch.

Tokens that choose a mode can have a mean of their own (Thinkless, arXiv 2505.13379, eq. 7): alpha times the mean over
them, beside the above over all other tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.records import Sample


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Which weights, and what they are made from.

    Attributes:
        name: of the list above.
        loss_weights: lambda by mode.
        length: C of `constant`, tokens.
        mode_token_weight: alpha, the weight of the separate mean over mode tokens; None: they count as any other.
    """

    name: str
    loss_weights: Mapping[str, float]
    length: int = 1
    mode_token_weight: float | None = None


@dataclass(frozen=True, slots=True)
class SampleWeight:
    """Weight of one trained token of a response, and of its mode token."""

    token: float
    mode_token: float

    def spread(self, sample: Sample) -> list[float]:
        """One value a token [L]."""
        first = self.mode_token if sample.mode_token else self.token
        return [first, *[self.token] * (len(sample.advantages) - 1)] if sample.advantages else []


def token_weights(groups: Sequence[Group], normalizer: Normalizer) -> list[list[SampleWeight]]:
    """Weights of each sample of each group of an optimizer step.

    Tokens of zero-variance groups count; those of samples that are not trained, and forced tokens, do not.
    """
    alpha = normalizer.mode_token_weight
    counts = [[_count(sample, alpha is not None) for sample in group.samples] for group in groups]
    weigh = _RULES[normalizer.name](groups, counts, normalizer)
    mode_tokens = [
        (group.mode, sum(sample.mode_token and sample.trained for sample in group.samples)) for group in groups
    ]
    mass = sum(normalizer.loss_weights[mode] * count for mode, count in mode_tokens)
    result = []
    for group, numbers in zip(groups, counts, strict=True):
        chosen = normalizer.loss_weights[group.mode] * alpha / mass if alpha is not None and mass else 0.0
        weights = [weigh(group.mode, number) if number else 0.0 for number in numbers]
        result.append([SampleWeight(w, w if alpha is None else chosen) for w in weights])
    return result


def _count(sample: Sample, without_mode_token: bool) -> int:
    return sum(sample.loss_mask) - (sample.trained and sample.mode_token and without_mode_token)


_Weigh = Callable[[str, int], float]
_Counts = Sequence[Sequence[int]]


def _mode_balanced(groups: Sequence[Group], counts: _Counts, normalizer: Normalizer) -> _Weigh:
    tokens: Counter[str] = Counter()
    responses: Counter[str] = Counter()
    for group, numbers in zip(groups, counts, strict=True):
        if any(numbers):
            tokens[group.mode] += sum(numbers)
            responses[group.mode] += len(numbers)
    masses = {mode: normalizer.loss_weights[mode] * responses[mode] for mode in tokens}
    total = sum(masses.values())
    return lambda mode, number: masses[mode] / total / tokens[mode] if total else 0.0


def _token_mean(groups: Sequence[Group], counts: _Counts, normalizer: Normalizer) -> _Weigh:
    weights = normalizer.loss_weights
    total = sum(weights[group.mode] * sum(numbers) for group, numbers in zip(groups, counts, strict=True))
    return lambda mode, number: weights[mode] / total if total else 0.0


def _sequences(groups: Sequence[Group], counts: _Counts, normalizer: Normalizer) -> float:
    weights = normalizer.loss_weights
    return sum(
        weights[group.mode] * sum(number > 0 for number in numbers)
        for group, numbers in zip(groups, counts, strict=True)
    )


def _sequence_mean(groups: Sequence[Group], counts: _Counts, normalizer: Normalizer) -> _Weigh:
    total = _sequences(groups, counts, normalizer)
    return lambda mode, number: normalizer.loss_weights[mode] / total / number if total else 0.0


def _constant(groups: Sequence[Group], counts: _Counts, normalizer: Normalizer) -> _Weigh:
    total = _sequences(groups, counts, normalizer)
    return lambda mode, number: normalizer.loss_weights[mode] / total / normalizer.length if total else 0.0


_RULES: dict[str, Callable[[Sequence[Group], _Counts, Normalizer], _Weigh]] = {
    "mode_balanced": _mode_balanced,
    "token_mean": _token_mean,
    "sequence_mean": _sequence_mean,
    "constant": _constant,
}
NORMALIZERS = tuple(_RULES)
