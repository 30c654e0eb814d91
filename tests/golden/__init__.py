"""The golden check in pieces: one module a kind of file of a set directory. `golden_check.py` puts them together."""
