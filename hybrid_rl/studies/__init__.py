"""Studies: many runs of one config, compared. Nothing is imported here."""
