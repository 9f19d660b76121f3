"""When an engine counts as stuck."""

from __future__ import annotations

import asyncio

from headrace.backends.local.pulse import Pulse
from headrace.net.scripted import ManualClock


class Engine:
    def __init__(self, limit_s: float = 60.0) -> None:
        self.clock = ManualClock()
        self.has_work = True
        self.found_still = 0
        self.pulse = Pulse(self.clock, limit_s, lambda: self.has_work, self._still)

    def _still(self) -> None:
        self.found_still += 1


def test_an_engine_with_work_of_which_nothing_comes_is_found_at_about_the_limit() -> None:
    async def play() -> None:
        engine = Engine()
        engine.pulse.watch()
        await engine.clock.advance(60)
        assert not engine.found_still
        await engine.clock.advance(15)
        assert engine.found_still == 1

    asyncio.run(play())


def test_one_that_gives_a_little_now_and_then_is_not() -> None:
    async def play() -> None:
        engine = Engine()
        engine.pulse.watch()
        for _ in range(10):
            await engine.clock.advance(59)
            engine.pulse.beat()
        assert not engine.found_still

    asyncio.run(play())


def test_one_without_work_is_not_looked_after_until_there_is_some() -> None:
    async def play() -> None:
        engine = Engine()
        engine.pulse.watch()
        await engine.clock.advance(40)
        engine.has_work = False
        await engine.clock.advance(1000)
        engine.has_work = True
        engine.pulse.watch()
        await engine.clock.advance(60)
        assert not engine.found_still
        await engine.clock.advance(15)
        assert engine.found_still == 1

    asyncio.run(play())


def test_no_limit_is_no_limit_and_a_closed_pulse_is_silent() -> None:
    async def play() -> None:
        boundless, closed = Engine(0), Engine()
        boundless.pulse.watch()
        closed.pulse.watch()
        closed.pulse.close()
        for engine in (boundless, closed):
            await engine.clock.advance(10_000)
            assert not engine.found_still

    asyncio.run(play())
