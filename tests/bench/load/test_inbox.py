"""What is read is thought about later, in its order; what is only counted comes last."""

from __future__ import annotations

import asyncio
import time

from headrace.bench.load.inbox import Inbox


def slow_about(noted: list[object], seconds: float):
    def understand(what: object, at: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        noted.append(what)

    return understand


async def until(done) -> None:
    while not done():
        await asyncio.sleep(0)


def test_reading_goes_on_while_there_is_much_to_think_about():
    async def read_a_hundred() -> tuple[int, list[object]]:
        inbox, noted = Inbox(asyncio.get_running_loop()), []
        understand = slow_about(noted, 0.002)
        for number in range(100):
            now = time.monotonic()
            inbox.put(understand, number, now, now)
        thought_about_while_reading = len(noted)
        await until(lambda: len(noted) == 100)
        return thought_about_while_reading, noted

    thought_about, noted = asyncio.run(read_a_hundred())
    assert thought_about < 10
    assert noted == list(range(100))


def test_between_thoughts_others_have_their_turn():
    async def turns() -> int:
        inbox, noted = Inbox(asyncio.get_running_loop()), []
        understand = slow_about(noted, 0.002)
        for number in range(50):
            now = time.monotonic()
            inbox.put(understand, number, now, now)
        turns = 0
        while len(noted) < 50:
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(turns()) > 40


def test_what_is_only_counted_comes_after_all_that_came():
    async def order() -> list[object]:
        inbox, noted = Inbox(asyncio.get_running_loop()), []
        understand = slow_about(noted, 0.002)
        for number in range(5):
            inbox.put_last(noted.append, f"count {number}")
            now = time.monotonic()
            inbox.put(understand, number, now, now)
        await until(lambda: len(noted) == 10)
        return noted

    noted = asyncio.run(order())
    assert noted == [0, 1, 2, 3, 4, *(f"count {number}" for number in range(5))]


def test_it_says_how_long_the_first_has_waited_and_counts_all_at_the_end():
    async def waits() -> tuple[float, float, list[object]]:
        inbox, noted = Inbox(asyncio.get_running_loop()), []
        understand = slow_about(noted, 0.003)
        now = time.monotonic()
        inbox.put(understand, "at once", now, now)
        inbox.put(understand, "later", 5.0, time.monotonic())
        behind = inbox.behind_s(5.25)
        inbox.put_last(noted.append, "counted")
        inbox.count_all()
        await until(lambda: len(noted) == 3)
        return behind, inbox.behind_s(9.0), noted

    assert asyncio.run(waits()) == (0.25, 0.0, ["at once", "counted", "later"])
