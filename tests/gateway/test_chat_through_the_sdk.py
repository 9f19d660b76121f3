"""Chat with the real model through OpenAI's own client."""

from __future__ import annotations

import json
import re
from datetime import date

import openai
import pytest

from gateway.served import MODEL

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
SHAPE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def chat(sdk, text="Say hello.", **settings):
    settings = {"model": MODEL, "max_tokens": 8, "temperature": 0, **settings}
    settings.setdefault("messages", [{"role": "user", "content": text}])
    return sdk.chat.completions.create(**settings)


def test_the_model_knows_the_capital_of_france(sdk):
    answer = chat(sdk, messages=FRANCE, max_tokens=32)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.id.startswith("chatcmpl-")


def test_usage_adds_up(sdk):
    usage = chat(sdk, max_tokens=5, stop=None).usage
    assert usage.prompt_tokens > 5
    assert 1 <= usage.completion_tokens <= 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_an_answer_that_is_cut_by_max_tokens_says_so(sdk):
    answer = chat(sdk, "Count from one to a hundred.", max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_the_newer_name_of_max_tokens_works_too(sdk):
    text = "Count from one to a hundred."
    answer = chat(sdk, text, max_tokens=openai.omit, max_completion_tokens=3)
    assert answer.usage.completion_tokens == 3


def test_a_request_that_names_no_max_tokens_gets_the_presets(sdk):
    text = "Count from one to a thousand, one number a line."
    answer = chat(sdk, text, max_tokens=openai.omit, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 64


def test_a_stream_says_what_a_plain_answer_says(sdk):
    plain = chat(sdk, messages=FRANCE, max_tokens=32)
    chunks = list(
        chat(
            sdk,
            messages=FRANCE,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *pieces, last = chunks
    assert last.choices == []
    assert last.usage.prompt_tokens == plain.usage.prompt_tokens
    assert last.usage.completion_tokens == plain.usage.completion_tokens
    assert all(piece.usage is None for piece in pieces)
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(p.choices[0].delta.content or "" for p in pieces)
    assert text == plain.choices[0].message.content
    reasons = [p.choices[0].finish_reason for p in pieces if p.choices[0].finish_reason]
    assert reasons == ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert len(pieces) > 3


def test_a_stream_that_asks_for_no_usage_gets_none(sdk):
    for chunk in chat(sdk, stream=True):
        assert chunk.usage is None
        assert len(chunk.choices) == 1


def test_the_sdks_own_accumulator_reads_the_stream(sdk):
    with sdk.chat.completions.stream(
        model=MODEL, messages=FRANCE, max_tokens=32, temperature=0
    ) as stream:
        final = stream.get_final_completion()
    assert "Paris" in final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"


def test_temperature_zero_says_the_same_twice(sdk):
    first, second = (
        chat(sdk, messages=FRANCE, max_tokens=16, seed=7).choices[0].message.content
        for _ in range(2)
    )
    assert first == second


def test_several_answers_come_side_by_side(sdk):
    answer = chat(sdk, "Tell me a story.", n=3, temperature=1.5, seed=3, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens <= 3 * 8
    assert answer.usage.completion_tokens > 8


def test_several_answers_are_streamed_under_their_indexes(sdk):
    text = {0: "", 1: ""}
    ended = {}
    for chunk in chat(sdk, "Count to ten.", n=2, stream=True, max_tokens=6):
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ended[choice.index] = choice.finish_reason
    assert text[0]
    assert text[1]
    assert ended == {0: "length", 1: "length"}


def test_logprobs_come_with_their_alternatives(sdk):
    answer = chat(sdk, logprobs=True, top_logprobs=3, max_tokens=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert "".join(each.token for each in content).startswith(answer.choices[0].message.content)
    for each in content:
        assert each.logprob <= 0
        assert bytes(each.bytes).decode(errors="replace") == each.token
        assert len(each.top_logprobs) == 3
        # At temperature 0 the likeliest is the one that was taken.
        assert each.top_logprobs[0].token == each.token


def test_logprobs_are_streamed_too(sdk):
    chunks = chat(sdk, logprobs=True, top_logprobs=2, max_tokens=4, stream=True)
    tokens = [
        each
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for each in choice.logprobs.content
    ]
    assert len(tokens) == 4
    assert all(len(each.top_logprobs) == 2 for each in tokens)


@pytest.mark.parametrize("stop", ["Paris", ["Paris", "London"]])
def test_a_stop_word_ends_the_answer_before_it(sdk, stop):
    answer = chat(sdk, messages=FRANCE, max_tokens=32, stop=stop)
    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" not in answer.choices[0].message.content
    assert "capital" in answer.choices[0].message.content


def test_a_schema_makes_the_answer_json_of_that_shape(sdk):
    shape = {"name": "place", "schema": SHAPE, "strict": True}
    answer = chat(
        sdk,
        "Describe Paris.",
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": shape},
    )
    made = json.loads(answer.choices[0].message.content)
    assert set(made) == {"city", "big"}
    assert isinstance(made["city"], str)
    assert isinstance(made["big"], bool)


def test_json_mode_makes_the_answer_json(sdk):
    answer = chat(
        sdk,
        'Answer with the JSON {"ok": true} and nothing else.',
        max_tokens=200,
        response_format={"type": "json_object"},
        stop=None,
    )
    content = answer.choices[0].message.content
    if answer.choices[0].finish_reason == "length":
        assert content.lstrip().startswith("{")
    else:
        assert isinstance(json.loads(content), dict)


def test_a_pattern_and_a_format_are_held(sdk):
    schema = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": r"^\d{3}-[A-Z]{2}$"},
            "day": {"type": "string", "format": "date"},
        },
        "required": ["code", "day"],
    }
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = chat(sdk, "Invent a booking.", max_tokens=64, response_format=shape)
    made = json.loads(answer.choices[0].message.content)
    assert re.fullmatch(r"[0-9]{3}-[A-Z]{2}", made["code"])
    assert date.fromisoformat(made["day"])


def test_a_schema_that_cannot_be_held_is_refused_by_name(sdk):
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as caught:
        chat(sdk, "Give tags.", response_format=shape)
    assert caught.value.param == "response_format"
    assert "'uniqueItems' at /properties/tags" in str(caught.value)


def test_several_calls_are_streamed_each_with_its_own_index(sdk):
    calls: dict[int, list[str]] = {}
    for chunk in chat(
        sdk,
        "How is the weather in Paris and in Rome?",
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=True,
        max_tokens=200,
        stream=True,
    ):
        for choice in chunk.choices:
            for piece in choice.delta.tool_calls or ():
                if piece.id:
                    assert piece.index == len(calls)
                    assert piece.function.name == "get_weather"
                calls.setdefault(piece.index, []).append(piece.function.arguments or "")
    assert calls
    assert all(set(json.loads("".join(said))) == {"city"} for said in calls.values())


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_required_tool_is_called(sdk, choice):
    answer = chat(
        sdk, "How is the weather in Paris?", tools=[WEATHER], tool_choice=choice, max_tokens=64
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    assert not message.content


def test_a_tool_call_is_streamed_in_pieces(sdk):
    begun, arguments, reasons = [], "", []
    for chunk in chat(
        sdk,
        "How is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=64,
        stream=True,
    ):
        for choice in chunk.choices:
            for piece in choice.delta.tool_calls or ():
                assert piece.index == 0
                if piece.id:
                    begun.append((piece.id, piece.function.name))
                arguments += piece.function.arguments or ""
            if choice.finish_reason:
                reasons.append(choice.finish_reason)
    assert [name for _, name in begun] == ["get_weather"]
    assert set(json.loads(arguments)) == {"city"}
    assert reasons == ["tool_calls"]


def test_tools_that_the_models_template_has_no_place_for_are_listed(sdk):
    raw = sdk.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How is the weather in Paris?"}],
        tools=[WEATHER],
        max_tokens=2,
    )
    assert "tools" in raw.headers["x-headrace-dropped"].split(", ")


def test_a_conversation_with_a_tools_result_goes_on(sdk):
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    answer = chat(
        sdk,
        messages=[
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "How is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 21 degrees"},
        ],
        tools=[WEATHER],
        tool_choice="none",
    )
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


def test_text_in_parts_is_text(sdk):
    parts = [
        {"type": "text", "text": "What is the capital"},
        {"type": "text", "text": " of France?"},
    ]
    answer = chat(sdk, messages=[{"role": "user", "content": parts}], max_tokens=32)
    assert "Paris" in answer.choices[0].message.content


def test_what_openai_does_with_its_own_account_is_taken_and_named_as_dropped(sdk):
    raw = sdk.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=FRANCE,
        max_tokens=2,
        store=False,
        service_tier="auto",
        metadata={"a": "b"},
    )
    dropped = raw.headers["x-headrace-dropped"].split(", ")
    assert set(dropped) == {"store", "service_tier", "metadata"}
    assert raw.parse().choices[0].message.content


def test_an_async_client_gets_many_answers_at_once(gateway):
    import asyncio

    async def ask_all():
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0
        ) as client:
            asked = (
                client.chat.completions.create(
                    model=MODEL, messages=FRANCE, max_tokens=2, temperature=0
                )
                for _ in range(40)
            )
            return await asyncio.gather(*asked)

    answers = asyncio.run(ask_all())
    assert len(answers) == 40
    assert {answer.usage.completion_tokens for answer in answers} == {2}
    assert len({answer.id for answer in answers}) == 40
