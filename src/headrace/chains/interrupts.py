"""Ctrl-C and SIGTERM while a run goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

_HEARD = (signal.SIGINT, signal.SIGTERM)
_SAID = (
    b"\nfinishing what is under way; once more to stop at once\n",
    b"\nstopping at once\n",
)


class Stoppable(Protocol):
    """A run."""

    def stop(self) -> None:
        """Finish what is under way, and take up no more."""


class Interrupts:
    """What was heard: ``status`` is that of a command that ends for it, None where nothing was.

    ``quiet``: nothing is said of it on standard error.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.status: int | None = None
        self._quiet = quiet

    @contextmanager
    def heard_by(self, run: Stoppable) -> Iterator[None]:
        """The first signal asks ``run`` to stop, the second cancels the task that is inside, any
        further one is a KeyboardInterrupt: some function of the user's may hold up everything."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        count = 0

        def hear(number: int, _: FrameType | None) -> None:
            nonlocal count
            count += 1
            self.status = 128 + number
            if count == 1:
                run.stop()
            elif count == 2:
                loop.call_soon_threadsafe(task.cancel)
            else:
                raise KeyboardInterrupt
            if not self._quiet:
                os.write(2, _SAID[count - 1])  # sys.stderr may be in the middle of a line

        before = {number: signal.getsignal(number) for number in _HEARD}
        for number in _HEARD:
            # The loop's own way wakes it from its sleep, whichever thread the system picks; but it
            # calls nobody while a function of the user's runs, and so we are called beside it.
            loop.add_signal_handler(number, _nothing)
            signal.signal(number, hear)
        try:
            yield
        finally:
            for number in _HEARD:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])


def _nothing() -> None:
    """What is to be done was done."""
