"""From every face to a backend of every format and back, as bytes, the way a gateway does it.

What a backend is not told, and what a caller is not told, must stand in the tables of losses; and
what the tables say is done about it must be done.
"""

from __future__ import annotations

import json
from itertools import product
from types import ModuleType
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMError
from headrace.contracts.messages import (
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse, ToolCallDelta, Usage
from headrace.net.clock import World
from headrace.net.scripted import ManualClock, ScriptedTransport
from headrace.wire.assemble import Assembler, assemble, deltas
from headrace.wire.inbound import Inbound
from headrace.wire.losses import what_is_done
from headrace.wire.translating import TranslatedStream
from wire.codecs import CODECS, row_of, takes_prompts
from wire.conversation import PNG, SETTINGS, TURNS
from wire.strategies import choppings, full_texts, json_texts, words
from wire.test_rich_conversation import asking, reason_of

CHATS = [name for name, codec in CODECS.items() if not takes_prompts(codec)]
pairs = pytest.mark.parametrize(("face", "format_name"), list(product(CHATS, CHATS)))
all_pairs = pytest.mark.parametrize(
    ("face", "format_name"),
    [
        pair
        for pair in product(CODECS, CODECS)
        if takes_prompts(CODECS[pair[0]]) is takes_prompts(CODECS[pair[1]])
    ],
)

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RICH = LLMRequest(
    model="m",
    max_tokens=700,
    temperature=0.5,
    stop=("END", "###"),
    tools=(
        ToolSpec(name="weather", description="The weather in a city", input_schema=CITY),
        ToolSpec(name="time", description="The time in a city", input_schema=CITY),
    ),
    tool_choice="auto",
    messages=(
        LLMMessage(role="system", content="Be brief."),
        LLMMessage(
            role="user",
            content=(
                TextPart(text="Where is this? Grüezi 👋"),
                ImagePart(data=PNG, media_type="image/png"),
            ),
        ),
        LLMMessage(
            role="assistant",
            content="Zürich. I look.",
            reasoning="A lake, mountains.",
            reasoning_parts=(ReasoningPart(text="A lake, mountains.", signature="c2VhbA=="),),
            tool_calls=(
                ToolCall(name="weather", arguments_json='{"city":"Zürich"}', call_id="call_1"),
                ToolCall(name="time", arguments_json='{"city":"Zürich"}', call_id="call_2"),
            ),
        ),
        LLMMessage(role="tool", content="12 °C", tool_call_id="call_1", tool_name="weather"),
        LLMMessage(
            role="tool",
            content="the clock is broken",
            tool_call_id="call_2",
            tool_name="time",
            tool_error=True,
        ),
        LLMMessage(role="assistant", content="12 °C, and no clock."),
        LLMMessage(role="user", content="Thanks. And now?"),
    ),
)
SPENT = Usage(
    prompt_tokens=90,
    completion_tokens=30,
    total_tokens=120,
    input_uncached_tokens=40,
    input_cache_read_tokens=30,
    input_cache_write_tokens=20,
    output_text_tokens=10,
    output_reasoning_tokens=20,
)
ANSWER = LLMResponse(
    text="I look again.",
    model="m",
    response_id="msg_1",
    finish_reason="tool_calls",
    reasoning="It may have changed.",
    reasoning_parts=(ReasoningPart(text="It may have changed.", signature="c2VhbA=="),),
    usage=SPENT,
    tool_calls=(
        ToolCall(name="weather", arguments_json='{"city":"Zürich"}', call_id="call_3"),
        ToolCall(name="time", arguments_json='{"city":"Zürich","now":true}', call_id="call_4"),
    ),
)
STOPPED = evolve(ANSWER, finish_reason="stop", stop_sequence="###", tool_calls=(), text="12 °C")


def heard_by(codec: ModuleType, request: LLMRequest) -> Inbound:
    """``request`` as a caller of that format puts it, as the gateway reads it."""
    inbound: Inbound = codec.read_request(codec.write_request(request, stream=False))
    # Some formats have the model in the address.
    return evolve(inbound, request=evolve(inbound.request, model=request.model))


def sent_by(codec: ModuleType, request: LLMRequest) -> tuple[LLMRequest, list[str]]:
    """What a backend of that format reads of ``request``, and what it was not told."""
    clock, marks = ManualClock(), Marks()
    remote = Remote(
        name="backend",
        provider=row_of(codec),
        base_url="http://backend.test",
        world=World(transport=ScriptedTransport([]), clock=clock),
    )
    written = remote.written(request, marks)
    assert written.codec is codec
    arrived = codec.read_request(written.body).request
    return evolve(arrived, model=arrived.model or request.model), marks.dropped


def lost_of(sent: LLMRequest, arrived: LLMRequest) -> set[str]:
    """What differs, by the names that the tables of losses use."""
    found = set()
    for each in fields(LLMRequest):
        if each.name == "messages" or getattr(sent, each.name) == getattr(arrived, each.name):
            continue
        found.add(each.name)
    assert len(arrived.messages) == len(sent.messages)
    for before, after in zip(sent.messages, arrived.messages, strict=True):
        for each in fields(LLMMessage):
            one, other = getattr(before, each.name), getattr(after, each.name)
            if one == other or one is None:
                continue
            if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
                found |= {
                    f"messages.{each.name}.{part.name}"
                    for a, b in zip(one, other, strict=True)
                    for part in fields(type(a))
                    if getattr(a, part.name) != getattr(b, part.name, None)
                }
            elif each.name == "reasoning_parts":  # whole ones, for what they are sealed with
                seals = ("signature", "part_id", "encrypted")
                found |= {
                    f"messages.{each.name}.{name}"
                    for part in set(one) - set(other)
                    for name in seals
                    if getattr(part, name) is not None
                }
            else:
                found.add(f"messages.{each.name}")
    return found


def covers(names: list[str], key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


@pairs
def test_a_rich_conversation_loses_nothing_that_is_not_told(face, format_name):
    there = CODECS[format_name]
    heard = heard_by(CODECS[face], RICH).request
    # The face itself took all that it has words for.
    for key in lost_of(evolve(RICH, provider_options={}), evolve(heard, provider_options={})):
        assert reason_of(CODECS[face], key), f"{face} loses {key}"
    arrived, dropped = sent_by(there, heard)
    for key in lost_of(heard, evolve(arrived, provider_options=heard.provider_options)):
        reason = reason_of(there, key)
        assert reason, f"{format_name} loses {key}"
        if what_is_done(key, reason) == "left out, and named":
            assert covers(dropped, key), f"{key} is lost unseen"
    assert [turn.role for turn in arrived.messages] == [turn.role for turn in RICH.messages]


LOSSES = [
    pytest.param(name, key, changes, id=f"{name}-{key}-{i}")
    for name, codec in CODECS.items()
    for i, (key, changes) in enumerate([*TURNS, *SETTINGS])
    if (reason := reason_of(codec, key))
    and what_is_done(key, reason) != "said otherwise"
    # What is asked in the other manner goes to the provider's other codec, where it has one.
    and not (takes_prompts(codec) and key.startswith("messages"))
    and (key != "prompt" or takes_prompts(codec))
    # What is said to be loose is loose anyway.
    and not (key == "tools.strict" and len(changes["tools"]) > 1)
]


@pytest.mark.parametrize(("name", "key", "changes"), LOSSES)
def test_what_the_table_says_is_done_is_done(name, key, changes):
    codec = CODECS[name]
    request = asking(codec, key, changes)
    if what_is_done(key, str(reason_of(codec, key))) == "refused":
        with pytest.raises(LLMError) as refused:
            sent_by(codec, request)
        assert refused.value.param
        return
    if key == "echo" and not row_of(codec).echoes:
        return  # it is done, or refused, by who asks the backend
    try:
        _, told = sent_by(codec, request)
    except LLMError as refusal:
        # A provider may refuse by name what its format could leave out.
        told = [key] if refusal.param else []
    assert covers(told, key) or covers([key], "".join(told)), told


# Answers


class Words:
    """How a face writes an answer, without what is the gateway's: ids and dates."""

    def __init__(self, codec: ModuleType) -> None:
        self.codec = codec

    def writer(self, first: LLMDelta | None) -> Any:
        return self.codec.stream_writer(
            response_id=self.codec.answer_id(first and first.response_id, "1"),
            model="m",
            created=1,
            include_usage=True,
            system_fingerprint=first and first.system_fingerprint,
        )

    def told(self, delta: LLMDelta) -> LLMDelta:
        return delta

    def finish(self, writer: Any) -> bytes:
        last: bytes = writer.finish()
        return last

    def error(self, writer: Any, error: LLMError) -> bytes:
        last: bytes = writer.error(error)
        return last

    def body(self, response: LLMResponse) -> bytes:
        body: bytes = self.codec.write_response(response, response_id="1", model="m", created=1)
        return body


def whole_through(face: ModuleType, there: ModuleType, said: LLMResponse) -> LLMResponse:
    """What a caller of ``face`` reads of an answer that a backend gave in its own words."""
    body = there.write_response(said, model="m", created=1)
    heard = there.read_response(body)
    body = face.write_response(
        heard, response_id=face.answer_id(heard.response_id, "1"), model="m", created=1
    )
    answer: LLMResponse = face.read_response(body)
    return answer


def streamed_by(there: ModuleType, pieces: list[LLMDelta]) -> bytes:
    writer = Words(there).writer(pieces[0] if pieces else None)
    return b"".join([*map(writer.write, pieces), writer.finish()])


def stream_through(face: ModuleType, there: ModuleType, data: list[bytes]) -> bytes:
    """What a caller of ``face`` is sent of a stream whose bytes come in these pieces."""
    stream = TranslatedStream(there.stream_reader(), Words(face))
    out = b"".join(map(stream.feed, data)) + stream.close()
    assert stream.failure is None
    return out


def read_stream(codec: ModuleType, pieces: list[bytes]) -> LLMResponse:
    reader, assembler = codec.stream_reader(), Assembler()
    for piece in pieces:
        for delta in reader.feed(piece):
            assembler.add(delta)
    for delta in reader.close():
        assembler.add(delta)
    return assembler.response()


def lost_of_answer(said: LLMResponse, arrived: LLMResponse) -> set[str]:
    found = set()
    for each in fields(LLMResponse):
        one, other = getattr(said, each.name), getattr(arrived, each.name)
        if one == other or each.name in ("raw_finish_reason", "created", "response_id"):
            continue
        if isinstance(one, Usage) and isinstance(other, Usage):
            found |= {
                f"answer.usage.{part.name}"
                for part in fields(Usage)
                if getattr(one, part.name) != getattr(other, part.name)
            }
        else:
            found.add(f"answer.{each.name}")
    return found


@pytest.mark.parametrize("said", [ANSWER, STOPPED], ids=["calls", "a stop string"])
@pairs
def test_a_rich_answer_loses_nothing_that_is_not_in_the_tables(face, format_name, said):
    here, there = CODECS[face], CODECS[format_name]
    for key in lost_of_answer(said, whole_through(here, there, said)):
        assert reason_of(here, key) or reason_of(there, key), f"{key} is lost"


@pytest.mark.parametrize("said", [ANSWER, STOPPED], ids=["calls", "a stop string"])
@pairs
def test_a_streamed_answer_says_what_a_whole_one_says(face, format_name, said):
    here, there = CODECS[face], CODECS[format_name]
    out = stream_through(here, there, [streamed_by(there, deltas(said))])
    streamed, whole = read_stream(here, [out]), whole_through(here, there, said)
    assert lost_of_answer(whole, streamed) == set()


# Streams cut anywhere


@st.composite
def counts(draw: st.DrawFn) -> Usage:
    """Tokens of an answer, with parts that are not zero: some formats write that for unknown, too."""
    fresh, read, wrote, text, thought = (draw(st.integers(1, 10**6)) for _ in range(5))
    told_apart = draw(st.booleans())
    return Usage(
        prompt_tokens=fresh + read + wrote,
        completion_tokens=text + thought,
        total_tokens=fresh + read + wrote + text + thought,
        input_uncached_tokens=fresh if told_apart else None,
        input_cache_read_tokens=read if told_apart else None,
        input_cache_write_tokens=wrote if told_apart else None,
        output_text_tokens=text if told_apart else None,
        output_reasoning_tokens=thought if told_apart else None,
    )


@st.composite
def spoken(draw: st.DrawFn) -> list[LLMDelta]:
    """The deltas of one answer: thoughts, text, calls one after another, the reason, the counts."""
    pieces: list[dict[str, Any]] = []
    pieces += [{"reasoning_delta": text} for text in draw(st.lists(full_texts, max_size=2))]
    pieces += [{"text_delta": text} for text in draw(st.lists(full_texts, max_size=5))]
    calls = draw(st.lists(st.tuples(words, json_texts.filter(_is_object)), max_size=2))
    for number, (name, arguments) in enumerate(calls):
        begin = ToolCallDelta(
            call_id=f"call_{number}", name=name, arguments_json_delta="", index=number
        )
        pieces.append({"tool_call_delta": begin})
        cut = draw(st.integers(0, len(arguments)))
        for said in (arguments[:cut], arguments[cut:]):
            piece = ToolCallDelta(arguments_json_delta=said, index=number)
            pieces.append({"tool_call_delta": piece})
    reason = "tool_calls" if calls else draw(st.sampled_from(["stop", "length"]))
    pieces.append({"finish_reason": reason, "raw_finish_reason": reason})
    pieces.append({"usage_delta": draw(counts())})
    return [LLMDelta(model="m", response_id="msg_1", **piece) for piece in pieces]


def _is_object(text: str) -> bool:
    return text.startswith("{")


@pairs
@settings(max_examples=10)
@given(data=st.data())
def test_a_stream_says_the_same_through_every_other_wherever_it_is_cut(face, format_name, data):
    here, there = CODECS[face], CODECS[format_name]
    pieces = data.draw(spoken())
    sent = streamed_by(there, pieces)
    whole = stream_through(here, there, [sent])
    assert stream_through(here, there, data.draw(choppings(sent))) == whole
    arrived = read_stream(here, data.draw(choppings(whole)))
    assert arrived == read_stream(here, [whole])
    said = assemble(pieces)
    assert arrived.text == said.text
    assert calls_of(arrived) == calls_of(said)
    for key in lost_of_answer(said, arrived) - {"answer.tool_calls"}:
        assert reason_of(here, key) or reason_of(there, key), f"{key} is lost"


@pytest.mark.parametrize("name", [name for name in CODECS if takes_prompts(CODECS[name])])
@settings(max_examples=10)
@given(data=st.data(), said=st.lists(full_texts, min_size=1, max_size=6))
def test_so_does_a_continued_text(name, said, data):
    codec = CODECS[name]
    pieces = [LLMDelta(model="m", response_id="id", text_delta=text) for text in said]
    pieces.append(LLMDelta(finish_reason="stop", raw_finish_reason="stop"))
    sent = streamed_by(codec, pieces)
    out = stream_through(codec, codec, data.draw(choppings(sent)))
    assert read_stream(codec, data.draw(choppings(out))).text == "".join(said)


# Tool calls as servers number them


def calls_of(answer: LLMResponse) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments_json or "{}")) for call in answer.tool_calls]


def _call(
    index: int | None, call_id: str | None, name: str | None, arguments: str | None
) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    wire = {"index": index, "id": call_id, "type": "function"}
    wire = {key: value for key, value in wire.items() if value is not None}
    return wire | {"function": {k: v for k, v in function.items() if v is not None}}


A, B = '{"city": "Zürich", "unit": "°C"}', '{"city": "Bern"}'
MANNERS = {
    "as OpenAI does": [
        [_call(0, "c1", "f", "")],
        [_call(0, None, None, A[:9])],
        [_call(0, None, None, A[9:])],
        [_call(1, "c2", "g", "")],
        [_call(1, None, None, B)],
    ],
    "without indexes": [[_call(None, "c1", "f", A)], [_call(None, "c2", "g", B)]],
    "without indexes, in pieces": [
        [_call(None, "c1", "f", A[:5])],
        [_call(None, None, None, A[5:])],
        [_call(None, "c2", "g", B[:5])],
        [_call(None, None, None, B[5:])],
    ],
    "from one": [
        [_call(1, "c1", "f", "")],
        [_call(1, None, None, A)],
        [_call(2, "c2", "g", "")],
        [_call(2, None, None, B)],
    ],
    "interleaved": [
        [_call(0, "c1", "f", ""), _call(1, "c2", "g", "")],
        [_call(0, None, None, A[:4]), _call(1, None, None, B[:4])],
        [_call(1, None, None, B[4:]), _call(0, None, None, A[4:])],
    ],
    "interleaved, begun one after the other": [
        [_call(0, "c1", "f", A[:4])],
        [_call(1, "c2", "g", B[:4])],
        [_call(0, None, None, A[4:])],
        [_call(1, None, None, B[4:])],
    ],
    "the same index for both": [[_call(0, "c1", "f", A)], [_call(0, "c2", "g", B)]],
    "the id with every piece": [
        [_call(0, "c1", "f", A[:6])],
        [_call(0, "c1", None, A[6:])],
        [_call(1, "c2", "g", B[:6])],
        [_call(1, "c2", None, B[6:])],
    ],
}
NOTHING_ASKED = {
    "empty": [[_call(0, "c1", "f", "")], [_call(1, "c2", "g", "")]],
    "absent": [[_call(0, "c1", "f", None)], [_call(1, "c2", "g", None)]],
    "an empty object": [[_call(0, "c1", "f", "{}")], [_call(1, "c2", "g", "{}")]],
    "null pieces": [
        [_call(0, "c1", "f", None)],
        [_call(0, None, None, None)],
        [_call(1, "c2", "g", "")],
    ],
}


def chat_stream(chunks: list[list[dict[str, Any]]]) -> bytes:
    """A stream of chat completions with these pieces of calls."""
    told: list[dict[str, Any]] = [{"delta": {"tool_calls": calls}} for calls in chunks]
    told.append({"delta": {}, "finish_reason": "tool_calls"})
    events = [{"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, **t}]} for t in told]
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + (
        b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("face", CHATS)
def test_calls_are_the_same_json_out_of_every_writer(face, manner):
    sent = chat_stream(MANNERS[manner])
    out = stream_through(CODECS[face], CODECS["openai_chat"], [sent])
    arrived = read_stream(CODECS[face], [out])
    assert calls_of(arrived) == [("f", json.loads(A)), ("g", json.loads(B))]
    assert len({call.call_id for call in arrived.tool_calls}) == 2
    assert arrived.finish_reason == "tool_calls"


@pytest.mark.parametrize("manner", NOTHING_ASKED)
@pytest.mark.parametrize("face", CHATS)
def test_calls_without_arguments_are_calls_all_the_same(face, manner):
    sent = chat_stream(NOTHING_ASKED[manner])
    out = stream_through(CODECS[face], CODECS["openai_chat"], [sent])
    arrived = read_stream(CODECS[face], [out])
    assert calls_of(arrived) == [("f", {}), ("g", {})]


@pytest.mark.parametrize("manner", {**MANNERS, **NOTHING_ASKED})
@pytest.mark.parametrize("face", CHATS)
def test_what_a_caller_of_one_format_got_the_next_gets_too(face, manner):
    """Through a second gateway, in another format again."""
    sent = chat_stream({**MANNERS, **NOTHING_ASKED}[manner])
    first = stream_through(CODECS[face], CODECS["openai_chat"], [sent])
    for further in CHATS:
        second = stream_through(CODECS[further], CODECS[face], [first])
        arrived = read_stream(CODECS[further], [second])
        assert calls_of(arrived) == calls_of(read_stream(CODECS[face], [first]))
