"""What a backend is sent, and what its answer becomes, where it cannot do all that is asked."""

from __future__ import annotations

import asyncio
import json

import pytest

from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import LLMMessage, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.net.clock import SystemClock, World
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport
from headrace.wire.assemble import assemble

STREAM = (("content-type", "text/event-stream"),)
WHOLE = (("content-type", "application/json"),)
TIMINGS = {"predicted_n": 2}


def events(*chunks: dict[str, object]) -> bytes:
    said = [json.dumps({"id": "1", "model": "m", "system_fingerprint": "b1", **c}) for c in chunks]
    return b"".join(f"data: {each}\n\n".encode() for each in [*said, "[DONE]"])


def text(said: str, reason: str | None = None, index: int = 0) -> dict[str, object]:
    return {"index": index, "text": said, "finish_reason": reason}


CONTINUED = events(
    {"choices": [text(" four")]},
    {"choices": [text(" five")]},
    {"choices": [text("", "length")]},
    {
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "timings": TIMINGS,
    },
)


def ask(
    request: LLMRequest, body: bytes = CONTINUED, headers: tuple[tuple[str, str], ...] = STREAM
) -> tuple[LLMResponse, dict[str, object], Marks]:
    """The assembled answer, the body that the backend was sent, and the marks."""

    async def main() -> tuple[LLMResponse, dict[str, object], Marks]:
        transport = ScriptedTransport([ScriptedAnswer(body=body, headers=headers)])
        world = World(transport=transport, clock=SystemClock())
        remote = Remote(
            name="engine", provider=LLAMA_CPP_SERVER, base_url="http://scripted", world=world
        )
        marks = Marks()
        answer = assemble([delta async for delta in remote.stream(request, marks)])
        return answer, json.loads(transport.requests[0].body), marks

    return asyncio.run(main())


def continuing(**fields: object) -> LLMRequest:
    return LLMRequest(messages=(), prompt="One two three", **fields)  # type: ignore[arg-type]


def test_a_prompt_is_echoed_for_a_backend_that_does_not():
    answer, sent, _ = ask(continuing(echo=True))
    assert answer.text == "One two three four five"
    assert "echo" not in sent


def test_every_answer_of_several_is_preceded_by_the_echo():
    body = events(
        {"choices": [text("b", index=1)]},
        {"choices": [text("a")]},
        {"choices": [text("", "stop", index=1)]},
        {"choices": [text("", "stop")]},
    )
    answer, _, _ = ask(continuing(echo=True, n=2), body)
    assert [choice.text for choice in answer.choices] == ["One two threea", "One two threeb"]


def test_an_echo_of_token_ids_is_refused_by_name():
    with pytest.raises(LLMCapabilityError) as caught:
        ask(LLMRequest(messages=(), prompt=(1, 2), echo=True))
    assert caught.value.param == "echo"


def test_a_suffix_that_cannot_be_aimed_at_is_left_out_and_named():
    _, sent, marks = ask(continuing(suffix="the end"))
    assert "suffix" not in sent
    assert marks.dropped == ["suffix"]


@pytest.mark.parametrize(("best_of", "n"), [(0, None), (1, None), (1, 1), (2, 2)])
def test_as_many_candidates_as_answers_are_nothing_to_choose_from(best_of, n):
    _, sent, marks = ask(continuing(n=n, provider_options={"best_of": best_of}))
    assert "best_of" not in sent
    assert marks.dropped == []


def test_choosing_the_best_of_several_is_refused_by_name():
    with pytest.raises(LLMCapabilityError, match="does not support 'best_of'"):
        ask(continuing(provider_options={"best_of": 3}))


def test_the_build_that_answered_is_told():
    assert ask(continuing())[0].system_fingerprint == "b1"


@pytest.mark.parametrize("asked", [True, False])
def test_timings_are_told_to_those_who_ask(asked):
    answer, _, _ = ask(continuing(provider_options={"timings_per_token": asked}))
    assert answer.provider_fields == ({"timings": TIMINGS} if asked else None)


def chatting(**fields: object) -> LLMRequest:
    return LLMRequest(messages=[LLMMessage(role="user", content="hi")], **fields)  # type: ignore[arg-type]


def test_log_probabilities_beside_tools_are_asked_whole_where_a_stream_has_none():
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "logprobs": {"content": [{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]},
        "finish_reason": "stop",
    }
    body = json.dumps({"id": "1", "model": "m", "choices": [choice]}).encode()
    tool = ToolSpec(name="f", description="", input_schema={"type": "object"})
    answer, sent, _ = ask(chatting(tools=(tool,), logprobs=True), body, WHOLE)
    assert "stream" not in sent
    assert answer.text == "Hi"
    assert [each.logprob for each in answer.logprobs or ()] == [-0.5]


def test_everything_else_is_asked_as_a_stream():
    _, sent, _ = ask(continuing(logprobs=True))
    assert sent["stream"] is True


def test_log_probabilities_alone_are_had_with_one_alternative_that_is_left_out():
    top = [{"token": " four", "logprob": -0.5}]
    token = {"token": " four", "logprob": -0.5, "top_logprobs": top}
    told = {**text(" four"), "logprobs": {"content": [token]}}
    body = events({"choices": [told]}, {"choices": [text("", "length")]})
    answer, sent, _ = ask(continuing(logprobs=True, top_logprobs=0), body)
    assert sent["logprobs"] == 1
    assert [(each.logprob, each.top) for each in answer.logprobs or ()] == [(-0.5, ())]
