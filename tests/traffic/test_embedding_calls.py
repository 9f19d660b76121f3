"""Embedding calls go the way of all calls; those for one engine are asked together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve

from headrace.backends.providers import Provider
from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMInvalidRequestError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.net.scripted import ScriptedAnswer
from headrace.traffic.admission import Admission
from headrace.traffic.call import CallSheet
from headrace.traffic.embedding import EmbeddingLane, batch_window, embed
from headrace.traffic.fallback import Alternative
from headrace.traffic.lane import Lane
from traffic.play import Stage, is_idle, play, refusal

ASK = EmbeddingRequest(inputs=("a", "b"), model="m", request_id="req-1")
JSON = (("content-type", "application/json"),)


def vectors(*numbers: float, tokens: int = 2) -> ScriptedAnswer:
    """A provider's answer of one number a vector."""
    data = [{"index": i, "embedding": [number]} for i, number in enumerate(numbers)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return ScriptedAnswer(
        headers=JSON, body=json.dumps({"data": data, "model": "m", "usage": usage}).encode()
    )


async def call(
    stage: Stage, lane: Lane, *others: Alternative, request: EmbeddingRequest = ASK
) -> EmbeddingResult:
    sheet = CallSheet(
        call_id="call-1",
        operation="embeddings",
        queued=stage.clock.monotonic(),
        requested_model="asked",
        route="r",
    )
    return await embed(stage.traffic, request, lane, sheet, Marks(), fallbacks=others)


def test_a_call_leaves_a_record_of_an_embedding() -> None:
    async def main() -> None:
        stage = Stage()
        lane = stage.lane([vectors(0.5, 0.25)])
        result = await call(stage, lane)
        assert [list(vector) for vector in result.vectors] == [[0.5], [0.25]]
        assert result.usage == Usage(prompt_tokens=2, total_tokens=2)
        (record,) = stage.records
        assert (record.operation, record.model, record.requested_model) == (
            "embeddings",
            "m",
            "asked",
        )
        assert (record.backend, record.status, record.error_kind) == ("first", 200, None)
        assert (record.request_id, record.finish_reason) == ("req-1", "stop")
        assert record.usage == result.usage
        assert len(record.attempts) == 1
        assert record.timeline.first_token is None
        assert is_idle(lane)

    play(main)


def test_it_is_asked_again_as_any_call_is_and_under_the_same_key() -> None:
    async def main() -> None:
        stage = Stage()
        slow = refusal(429, ("retry-after", "7"))
        lane = stage.lane([slow, ScriptedAnswer(fault="reset"), vectors(1.0, 2.0)])
        await call(stage, lane)
        assert stage.sent() == 3
        assert stage.clock.monotonic() >= 7
        keys = {dict(r.headers)["idempotency-key"] for r in stage.transports["first"].requests}
        assert keys == {"call-1"}
        (record,) = stage.records
        assert [attempt.error_kind for attempt in record.attempts] == [
            "LLMRateLimitError",
            "LLMUnavailableError",
            None,
        ]

    play(main)


def test_a_request_that_is_wrong_is_not_asked_again() -> None:
    async def main() -> None:
        stage = Stage()
        lane = stage.lane([refusal(400)])
        with pytest.raises(LLMInvalidRequestError, match="says 400"):
            await call(stage, lane)
        (record,) = stage.records
        assert (record.status, record.error_kind) == (400, "LLMInvalidRequestError")
        assert is_idle(lane)

    play(main)


def test_another_backend_is_asked_for_its_own_model_where_the_first_fails() -> None:
    async def main() -> None:
        stage = Stage()
        first, second = stage.lane([refusal(503)]), stage.lane([vectors(1.0, 2.0)], "second")
        await call(stage, first, Alternative(lane=second, model="theirs"))
        (sent,) = stage.transports["second"].requests
        assert json.loads(bytes(sent.body)) == {
            "input": ["a", "b"],
            "model": "theirs",
            "encoding_format": "base64",
        }
        (record,) = stage.records
        assert record.backend == "second"
        assert is_idle(first)
        assert is_idle(second)

    play(main)


def test_a_hang_ends_with_the_calls_own_limit() -> None:
    async def main() -> None:
        stage = Stage()
        lane = stage.lane([ScriptedAnswer(fault="hang")], total_s=3.0)
        with pytest.raises(LLMTimeoutError, match="total_s"):
            await call(stage, lane)
        assert stage.clock.monotonic() == 3.0
        assert is_idle(lane)

    play(main)


@pytest.mark.parametrize(
    ("row", "request_changes", "param"),
    [
        ({"embeddings_path": None}, {}, "model"),
        ({"unsupported": frozenset({"user"})}, {"user": "me"}, "user"),
        ({"unsupported": frozenset({"dimensions"})}, {"dimensions": 3}, "dimensions"),
    ],
)
def test_what_a_provider_cannot_do_is_refused_by_name(
    row: dict[str, Any], request_changes: dict[str, Any], param: str
) -> None:
    async def main() -> None:
        stage = Stage()
        lane = stage.lane([], row=Provider(name="some", **row))
        with pytest.raises(LLMCapabilityError) as caught:
            await call(stage, lane, request=evolve(ASK, **request_changes))
        assert caught.value.param == param
        assert stage.sent() == 0

    play(main)


def test_what_a_provider_ignores_is_left_out_and_told() -> None:
    async def main() -> None:
        stage = Stage()
        lane = stage.lane(
            [vectors(1.0, 2.0)], row=Provider(name="some", ignored=frozenset({"user"}))
        )
        await call(stage, lane, request=evolve(ASK, user="me", dimensions=1))
        assert stage.records[0].dropped == ("user",)
        sent = json.loads(bytes(stage.transports["first"].requests[0].body))
        assert "user" not in sent
        assert sent["dimensions"] == 1

    play(main)


class Engine:
    """An engine that counts letters: a text's token ids are they, its vector is their number.

    It takes ``takes_s`` for each question and reads five letters at most; at a ``?`` it chokes.
    """

    name = "engine"

    def __init__(self, stage: Stage, takes_s: float = 0.1) -> None:
        self.stage, self.takes_s = stage, takes_s
        self.asked: list[list[str]] = []

    async def prepare(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingRequest:
        ids = [tuple(map(ord, each)) if isinstance(each, str) else each for each in request.inputs]
        for place, each in enumerate(ids):
            if len(each) > 5:
                raise LLMContextLengthError("too long", param=f"input[{place}]")
        marks.dropped.append("user")
        return evolve(request, inputs=tuple(ids))

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        texts = ["".join(map(chr, each)) for each in request.inputs if isinstance(each, tuple)]
        self.asked.append(texts)
        marks.backend, marks.provider, marks.status = self.name, "letters", 200
        marks.sent = self.stage.clock.monotonic()
        await self.stage.clock.sleep(self.takes_s)
        if any("?" in text for text in texts):
            raise LLMInvalidRequestError("no such letter", param="input")
        if any("!" in text for text in texts):
            raise LLMUnavailableError("it died")
        tokens = sum(map(len, texts))
        return EmbeddingResult(
            vectors=[[float(len(text))] for text in texts],
            model_id="letters",
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )

    def stream(self, *_: object) -> Any:
        raise NotImplementedError

    async def models(self) -> tuple[ModelInfo, ...]:
        return ()

    async def status(self) -> BackendStatus:
        return BackendStatus(ok=True)

    async def aclose(self) -> None: ...


def window_lane(stage: Stage, engine: Engine, size: int = 4) -> EmbeddingLane:
    return EmbeddingLane(
        backend=engine,
        admission=Admission(max_running=64, max_waiting=64, timeout_s=60.0, clock=stage.clock),
        window=batch_window(
            engine, stage.clock, max_batch_size=size, max_wait_s=0.01, max_waiting=64
        ),
    )


async def calls(
    stage: Stage, lane: Lane, *several: Sequence[str]
) -> list[EmbeddingResult | BaseException]:
    requests = [EmbeddingRequest(inputs=tuple(inputs), model="m") for inputs in several]
    return await asyncio.gather(
        *(call(stage, lane, request=request) for request in requests), return_exceptions=True
    )


def test_calls_that_come_together_are_one_question_with_a_share_for_each() -> None:
    async def main() -> None:
        stage = Stage()
        engine = Engine(stage)
        results = await calls(stage, window_lane(stage, engine), ["abc"], ["a", "ab"])
        assert engine.asked == [["abc", "a", "ab"]]
        one, other = results
        assert isinstance(one, EmbeddingResult)
        assert isinstance(other, EmbeddingResult)
        assert (one.vectors, other.vectors) == ([[3.0]], [[1.0], [2.0]])
        assert one.usage == Usage(prompt_tokens=3, total_tokens=3)
        assert other.usage == Usage(prompt_tokens=3, total_tokens=3)
        assert [record.batch_occupancy for record in stage.records] == [0.75, 0.75]
        assert [record.provider for record in stage.records] == ["letters"] * 2
        assert [record.dropped for record in stage.records] == [("user",)] * 2
        assert all(record.timeline.sent == 0.01 for record in stage.records)

    play(main)


def test_the_one_to_blame_is_the_one_that_fails() -> None:
    async def main() -> None:
        stage = Stage()
        lane = window_lane(stage, Engine(stage))
        good, bad, long, also_good = await calls(
            stage, lane, ["abc"], ["?"], ["a", "abcdef"], ["ab"]
        )
        assert isinstance(good, EmbeddingResult)
        assert isinstance(also_good, EmbeddingResult)
        assert (good.vectors, also_good.vectors) == ([[3.0]], [[2.0]])
        assert isinstance(bad, LLMInvalidRequestError)
        assert isinstance(long, LLMContextLengthError)
        assert long.param == "input[1]"
        kinds = {record.error_kind for record in stage.records}
        assert kinds == {None, "LLMInvalidRequestError", "LLMContextLengthError"}
        assert is_idle(lane)

    play(main)


def test_an_engine_that_dies_fails_all_that_it_was_asked() -> None:
    async def main() -> None:
        stage = Stage()
        engine = Engine(stage)
        errors = await calls(stage, window_lane(stage, engine), ["abc"], ["!"])
        assert [type(error) for error in errors] == [LLMUnavailableError] * 2
        assert engine.asked == [["abc", "!"]]

    play(main)


def test_a_large_call_is_asked_a_batch_at_a_time_and_lets_others_in_between() -> None:
    async def main() -> None:
        stage = Stage()
        engine = Engine(stage)
        lane = window_lane(stage, engine)
        large, small = await calls(stage, lane, ["a", "ab", "abc"] * 3, ["abcd"])
        assert isinstance(large, EmbeddingResult)
        assert isinstance(small, EmbeddingResult)
        assert large.vectors == [[1.0], [2.0], [3.0]] * 3
        assert large.usage == Usage(prompt_tokens=18, total_tokens=18)
        assert large.model_id == "letters"
        assert small.vectors == [[4.0]]
        assert engine.asked == [
            ["a", "ab", "abc", "a"],
            ["abcd"],
            ["ab", "abc", "a", "ab"],
            ["abc"],
        ]
        assert is_idle(lane)

    play(main)


def test_a_caller_that_leaves_a_large_call_is_asked_no_further() -> None:
    async def main() -> None:
        stage = Stage(auto=False)
        engine = Engine(stage, takes_s=1.0)
        lane = window_lane(stage, engine)
        request = EmbeddingRequest(inputs=("a",) * 40, model="m")
        task = asyncio.create_task(call(stage, lane, request=request))
        await stage.clock.advance(1.5)
        task.cancel()
        await stage.clock.advance(10.0)
        assert len(engine.asked) == 2
        assert stage.records[0].error_kind == "LLMCancelledError"
        assert is_idle(lane)

    play(main)


def test_a_backend_that_makes_no_vectors_says_so() -> None:
    class Chatter:
        name = "chatter"

    async def main() -> None:
        stage = Stage()
        lane = evolve(stage.lane([]), backend=Chatter())  # type: ignore[arg-type]
        with pytest.raises(LLMCapabilityError, match="chatter makes text, not embeddings"):
            await call(stage, lane)

    play(main)
