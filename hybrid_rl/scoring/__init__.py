"""Weighted rewards over responses: which reward, what it is told, where it runs, and what the sum is."""

from hybrid_rl.scoring.scorer import Scorer, actor_specs, limits_s, place_rewards, refuse_errors

__all__ = ["Scorer", "actor_specs", "limits_s", "place_rewards", "refuse_errors"]
