"""Measurements of headrace and its peers: ``make bench`` or ``python -m benchmarks NAME``."""
