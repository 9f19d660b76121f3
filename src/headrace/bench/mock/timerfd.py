"""Linux's timerfd on the monotonic clock, by way of the C library: Python has it from 3.13 on."""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_PER_SECOND = 1_000_000_000


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


# Neither call blocks, so neither lets go of the interpreter's lock.
_libc = ctypes.PyDLL(None, use_errno=True)


class Timer:
    """One timer; ``fd`` becomes readable when it expires."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _failure("timerfd_create")
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)

    def set(self, instant_ns: int) -> None:
        """Expire at ``instant_ns`` of the monotonic clock; never, where it is 0."""
        self._spec.value_s, self._spec.value_ns = divmod(instant_ns, _PER_SECOND)
        if _libc.timerfd_settime(self.fd, _ABSOLUTE, self._pointer, None) < 0:
            raise _failure("timerfd_settime")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


def _failure(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")
