"""Format: exactly the think block that the mode asks for, an answer behind it, and an end."""

from __future__ import annotations

from hybrid_rl.scorer_pool.declare import inline


@inline
def mode_format(well_formed: bool, wants_thought: bool, thought: str, answer: str | None) -> float:
    """1 for a response in the form of its mode, else 0.

    The form is judged on the reconstructed turn, prefilled tokens included, so a tag that the prompt already holds is
    not asked of the response. A mode that asks for thought wants one that is not empty.
    """
    return float(well_formed and bool(answer) and (bool(thought) or not wants_thought))
