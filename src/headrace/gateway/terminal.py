"""The terminal that a server was started from, if any, and whether it is still there."""

from __future__ import annotations

import os
import signal


class Terminal:
    """Tells a SIGHUP that somebody sent from the one that a closed terminal sends.

    Who was told to survive its terminal (``nohup``) is never told that it was closed.
    """

    def __init__(self) -> None:
        survives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_one = not survives and _answers()

    def was_closed(self) -> bool:
        """Whether there was one and there is none any more."""
        return self._had_one and not _answers()


def _answers() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
