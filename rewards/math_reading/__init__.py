"""Reading and comparing answers in mathematics: LaTeX, plain and computer-algebra notation, by rules and within limits."""
