"""How fast an engine is asked, and what a row's answer waits for: on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from headrace.chains.pace import Account, EngineGoneError, Pace, PaceSettings
from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.net.scripted import ManualClock


def asking_for(text: str, **more: Any) -> LLMRequest:
    return LLMRequest(messages=(LLMMessage(role="user", content=text),), model="m", **more)


def unreachable() -> LLMError:
    error = LLMUnavailableError("cannot connect to 127.0.0.1:9: Connection refused")
    error.__cause__ = ConnectionRefusedError()
    return error


class Server:
    """Takes ``took_s`` for each answer; ``fate`` says what becomes of a request instead, by its text
    and the clock: an error, or seconds that it takes longer."""

    def __init__(
        self,
        clock: ManualClock,
        fate: Callable[[str, float], LLMError | float | None] = lambda text, now: None,
        *,
        took_s: float = 0.1,
        tokens: int = 5,
    ) -> None:
        self.clock, self.fate, self.took_s, self.tokens = clock, fate, took_s, tokens
        self.came: list[tuple[float, str]] = []
        self.at_once = self.most_at_once = 0

    async def answer(self, request: LLMRequest) -> LLMResponse:
        text = str(request.messages[0].content)
        self.came.append((self.clock.monotonic(), text))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            fate = self.fate(text, self.clock.monotonic())
            if isinstance(fate, LLMError):
                await self.clock.sleep(self.took_s / 10)
                raise fate
            await self.clock.sleep(self.took_s + (fate or 0.0))
        finally:
            self.at_once -= 1
        usage = Usage(prompt_tokens=self.tokens - 1, completion_tokens=1)
        return LLMResponse(text=f"<{text}>", finish_reason="stop", usage=usage)

    def times(self, text: str | None = None) -> list[float]:
        return [at for at, came in self.came if text in (None, came)]


class Stage:
    """A server, and the pace at which it is asked."""

    def __init__(self, fate: Any = lambda text, now: None, **how: Any) -> None:
        self.clock = ManualClock(monotonic=0.0, auto=True)
        limits = {name: how.pop(name) for name in list(how) if name.endswith("_per_minute")}
        of_server = {name: how.pop(name) for name in ("took_s", "tokens") if name in how}
        self.server = Server(self.clock, fate, **of_server)
        self.account = Account(self.clock, **limits)
        self.settings = PaceSettings(**how)
        self.pace = self.another("small")

    def another(self, name: str) -> Pace:
        return Pace(name, self.server.answer, self.account, self.settings, self.clock, Random(0))

    async def ask(self, text: str, **more: Any) -> str:
        return (await self.pace.answer("step", asking_for(text, **more))).text

    async def ask_all(self, count: int, prefix: str = "row") -> list[Any]:
        ended: list[Any] = [None] * count
        left = iter(range(count))

        async def work() -> None:
            for i in left:
                try:
                    ended[i] = await self.ask(f"{prefix} {i}")
                except LLMError as error:
                    ended[i] = error

        await asyncio.gather(*(work() for _ in range(100)))
        return ended


def answers(count: int, prefix: str = "row") -> list[str]:
    return [f"<{prefix} {i}>" for i in range(count)]


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


def once(*errors: LLMError) -> Callable[[str, float], LLMError | None]:
    """Each text meets ``errors`` in turn, and is answered then."""
    met: dict[str, int] = {}

    def fate(text: str, now: float) -> LLMError | None:
        place = met[text] = met.get(text, -1) + 1
        return errors[place] if place < len(errors) else None

    return fate


@pytest.mark.parametrize(
    "error",
    [
        LLMRateLimitError("not now"),
        LLMOverloadedError("busy"),
        LLMProviderError("sorry"),
        LLMBadResponseError("the answer is cut"),
        LLMUnavailableError("broke the connection"),
        unreachable(),
    ],
    ids=lambda error: error.message,
)
def test_what_may_pass_is_asked_again_and_once_only(error):
    async def main():
        stage = Stage(once(error))
        assert await stage.ask_all(3) == answers(3)
        assert len(stage.server.came) == 6

    play(main)


def test_a_refusal_holds_back_all_for_as_long_as_it_said():
    full_until = 7.0

    async def main():
        stage = Stage(
            lambda text, now: (
                LLMRateLimitError("full", retry_after_s=full_until - now)
                if 1.0 <= now < full_until
                else None
            )
        )
        assert await stage.ask_all(16) == answers(16)
        await stage.clock.advance(1.0)
        asks = [asyncio.create_task(stage.ask(f"later {i}")) for i in range(40)]
        assert await asyncio.gather(*asks) == answers(40, "later")
        within = [at for at in stage.server.times() if 1.2 < at < full_until]
        assert within == []

    play(main)


def test_a_refusal_holds_back_the_other_engines_of_its_key_too():
    async def main():
        stage = Stage(
            lambda text, now: LLMRateLimitError("full", retry_after_s=5.0) if now < 5 else None
        )
        other = stage.another("large")
        first = asyncio.create_task(stage.ask("first"))
        await stage.clock.advance(0.5)
        await asyncio.gather(first, other.answer("step", asking_for("second")))
        assert stage.server.times("second") == pytest.approx([5.01], abs=0.1)

    play(main)


def test_where_others_are_served_a_refusal_holds_back_only_the_row_that_met_it():
    async def main():
        chance = Random(1)
        met: set[str] = set()

        def fate(text: str, now: float) -> LLMError | None:
            if chance.random() < 0.05 and text not in met:
                met.add(text)
                return LLMRateLimitError("not you", retry_after_s=1.0)
            return None

        stage = Stage(fate)
        assert await stage.ask_all(2000) == answers(2000)
        assert len(stage.server.came) == 2000 + len(met)
        # 32 rounds of 64, a refused row's second, and little more.
        assert stage.clock.monotonic() < 3 * (2000 / 64 * 0.1 + 1.0)

    play(main)


def test_a_refusal_without_a_time_is_left_alone_for_longer_and_longer():
    async def main():
        stage = Stage(lambda text, now: LLMRateLimitError("full") if now < 60 else None)
        assert await stage.ask_all(50) == answers(50)
        refused = [at for at in stage.server.times() if at < 60]
        assert len(refused) < 16 + 60

    play(main)


def test_an_engine_that_takes_few_is_asked_less_and_then_as_much_again():
    async def main():
        stage = Stage(concurrency=64)

        def fate(text: str, now: float) -> LLMError | None:
            few = 10 <= now < 30 and stage.server.at_once > 8
            return LLMOverloadedError("busy") if few else None

        stage.server.fate = fate
        left = iter(range(100_000))
        sizes: dict[int, int] = {}

        async def work() -> None:
            for i in left:
                if stage.clock.monotonic() > 40:
                    return
                await stage.ask(f"row {i}")
                sizes[int(stage.clock.monotonic())] = stage.pace.snapshot().size

        await asyncio.gather(*(work() for _ in range(80)))
        assert sizes[9] == 64
        assert max(sizes[second] for second in range(14, 29)) <= 24
        assert sizes[35] == 64
        served = [sum(1 for at in stage.server.times() if s <= at < s + 1) for s in (5, 35)]
        assert served[1] >= 0.9 * served[0]

    play(main)


def test_answers_that_take_longer_and_longer_have_it_asked_less_but_never_too_little():
    async def main():
        stage = Stage(lambda text, now: 2.0 if 10 <= now < 40 else None, concurrency=64)
        left = iter(range(100_000))
        sizes: dict[int, int] = {}

        async def work() -> None:
            for i in left:
                if stage.clock.monotonic() > 60:
                    return
                await stage.ask(f"row {i}")
                sizes[int(stage.clock.monotonic())] = stage.pace.snapshot().size

        await asyncio.gather(*(work() for _ in range(80)))
        assert sizes[9] == 64
        assert 16 <= min(sizes.values()) < 48
        assert sizes[59] == 64

    play(main)


def test_an_answer_that_never_comes_is_given_up_after_several_times_the_usual():
    async def main():
        met: set[str] = set()

        def fate(text: str, now: float) -> float | None:
            if text == "row 7" and text not in met:
                met.add(text)
                return 1e6
            return None

        stage = Stage(fate)
        assert await stage.ask_all(100) == answers(100)
        first, again = stage.server.times("row 7")
        assert 10 <= again - first <= 13
        assert stage.pace.snapshot().cut == 1
        assert len(stage.server.came) == 101

    play(main)


def test_a_step_that_is_slow_by_nature_is_not_given_up_for_the_quick_ones():
    async def main():
        stage = Stage(lambda text, now: 100.0 if text.startswith("slow") else None)
        assert await stage.ask_all(100) == answers(100)
        asks = [stage.pace.answer("essay", asking_for(f"slow {i}")) for i in range(30)]
        await asyncio.gather(*asks)
        assert len(stage.server.times()) == 130

    play(main)


def test_a_row_that_is_slow_by_nature_gets_more_time_each_time():
    async def main():
        stage = Stage(lambda text, now: 60.0 if text == "slow" else None)
        assert await stage.ask_all(100) == answers(100)
        assert await stage.ask("slow") == "<slow>"

    play(main)


def test_a_caller_who_leaves_is_not_taken_for_an_answer_that_did_not_come():
    async def main():
        stage = Stage(lambda text, now: 1e6)
        ask = asyncio.create_task(stage.ask("row"))
        await asyncio.sleep(0.01)
        ask.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ask
        assert stage.pace.snapshot().running == 0

    play(main)


def test_who_leaves_while_waiting_takes_no_place():
    async def main():
        stage = Stage(concurrency=1)
        asks = [asyncio.create_task(stage.ask(f"row {i}")) for i in range(3)]
        await asyncio.sleep(0)
        asks[1].cancel()
        assert await asks[0] == "<row 0>"
        assert await asks[2] == "<row 2>"
        assert stage.pace.snapshot().running == stage.pace.snapshot().waiting == 0

    play(main)


def test_requests_a_minute_are_kept_by_all_engines_of_a_key_together():
    async def main():
        stage = Stage(requests_per_minute=60)
        other = stage.another("large")
        asks = [
            pace.answer("step", asking_for(f"{i}"))
            for i in range(45)
            for pace in (stage.pace, other)
        ]
        await asyncio.gather(*asks)
        times = sorted(stage.server.times())
        most = max(sum(1 for at in times if start <= at < start + 60) for start in times)
        assert most <= 61
        assert times[-1] == pytest.approx(89, abs=2)

    play(main)


def test_tokens_a_minute_are_those_that_were_used():
    """Each is believed to use some thousand tokens at first, and uses a hundred."""

    async def main():
        stage = Stage(tokens_per_minute=6000, tokens=100)
        asks = [stage.ask(f"row {i}", max_tokens=1000) for i in range(120)]
        await asyncio.gather(*asks)
        assert 60 <= stage.clock.monotonic() <= 400

    play(main)


def test_a_wrong_key_stops_the_run_at_its_first_request():
    async def main():
        stage = Stage(lambda text, now: LLMAuthError("Incorrect API key provided."))
        ended = await stage.ask_all(100)
        assert all(isinstance(each, EngineGoneError) for each in ended)
        assert "'small'" in str(ended[0])
        assert "Incorrect API key provided. Check its key" in str(ended[0])
        assert "the same command goes on from there" in str(ended[0])
        assert len(stage.server.came) <= 16

    play(main)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (LLMModelNotFoundError("no model m"), "Check its model"),
        (LLMInvalidRequestError("Not Found", status=404), "Check its endpoint"),
        (LLMUnavailableError("engine did not start", transient=False), "Check that it runs"),
    ],
)
def test_an_engine_that_is_not_there_stops_the_run_and_says_what_to_do(error, advice):
    async def main():
        stage = Stage(lambda text, now: error)
        with pytest.raises(EngineGoneError, match=advice):
            await stage.ask("row")

    play(main)


def test_a_key_that_is_taken_back_midway_stops_the_run_and_ends_no_row():
    async def main():
        stage = Stage(lambda text, now: LLMAuthError("revoked", status=403) if now > 1 else None)
        ended = await stage.ask_all(2000)
        failed = [each for each in ended if not isinstance(each, str)]
        assert failed
        assert all(isinstance(each, EngineGoneError) for each in failed)

    play(main)


def test_one_row_that_is_forbidden_among_others_that_are_not_ends_alone():
    async def main():
        stage = Stage(
            lambda text, now: LLMAuthError("flagged", status=403) if text == "row 40" else None,
            concurrency=4,
        )
        ended = await stage.ask_all(300)
        assert [each for each in ended if not isinstance(each, str)] == [ended[40]]
        assert isinstance(ended[40], LLMAuthError)

    play(main)


def test_nobody_there_stops_the_run_soon_where_nobody_ever_was():
    async def main():
        stage = Stage(lambda text, now: unreachable())
        ended = await stage.ask_all(200)
        assert all(isinstance(each, EngineGoneError) for each in ended)
        assert 10 <= stage.clock.monotonic() <= 15
        assert len(stage.server.came) < 200

    play(main)


def test_an_engine_that_comes_back_within_a_minute_costs_no_row():
    async def main():
        stage = Stage(lambda text, now: unreachable() if 1 < now < 50 else None)
        assert await stage.ask_all(2000) == answers(2000)

    play(main)


def test_an_engine_that_refuses_all_for_long_stops_the_run():
    async def main():
        stage = Stage(lambda text, now: LLMRateLimitError("full") if now > 1 else None)
        ended = await stage.ask_all(2000)
        failed = [each for each in ended if not isinstance(each, str)]
        assert all(isinstance(each, EngineGoneError) for each in failed)
        assert "lower --concurrency" in str(failed[0])

    play(main)


def test_a_refusal_for_longer_than_a_run_waits_stops_it():
    async def main():
        stage = Stage(lambda text, now: LLMRateLimitError("tomorrow", retry_after_s=86_400.0))
        with pytest.raises(EngineGoneError, match="tomorrow"):
            await stage.ask("row")
        assert stage.clock.monotonic() < 1

    play(main)


def test_a_row_that_fails_each_time_ends_alone_after_its_retries():
    async def main():
        stage = Stage(
            lambda text, now: LLMProviderError("crash") if text == "row 3" else None, retries=2
        )
        ended = await stage.ask_all(100)
        assert [each for each in ended if not isinstance(each, str)] == [ended[3]]
        assert ended[3].transient
        assert len(stage.server.times("row 3")) == 3

    play(main)


def test_a_row_that_is_refused_each_time_ends_too_while_others_are_served():
    async def main():
        stage = Stage(
            lambda text, now: LLMRateLimitError("too large") if text == "row 3" else None,
            retries=1,
            concurrency=2,
        )
        ended = await stage.ask_all(2000)
        assert [each for each in ended if not isinstance(each, str)] == [ended[3]]
        assert len(stage.server.times("row 3")) == 11

    play(main)


def test_an_engine_that_answers_nobody_stops_the_run_before_every_row_has_failed():
    async def main():
        stage = Stage(lambda text, now: LLMProviderError("broken"), retries=1)
        ended = await stage.ask_all(500)
        failed = [each for each in ended if type(each) is LLMProviderError]
        gone = [each for each in ended if isinstance(each, EngineGoneError)]
        assert len(failed) == 9
        assert len(gone) == 491

    play(main)


def test_a_request_that_is_wrong_is_the_rows_own_fault_and_asked_once():
    async def main():
        stage = Stage(
            lambda text, now: LLMInvalidRequestError("too long") if text == "row 3" else None
        )
        ended = await stage.ask_all(20)
        assert isinstance(ended[3], LLMInvalidRequestError)
        assert len(stage.server.times("row 3")) == 1

    play(main)


def test_without_retries_a_row_is_asked_once():
    async def main():
        stage = Stage(once(LLMTimeoutError("late")), retries=0)
        with pytest.raises(LLMTimeoutError):
            await stage.ask("row")

    play(main)
