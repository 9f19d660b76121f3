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
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = "".join(str(error).strip().splitlines()[:1])
        why = f" ({first})" if first else ""
        raise NoMemoryError(f"out of memory while {doing}{why}; {hint}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there was no memory left."""
    # torch's class for the processor's allocator is a plain RuntimeError; that of CUDA is one too.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory")
