"""Where a model's time goes, and how far that is from what the machine could do."""
