"""Load tests: when to ask and what, a lean sender, and what its figures are worth."""
