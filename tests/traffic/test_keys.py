"""Several keys for one provider: the work goes where there is room, and each key has its own back-off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from headrace.backends.providers import Provider
from headrace.backends.remote import Remote
from headrace.contracts.errors import (
    LLMAuthError,
    LLMError,
    LLMProviderError,
    LLMRateLimitError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult
from headrace.net.clock import World
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport
from headrace.traffic.call import CallSheet
from headrace.traffic.embedding import embed
from headrace.traffic.endpoint import EndpointSettings, open_lane_of_keys
from headrace.traffic.lane import Lane
from headrace.traffic.pieces import Piece, pieces
from headrace.traffic.retry import RetryPolicy
from traffic.play import ASK, Stage, answer, play, refusal

KEYS = ("key-a-0123456789", "key-b-0123456789", "key-c-0123456789")
PROMPT = RetryPolicy(jitter=0.0)


class Provided:
    """A provider that answers each key as ``by_key`` has it; ``asked`` are the keys it saw, when."""

    def __init__(
        self, by_key: Callable[[str, int], ScriptedAnswer], *, keys: int = 2, **settings: Any
    ) -> None:
        self.stage = Stage()
        self.asked: list[tuple[str, float]] = []
        self._by_key = by_key
        self.transport = ScriptedTransport(self._answer, self.stage.clock)
        world = World(transport=self.transport, clock=self.stage.clock)
        remotes = [
            Remote(
                name="theirs",
                provider=Provider(name="scripted"),
                base_url="http://scripted/v1",
                world=world,
                key=key,
            )
            for key in KEYS[:keys]
        ]
        settings = {"retry": PROMPT, "total_s": None, **settings}
        self.lane = open_lane_of_keys(remotes, self.stage.clock, EndpointSettings(**settings))

    def _answer(self, request: Any) -> ScriptedAnswer:
        key = dict(request.headers)["authorization"].removeprefix("Bearer ")
        self.asked.append((key[4], self.stage.clock.monotonic()))
        return self._by_key(key[4], len(self.asked))

    async def calls(self, number: int) -> list[str | LLMError]:
        """What so many calls at once are answered, or the errors they end in."""
        asked = (self.stage.text(self.lane) for _ in range(number))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, (str, LLMError)) for each in found), found
        return found

    def by_key(self) -> Counter[str]:
        return Counter(key for key, _ in self.asked)


def is_idle(lane: Lane) -> bool:
    return (lane.running, lane.waiting) == (0, 0)


def test_calls_are_spread_over_the_keys():
    async def main():
        theirs = Provided(lambda *_: answer(gap_s=1), keys=3)
        assert await theirs.calls(15) == ["hi"] * 15
        assert theirs.by_key() == {"a": 5, "b": 5, "c": 5}
        assert theirs.stage.clock.monotonic() == 1  # five at once for each
        assert is_idle(theirs.lane)

    play(main)


def test_one_after_the_other_they_have_turns():
    async def main():
        theirs = Provided(lambda *_: answer(), keys=3)
        for _ in range(6):
            await theirs.stage.text(theirs.lane)
        assert [key for key, _ in theirs.asked] == ["a", "b", "c", "a", "b", "c"]

    play(main)


def test_an_exhausted_keys_work_goes_on_at_once_by_the_others_and_nothing_is_lost():
    async def main():
        def by_key(key: str, _: int) -> ScriptedAnswer:
            told = evolve(refusal(429, ("retry-after", "60")), after_s=0.5)
            return told if key == "a" else answer(gap_s=1)

        theirs = Provided(by_key)
        assert await theirs.calls(20) == ["hi"] * 20
        # Twenty of a second each, five at once; those that had waited for the other key among them.
        assert theirs.stage.clock.monotonic() < 6
        assert theirs.by_key() == {"a": 5, "b": 20}
        stats = theirs.lane.stats()
        assert (stats.requests, stats.successes, stats.failures) == (20, 20, {})
        assert stats.retries == 5
        a, b = stats.keys
        assert (a.key, a.requests, a.failures) == (1, 5, {"LLMRateLimitError": 5})
        assert (b.key, b.requests, b.successes, b.failures) == (2, 20, 20, {})
        assert 50 < a.rests_s <= 60
        assert b.rests_s == 0
        # The other one is left alone for as long as it said, and then has its turn again.
        await theirs.calls(3)
        assert theirs.by_key()["a"] == 5
        await theirs.stage.clock.sleep(60)
        await theirs.calls(3)
        assert theirs.by_key()["a"] > 5

    play(main)


def test_a_limit_without_a_time_is_backed_off_from_longer_each_time_by_that_key_alone():
    async def main():
        def by_key(key: str, _: int) -> ScriptedAnswer:
            return refusal(429) if key == "a" else answer()

        theirs = Provided(by_key)
        until = 40.0
        while theirs.stage.clock.monotonic() < until:
            assert await theirs.stage.text(theirs.lane) == "hi"
            await theirs.stage.clock.sleep(0.25)
        tried = [at for key, at in theirs.asked if key == "a"]
        gaps = [later - sooner for sooner, later in pairwise(tried)]
        # 1, 2, 4, 8 and 16 s, and as long again until a call came by.
        assert [round(gap) for gap in gaps] == [1, 2, 4, 8, 16]

    play(main)


def test_where_all_are_exhausted_a_call_waits_for_the_one_that_is_first_back():
    async def main():
        def by_key(key: str, number: int) -> ScriptedAnswer:
            if number <= 2:
                return refusal(429, ("retry-after", "30" if key == "a" else "7"))
            return answer()

        theirs = Provided(by_key)
        assert await theirs.stage.text(theirs.lane) == "hi"
        assert theirs.asked[-1] == ("b", 7.0)
        assert len(theirs.asked) == 3

    play(main)


def test_who_waits_for_a_resting_key_goes_to_another_as_soon_as_that_is_back():
    async def main():
        def by_key(key: str, number: int) -> ScriptedAnswer:
            if number <= 2:
                return refusal(429, ("retry-after", "30" if key == "a" else "7"))
            return answer(gap_s=1)

        theirs = Provided(by_key, max_running=1)
        assert await theirs.calls(4) == ["hi"] * 4
        assert theirs.stage.clock.monotonic() <= 11  # 7 s, and four of a second each
        assert is_idle(theirs.lane)

    play(main)


@pytest.mark.parametrize("status", [401, 403, 402])
def test_a_key_that_is_refused_is_left_out(status):
    async def main():
        theirs = Provided(lambda key, _: refusal(status) if key == "a" else answer())
        assert await theirs.calls(6) == ["hi"] * 6
        for _ in range(4):
            assert await theirs.stage.text(theirs.lane) == "hi"
        stats = theirs.lane.stats()
        assert stats.keys[0].refused
        assert not stats.keys[1].refused
        assert stats.keys[0].requests <= 3  # those that were there before it was known

    play(main)


def test_where_every_key_is_refused_the_caller_is_told_at_once_every_time():
    async def main():
        theirs = Provided(lambda *_: refusal(401))
        for _ in range(3):
            with pytest.raises(LLMAuthError):
                await theirs.stage.text(theirs.lane)
        assert theirs.stage.clock.monotonic() == 0
        assert is_idle(theirs.lane)

    play(main)


def test_patience_has_its_bound():
    async def main():
        theirs = Provided(lambda *_: refusal(429, ("retry-after", "7200")))
        for _ in range(2):
            with pytest.raises(LLMRateLimitError) as caught:
                await theirs.stage.text(theirs.lane)
            assert caught.value.retry_after_s == 7200
        assert theirs.stage.clock.monotonic() == 0

    play(main)


def test_without_retries_a_call_still_goes_to_the_other_key():
    async def main():
        theirs = Provided(
            lambda key, _: refusal(429) if key == "a" else answer(), retry=None, breaker=None
        )
        assert await theirs.stage.text(theirs.lane) == "hi"
        assert [key for key, _ in theirs.asked] == ["a", "b"]

    play(main)


def test_a_provider_that_fails_is_asked_again_as_any_is():
    async def main():
        theirs = Provided(lambda _, number: refusal(500) if number < 3 else answer())
        assert await theirs.stage.text(theirs.lane) == "hi"
        assert [at for _, at in theirs.asked] == [0, 1, 3]
        stats = theirs.lane.stats()
        assert not any(key.rests_s or key.refused for key in stats.keys)

    play(main)


def test_a_request_that_is_wrong_is_wrong_by_every_key():
    async def main():
        theirs = Provided(lambda *_: refusal(400))
        with pytest.raises(LLMError) as caught:
            await theirs.stage.text(theirs.lane)
        assert not isinstance(caught.value, LLMProviderError)
        assert len(theirs.asked) == 1

    play(main)


def test_each_key_has_a_limit_a_minute_of_its_own():
    async def main():
        theirs = Provided(lambda *_: answer(), requests_per_minute=3)
        assert await theirs.calls(6) == ["hi"] * 6
        assert theirs.stage.clock.monotonic() == 0
        assert theirs.by_key() == {"a": 3, "b": 3}
        assert await theirs.calls(2) == ["hi"] * 2
        assert theirs.stage.clock.monotonic() == pytest.approx(20)

    play(main)


def test_each_key_has_a_queue_of_its_own():
    async def main():
        theirs = Provided(lambda *_: answer(gap_s=1), max_running=1, max_waiting=2)
        found = await theirs.calls(7)
        refused = [each for each in found if not isinstance(each, str)]
        assert len(refused) == 1
        assert isinstance(refused[0], LLMRateLimitError)
        assert refused[0].code == "queue_full"

    play(main)


def test_a_call_with_a_key_of_its_own_says_nothing_of_ours():
    async def main():
        seen = []

        def by_key(key: str, _: int) -> ScriptedAnswer:
            seen.append(key)
            return refusal(429, ("retry-after", "60"))

        theirs = Provided(by_key, retry=None)
        with pytest.raises(LLMRateLimitError):
            await theirs.stage.text(theirs.lane, metadata={"api_key": "own-x-0123456789"})
        assert seen == ["x"]
        assert not any(key.rests_s for key in theirs.lane.stats().keys)

    play(main)


def test_a_caller_who_leaves_gives_its_place_back():
    async def main():
        theirs = Provided(lambda *_: answer(gap_s=100), max_running=1)
        calls = [asyncio.ensure_future(theirs.stage.text(theirs.lane)) for _ in range(4)]
        await theirs.stage.clock.sleep(1)
        assert (theirs.lane.running, theirs.lane.waiting) == (2, 2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert is_idle(theirs.lane)
        stats = theirs.lane.stats()
        assert (stats.cancelled, sum(key.cancelled for key in stats.keys)) == (4, 2)

    play(main)


def test_embeddings_go_by_all_keys_too():
    async def main():
        stage = Stage()
        asked = []

        class Vectors:
            def __init__(self, name: str) -> None:
                self.name = name

            async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
                asked.append(self.name)
                if self.name == "a":
                    raise LLMRateLimitError("no more", retry_after_s=60)
                return EmbeddingResult(vectors=[[1.0]], model_id="m")

        lane = open_lane_of_keys([Vectors("a"), Vectors("b")], stage.clock)
        for number in range(3):
            sheet = CallSheet(call_id=str(number), operation="embeddings", queued=0.0)
            request = EmbeddingRequest(inputs=("hi",), model="m")
            result = await embed(stage.traffic, request, lane, sheet, Marks())
            assert result.vectors == [[1.0]]
        assert asked == ["a", "b", "b", "b"]
        assert lane.stats().successes == 3

    play(main)


def test_what_comes_in_pieces_goes_by_all_keys_too():
    async def main():
        stage = Stage()
        asked = []

        class Named:
            def __init__(self, name: str) -> None:
                self.name = name

        async def ask(backend: Any, model: str | None, marks: Marks) -> Any:
            asked.append(backend.name)
            if backend.name == "a":
                raise LLMRateLimitError("no more", retry_after_s=60)
            yield Piece(f"by {backend.name}")

        lane = open_lane_of_keys([Named("a"), Named("b")], stage.clock)
        for number in range(2):
            sheet = CallSheet(call_id=str(number), operation="speech", queued=0.0)
            run = pieces(stage.traffic, ask, ASK, lane, sheet, Marks(), repeats=number == 0)
            assert [each async for each in run] == ["by b"]
        assert asked == ["a", "b", "b"]

    play(main)


def test_no_key_is_ever_told():
    async def main():
        def by_key(key: str, _: int) -> ScriptedAnswer:
            told = refusal(429, ("retry-after", "60"))
            shown = next(each for each in KEYS if each[4] == key)
            return evolve(told, body=told.body.replace(b"says 429", shown.encode()))

        theirs = Provided(by_key, retry=None)
        with pytest.raises(LLMRateLimitError) as caught:
            await theirs.stage.text(theirs.lane)
        stats = theirs.lane.stats()
        assert stats.last_error
        assert stats.last_error.startswith("LLMRateLimitError")
        told = f"{stats!r} {caught.value} {theirs.lane!r} {theirs.stage.records!r}"
        assert not any(key in told for key in KEYS)

    play(main)
