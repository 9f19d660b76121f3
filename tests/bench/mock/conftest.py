"""The users' own fixture, which pytest finds by itself only where headrace is installed."""

from headrace.testing import headrace_mock

__all__ = ["headrace_mock"]
