"""Scorers in processes of their own, which the parent can kill: a reward that hangs costs its limit, not the run."""
