"""The way from ordinary threads to the one event loop that all synchronous clients share.

One daemon thread per process runs the loop. A call crosses to it once; a stream's pieces are put
by its pump into a queue that the caller's thread empties, so that a piece costs no hop of its own.
After a fork the child has no portal until it needs one: a new thread with a new loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_MOST_AHEAD = 1024
_JOIN_S = 5.0
_LISTENS_EVERY_S = 0.5


class Closes(Protocol):
    """Something with connections to give back; any number of times."""

    async def aclose(self) -> None: ...


class Portal:
    """A thread with an event loop, and the two ways into it: ``run`` and ``iterate``."""

    def __init__(self) -> None:
        self._loop = _new_loop()
        self._started = threading.Event()
        self._closers: WeakSet[Closes] = WeakSet()
        self._kept: set[Closes] = set()
        self._end_s = _JOIN_S
        self._thread = threading.Thread(target=self._live, name="headrace-portal", daemon=True)
        self._thread.start()
        self._started.wait()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of ``work()``, run on the loop.

        An interrupt of the calling thread (Ctrl-C) cancels the work and waits until it has let go
        of what it held.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a synchronous client was called from inside headrace's own event loop (a record "
                "sink or a callback): use AsyncClient there"
            )
        errand: _Errand[T] = _Errand(self._loop, work)
        try:
            return errand.result()
        except BaseException:  # Ctrl-C, or the work's own failure, when there is nothing to cancel
            errand.cancel()
            raise

    async def awaited(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """As ``run``, for those who wait in an event loop of their own, which goes on meanwhile."""
        if asyncio.get_running_loop() is self._loop:
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def iterate(self, source: Callable[[], AsyncGenerator[T, None]]) -> Pieces[T]:
        """The pieces of ``source()``, generated on the loop, for the calling thread to iterate."""
        return Pieces(self._loop, source)

    def adopt(self, what: Closes) -> None:
        """Close ``what`` on the loop before that ends, should nobody have done so until then."""
        self._closers.add(what)

    def keep(self, what: Closes, within_s: float) -> None:
        """As ``adopt``, also where everybody else has forgotten it; it may take so long to close."""
        self._kept.add(what)
        self._closers.add(what)
        self._end_s = max(self._end_s, within_s)

    def drop(self, what: Closes) -> None:
        """Keep it no more; it is closed."""
        self._kept.discard(what)

    def close(self) -> None:
        """Stop the loop: what still runs on it is cancelled. Used at interpreter exit."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._end_s)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._started.set)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            left |= {self._loop.create_task(each.aclose()) for each in self._closers}
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


class Pieces(Generic[T]):
    """An iterator over what a generator on the loop yields.

    ``close`` (or leaving a ``with``, or dropping the iterator) ends the generator at once. When
    the caller falls behind by many pieces the generator waits, so memory stays bounded.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: Callable[[], AsyncGenerator[T, None]]
    ) -> None:
        self._pump: _Pump[T] = _Pump(loop)
        self._done = False
        self._pump.start(source)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        try:
            item = self._pump.take()
        except BaseException:  # Ctrl-C while waiting
            self.close()
            raise
        if isinstance(item, _End):
            self._done = True
            if item.error is not None:
                raise item.error
            raise StopIteration
        return item

    def close(self) -> None:
        """End the generator, and wait until it has closed what it held."""
        if self._done:
            return
        self._done = True
        self._pump.cancel()
        self._pump.ended.wait()

    def __enter__(self) -> Pieces[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._done:
            self._done = True
            self._pump.cancel()


class _Signal:
    """An event that one thread waits for, once.

    A signal handler may raise anywhere in the main thread's Python code. In a ``threading``
    condition (that of an Event, or of a Future) that can be between taking its lock and the block
    that would give it back, and the loop's thread then waits for that lock for ever. A SimpleQueue
    is C code with no such place.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._queue.put(None)

    def wait(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._queue.get(timeout=_JOIN_S)


def _taken_from(waiting: queue.SimpleQueue[T]) -> T:
    """What comes next.

    A signal that the system gives to another thread does not wake this one, and would not be heard
    before something came: so it wakes by itself now and then.
    """
    while True:
        try:
            return waiting.get(timeout=_LISTENS_EVERY_S)
        except queue.Empty:
            continue


class _Errand(Generic[T]):
    """One piece of work on the loop, and the thread that waits for its result."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> None:
        self._loop = loop
        self._work = work
        self._answer: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()
        self._ended = _Signal()
        self._task: asyncio.Task[None] | None = None
        self._taken = False

    def result(self) -> T:
        self._loop.call_soon_threadsafe(self._start)
        answer = _taken_from(self._answer)
        self._taken = True
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # no cycle of error, traceback and frame
        return answer[0]

    def cancel(self) -> None:
        """End the work, and wait until it has let go of what it held."""
        if self._taken:
            return
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:  # the loop is closed: the interpreter is ending
            return
        self._ended.wait()

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._finish)

    def _stop(self) -> None:
        if self._task is None:  # not handed over, or done
            self._ended.set()
        else:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._answer.put((await self._work(),))
        except BaseException as failure:  # noqa: BLE001  handed to the thread that waits
            self._answer.put(failure)

    def _finish(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step: nothing of it ran
            self._answer.put(asyncio.CancelledError())
        self._task = None  # it dies here, not in the caller's thread, where an interrupt may come
        self._ended.set()


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Pump(Generic[T]):
    """The loop's side of Pieces; knows nothing of the iterator, so that that can be dropped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = _Signal()
        self._loop = loop
        self._queue: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, source: Callable[[], AsyncGenerator[T, None]]) -> None:
        def begin() -> None:
            self._task = self._loop.create_task(self._run(source))
            self._task.add_done_callback(finish)

        def finish(_: asyncio.Task[None]) -> None:
            self._task = None  # as an errand's
            self.ended.set()

        self._loop.call_soon_threadsafe(begin)

    async def _run(self, source: Callable[[], AsyncGenerator[T, None]]) -> None:
        error: BaseException | None = None
        pieces = source()
        try:
            async for piece in pieces:
                self._queue.put(piece)
                if self._queue.qsize() >= _MOST_AHEAD:
                    self._room.clear()
                    await self._room.wait()
        except asyncio.CancelledError:
            error = asyncio.CancelledError()
        except BaseException as failure:  # noqa: BLE001  handed to the thread that iterates
            error = failure
        finally:
            try:
                await pieces.aclose()
            finally:
                self._queue.put(_End(error))

    def take(self) -> T | _End:
        item = _taken_from(self._queue)
        if not self._room.is_set() and self._queue.qsize() < _MOST_AHEAD // 2:
            self._tell(self._room.set)
        return item

    def cancel(self) -> None:
        def stop() -> None:
            if self._task is None:  # not handed over, or done
                self.ended.set()
            else:
                self._task.cancel()

        self._tell(stop)

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: the interpreter is ending
            self.ended.set()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """This process's portal, started at first use."""
    global _portal  # noqa: PLW0603  one per process is the point
    with _lock:
        if _portal is None:
            _portal = Portal()
            atexit.register(_portal.close)
        return _portal


def _forget() -> None:
    """In a forked child: the parent's thread is not here, and its lock may be held by nobody."""
    global _portal, _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _portal is not None:
        atexit.unregister(_portal.close)
    _portal = None


os.register_at_fork(after_in_child=_forget)
