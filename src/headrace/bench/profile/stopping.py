"""How a profile ends before its end: it is stopped, or the memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from headrace.contracts.errors import LLMError

Stop: TypeAlias = Callable[[], bool]


class Stopped(Exception):
    """Whoever asked for the profile wants it no longer."""


class NoMemoryError(LLMError):
    """The device has not the memory that a run of this model needs."""

    default_status = 507
    default_code = "out_of_memory"


def ends_if_asked(stop: Stop) -> None:
    if stop():
        raise Stopped


@contextmanager
def memory_told(doing: str, hint: str) -> Iterator[None]:
    """Whatever torch or Python say of exhausted memory becomes one error of ours."""
    try:
        yield
    except MemoryError as error:
        raise NoMemoryError(f"out of memory while {doing}; {hint}") from error
    except RuntimeError as error:
        # torch's class for the processor's allocator is a plain RuntimeError; that of CUDA is one too.
        words = str(error)
        if not any(sign in words for sign in _SIGNS):
            raise
        first = words.strip().splitlines()[0]
        raise NoMemoryError(f"out of memory while {doing} ({first}); {hint}") from error


_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory")
