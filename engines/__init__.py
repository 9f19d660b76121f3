"""Tests with real engines: they install themselves, serve the model in the box, and end."""
