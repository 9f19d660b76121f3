"""Servers of other makers that we start, watch and stop."""
