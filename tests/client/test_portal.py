"""The portal: streams and calls from ordinary threads, and what interrupts them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator

import pytest

from headrace.client.portal import portal


async def count(to: int) -> AsyncGenerator[int, None]:
    for number in range(to):
        yield number


def script(text: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, warnings being errors."""
    # Whoever runs the tests in the background may have left us SIGINT ignored.
    opening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", opening + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_a_stream_arrives_whole_and_in_order() -> None:
    assert list(portal().iterate(lambda: count(5000))) == list(range(5000))


def test_an_error_in_the_middle_of_a_stream_reaches_the_caller_after_what_came_before() -> None:
    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("the source broke")

    pieces = portal().iterate(broken)
    assert next(pieces) == 1
    with pytest.raises(ValueError, match="the source broke"):
        next(pieces)
    assert list(pieces) == []


def test_a_stream_that_is_closed_early_ends_its_source() -> None:
    ended = threading.Event()

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            ended.set()

    with portal().iterate(endless) as pieces:
        next(pieces)
    assert ended.is_set()


def test_a_stream_that_is_dropped_ends_its_source() -> None:
    ended = threading.Event()

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            ended.set()

    pieces = portal().iterate(endless)
    next(pieces)
    del pieces
    assert ended.wait(30)


def test_a_caller_that_falls_behind_holds_the_source_back() -> None:
    made = 0

    async def fast() -> AsyncGenerator[int, None]:
        nonlocal made
        for number in range(100_000):
            made += 1
            yield number
            if number % 64 == 0:
                await asyncio.sleep(0)

    with portal().iterate(fast) as pieces:
        assert next(pieces) == 0
        # Calls cross the same loop, so the source has had its turns once these are answered.
        for _ in range(50):
            portal().run(lambda: asyncio.sleep(0))
        assert made < 5000
        assert sum(1 for _ in pieces) == 99_999


def test_many_threads_share_one_portal() -> None:
    sums: list[int] = []

    def work() -> None:
        sums.append(sum(portal().iterate(lambda: count(2000))))

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [sum(range(2000))] * 32


def test_it_works_from_inside_a_running_loop_as_in_jupyter() -> None:
    async def cell() -> list[int]:
        return list(portal().iterate(lambda: count(10)))

    assert asyncio.run(cell()) == list(range(10))


def test_a_call_from_the_portals_own_loop_is_refused_instead_of_hanging() -> None:
    async def inner() -> None:
        await asyncio.sleep(0)

    async def outer() -> None:
        portal().run(inner)

    with pytest.raises(RuntimeError, match="AsyncClient"):
        portal().run(outer)


def test_a_forked_child_gets_a_portal_of_its_own() -> None:
    done = script(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork with threads
        from headrace.client.portal import portal

        async def who():
            await asyncio.sleep(0)
            return os.getpid()

        assert portal().run(who) == os.getpid()
        child = os.fork()
        if child == 0:
            os._exit(0 if portal().run(who) == os.getpid() else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert portal().run(who) == os.getpid()
        print("both answered")
        """
    )
    assert done.stdout == "both answered\n", done.stderr


@pytest.mark.parametrize("way", ["stream", "call"])
def test_ctrl_c_ends_what_runs_and_leaves_the_portal_usable(way: str) -> None:
    done = script(
        f"""
        import asyncio, os, signal, threading
        from headrace.client.portal import portal

        ended = threading.Event()

        async def endless():
            try:
                yield 1
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(3600)
            finally:
                ended.set()

        async def slow():
            async for _ in endless():
                pass

        async def answer():
            return 42

        try:
            if {way!r} == "stream":
                for _ in portal().iterate(endless):
                    pass
            else:
                portal().run(slow)
        except KeyboardInterrupt:
            print("interrupted")
        assert ended.wait(10)
        assert portal().run(answer) == 42
        """
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr


def test_the_interpreter_ends_cleanly_with_a_stream_half_read() -> None:
    done = script(
        """
        import asyncio
        from headrace.client.portal import portal

        async def endless():
            while True:
                yield 1
                await asyncio.sleep(0)

        pieces = portal().iterate(endless)
        next(pieces)
        print("leaving")
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("leaving\n", "", 0)


def test_interrupts_at_any_instant_of_a_call_leave_the_portal_usable() -> None:
    """One may come anywhere in the caller's code: while it hands over, waits, or takes the answer."""
    done = script(
        """
        import asyncio, random, signal, time
        from headrace.client.portal import portal

        async def short():
            await asyncio.sleep(0.0002)
            return 42

        async def pieces():
            for number in range(3):
                yield number
                await asyncio.sleep(0.0001)

        def ring(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, ring)
        chance = random.Random(7)
        caught = answered = 0
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(5e-6, 1.2e-3))
                portal().run(short)
                list(portal().iterate(pieces))
                answered += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert portal().run(short) == 42
            assert list(portal().iterate(pieces)) == [0, 1, 2]
        assert caught and answered, (caught, answered)
        print("usable")
        """
    )
    assert (done.stdout, done.returncode) == ("usable\n", 0), done.stderr
