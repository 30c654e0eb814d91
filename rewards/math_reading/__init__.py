"""Reads and compares answers in mathematics: LaTeX, plain and computer-algebra notation, by rules, within limits."""
