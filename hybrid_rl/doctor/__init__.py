"""`hybrid-rl doctor`: what a config will do and cost, found out before the hours are spent."""
