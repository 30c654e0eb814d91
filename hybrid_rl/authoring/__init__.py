"""For those who write rewards: list, start, test and measure one. Runs of training need nothing from here."""
