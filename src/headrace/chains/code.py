"""What stands for a function's code in a key."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getsource
from typing import Any


def code_of(function: Callable[..., Any]) -> str:
    """Its source; its name, where there is none to be read."""
    try:
        return getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(type(function)))
