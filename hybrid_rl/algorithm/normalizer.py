"""How much each token weighs in the loss of an optimizer step.

Two modes differ tenfold in length. With a plain token-mean the short mode gets the share l_s / (l_s + l_l) of the
gradient, 9 % at 1:10; with a mean of sequence means its tokens weigh ten times as much. `prompts` takes the token-mean
inside a mode and weights modes by their number of prompts:

    w(token of mode m) = (lambda_m P_m / sum_n lambda_n P_n) / T_m

with P_m the prompts of the mode, T_m its trained tokens and lambda_m its `loss_weight`. The weights depend on the whole
optimizer step, never on a micro-batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from hybrid_rl.algorithm.advantage import Group

ModeBalance = Literal["prompts", "tokens"]


def token_weights(groups: Sequence[Group], balance: ModeBalance, loss_weights: Mapping[str, float]) -> dict[str, float]:
    """Weight of one trained token by mode; the weights of all trained tokens add up to 1.

    Tokens of zero-variance groups count; those of samples that are not trained, and forced tokens, do not.

    Args:
        groups: all groups of the optimizer step.
        balance: see above; `tokens` weighs every token by its mode's `loss_weight` alone.
        loss_weights: lambda of each mode.
    """
    tokens: Counter[str] = Counter()
    prompts: Counter[str] = Counter()
    for group in groups:
        count = sum(sum(sample.loss_mask) for sample in group.samples)
        if count:
            tokens[group.mode] += count
            prompts[group.mode] += 1
    if balance == "prompts":
        masses = {mode: loss_weights[mode] * prompts[mode] for mode in tokens}
    else:
        masses = {mode: loss_weights[mode] * tokens[mode] for mode in tokens}
    total = sum(masses.values())
    if total == 0:
        return dict.fromkeys(tokens, 0.0)
    return {mode: masses[mode] / total / tokens[mode] for mode in tokens}
