"""Where batches are kept, reached from the event loop: one thread, which one call has at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from headrace.backends.managed.state import default_state
from headrace.contracts.errors import LLMUnavailableError
from headrace.stores.batches import BatchStore
from headrace.stores.batches.store import DATABASE

log = logging.getLogger(__name__)

T = TypeVar("T")


class Home:
    """The store at ``folder``, or in headrace's state folder, opened when it is first needed.

    A gateway that is never asked for batches leaves no folder behind.
    """

    def __init__(self, folder: str | None) -> None:
        self._named = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._store: BatchStore | None = None

    @property
    def folder(self) -> Path:
        """Where they lie; raises LLMUnavailableError where there is no home directory to lie in."""
        if self._named is None:
            return default_state() / "batches"
        return Path(self._named).expanduser()

    def has_any(self) -> bool:
        """Whether something lies there from an earlier time."""
        return (self.folder / DATABASE).exists()

    async def do(self, what: Callable[[BatchStore], T]) -> T:
        """What ``what`` makes of the store.

        Raises LLMUnavailableError where another process has it, or the disk cannot be used.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, what)

    async def aclose(self) -> None:
        """Let others have it; what is being done is done to its end first."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _do(self, what: Callable[[BatchStore], T]) -> T:
        try:
            if self._store is None:
                self._store = BatchStore(self.folder)
            return what(self._store)
        except (OSError, sqlite3.Error) as broken:
            log.error("batches cannot be kept in %s: %s", self.folder, broken)
            raise LLMUnavailableError(
                f"this server cannot keep batches and files now: {broken}",
                retry_after_s=10.0,
                code="batches_unavailable",
            ) from broken

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
