"""What the judge is made of: its prompt, its endpoint, its verdicts and what they cost."""
