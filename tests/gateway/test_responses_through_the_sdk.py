"""The Responses API with the real model, through OpenAI's own client and the specification's models."""

from __future__ import annotations

import json

import openai
import pytest

from gateway.served import MODEL, Served, until
from wire.spec_events import check_events, check_response

PATH = "/v1/responses"
CITY = {"type": "string", "maxLength": 12}
SHAPE = {
    "type": "object",
    "properties": {"city": CITY, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": CITY},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME = {**WEATHER, "name": "get_time", "description": "The time in a city."}
# So long an answer that no machine finishes it while a test waits for its end.
ENDLESS = {"max_output_tokens": 4000, "extra_body": {"ignore_eos": True}}


def ask(sdk, said="Say hello.", **settings):
    settings = {"model": MODEL, "max_output_tokens": 8, "temperature": 0, **settings}
    return sdk.responses.create(input=said, **settings)


def test_the_model_knows_the_capital_of_france(sdk):
    answer = ask(sdk, "What is the capital of France?", max_output_tokens=32)
    assert "Paris" in answer.output_text
    assert (answer.object, answer.status, answer.model) == ("response", "completed", MODEL)
    assert answer.id.startswith("resp_")
    assert answer.output[0].id.startswith("msg_")
    assert answer.completed_at >= answer.created_at
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_instructions_come_before_the_input(sdk):
    plain = ask(sdk).usage.input_tokens
    told = ask(sdk, instructions="You are a pirate of few words.")
    assert told.instructions == "You are a pirate of few words."
    assert told.usage.input_tokens != plain


def test_an_answer_that_is_cut_says_so(sdk):
    answer = ask(sdk, "Count from one to a hundred.", max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 3
    assert answer.completed_at is None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"instructions": "Be brief.", "temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}},
        {"text": {"format": {"type": "json_schema", "name": "place", "schema": SHAPE}}},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"store": False, "truncation": "auto", "user": "ann", "safety_identifier": "x"},
        {"reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "flex"},
    ],
    ids=["plain", "repeated", "schema", "tool", "logprobs", "unstored", "hints"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_is_answered_meets_the_specification(gateway, settings, stream):
    body = {"input": "Weather in Bern?", "max_output_tokens": 24, "stream": stream, **settings}
    reply = gateway.post(PATH, body)
    assert reply.status == 200, reply.body
    if not stream:
        check_response(reply.json)
        return
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body.endswith(b"data: [DONE]\n\n")
    check_events(reply.body)


def test_the_response_repeats_what_it_was_asked(gateway):
    asked = {
        "temperature": 0.25,
        "top_p": 0.5,
        "metadata": {"trace": "7"},
        "truncation": "disabled",
        "parallel_tool_calls": False,
        "max_output_tokens": 4,
        "max_tool_calls": 3,
        "safety_identifier": "someone",
        "prompt_cache_key": "some-key",
        "instructions": "Be brief.",
        "store": False,
    }
    reply = gateway.post(PATH, {"input": "hi", **asked})
    assert {name: reply.json[name] for name in asked} == asked


def test_what_the_engine_has_no_use_for_is_told_of(gateway):
    hints = {
        "truncation": "auto",
        "reasoning": {"summary": "auto"},
        "prompt_cache_key": "k",
        "text": {"verbosity": "low"},
        "stream_options": {"include_obfuscation": True},
    }
    reply = gateway.post(PATH, {"input": "hi", "max_output_tokens": 1, **hints})
    assert set(reply.headers["x-headrace-dropped"].split(", ")) == {
        *("prompt_cache_key", "reasoning_summary", "stream_options.include_obfuscation"),
        *("truncation", "verbosity"),
    }


def test_a_stream_says_what_the_whole_answer_would(sdk):
    whole = ask(sdk, "Name three colours.", max_output_tokens=16)
    events = list(ask(sdk, "Name three colours.", max_output_tokens=16, stream=True))
    pieces = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.output_text == events[-1].response.output_text
    # How much of the prompt came from the cache may differ.
    assert events[-1].response.usage.total_tokens == whole.usage.total_tokens
    assert events[-1].type == f"response.{whole.status}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_forced_tool_is_called_and_its_answer_taken(sdk, stream):
    settings = {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 60}
    answer = ask(sdk, "What is the weather in Bern?", stream=stream, **settings)
    if stream:
        events = list(answer)
        answer = events[-1].response
        done = next(e for e in events if e.type == "response.function_call_arguments.done")
        pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        assert "".join(pieces) == done.arguments == answer.output[-1].arguments
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, answer.status) == ("get_weather", "completed")
    assert json.loads(call.arguments).keys() == {"city"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Snow, -3 °C."}
    after = ask(sdk, [output], previous_response_id=answer.id, tools=[WEATHER], tool_choice="none")
    assert after.status in ("completed", "incomplete")
    assert after.previous_response_id == answer.id


def test_only_the_allowed_tools_are_called(sdk):
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "get_time"}],
    }
    answer = ask(
        sdk,
        "What is the weather in Bern?",
        tools=[WEATHER, TIME],
        tool_choice=allowed,
        max_output_tokens=60,
    )
    assert {item.name for item in answer.output if item.type == "function_call"} == {"get_time"}
    assert len(answer.tools) == 2
    assert answer.tool_choice.type == "allowed_tools"


def test_an_answer_keeps_to_its_schema(sdk):
    form = {"type": "json_schema", "name": "place", "schema": SHAPE, "strict": True}
    answer = ask(sdk, "Tell of Bern.", text={"format": form}, max_output_tokens=60)
    assert json.loads(answer.output_text).keys() == {"city", "big"}
    assert answer.text.format.schema_ == SHAPE


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_log_probabilities_come_to_those_who_ask(sdk, stream):
    include = ["message.output_text.logprobs"]
    answer = ask(sdk, include=include, top_logprobs=2, stream=stream)
    if stream:
        events = list(answer)
        deltas = [e for e in events if e.type == "response.output_text.delta"]
        assert all(each.logprobs for each in deltas)
        answer = events[-1].response
    (part,) = answer.output[0].content
    assert len(part.logprobs) == answer.usage.output_tokens
    assert all(each.logprob <= 0 and len(each.top_logprobs) == 2 for each in part.logprobs)


def test_a_conversation_goes_on_from_a_stored_response(sdk):
    first = ask(sdk, "My name is Ada.", instructions="Be brief.")
    second = ask(sdk, "What is my name?", previous_response_id=first.id)
    third = ask(sdk, "And again?", previous_response_id=second.id)
    # The instructions stay behind; what was said by both does not.
    assert second.usage.input_tokens > first.usage.output_tokens + 8
    assert third.usage.input_tokens > second.usage.input_tokens
    written_out = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is my name?"},
    ]
    whole = ask(sdk, written_out)
    assert whole.usage.input_tokens == second.usage.input_tokens
    assert whole.output_text == second.output_text


def test_an_item_may_be_referred_to_by_its_id(sdk):
    first = ask(sdk, "Say a word.")
    by_id = [
        {"role": "user", "content": "Say a word."},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "Another one."},
    ]
    spoken = [by_id[0], {"role": "assistant", "content": first.output_text}, by_id[2]]
    assert ask(sdk, by_id).usage.input_tokens == ask(sdk, spoken).usage.input_tokens
    with pytest.raises(openai.NotFoundError, match="msg_of_nobody"):
        ask(sdk, [{"type": "item_reference", "id": "msg_of_nobody"}])


def test_a_response_is_read_again_as_it_was_given(sdk):
    given = ask(sdk)
    assert sdk.responses.retrieve(given.id) == given
    streamed = list(ask(sdk, stream=True))[-1].response
    assert sdk.responses.retrieve(streamed.id).output == streamed.output


def test_a_kept_response_is_replayed_as_events(gateway, sdk):
    given = ask(sdk, tools=[WEATHER], tool_choice="required", max_output_tokens=60)
    body = gateway.get(f"{PATH}/{given.id}?stream=true").body
    events = check_events(body)
    assert events[-1]["response"] == gateway.get(f"{PATH}/{given.id}").json
    later = gateway.get(f"{PATH}/{given.id}?stream=true&starting_after=3").body
    assert later.count(b"event: ") == len(events) - 4
    assert body.endswith(later)


def test_a_deleted_response_is_gone(gateway, sdk):
    given = ask(sdk)
    reply = gateway.ask("DELETE", f"{PATH}/{given.id}")
    assert reply.json == {"id": given.id, "object": "response", "deleted": True}
    for look in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.input_items.list):
        with pytest.raises(openai.NotFoundError, match=given.id):
            look(given.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, previous_response_id=given.id)
    assert caught.value.param == "previous_response_id"
    assert caught.value.code == "previous_response_not_found"


def test_nothing_is_kept_of_what_shall_not_be(sdk):
    given = ask(sdk, store=False)
    assert given.store is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(given.id)


def test_input_items_come_in_pages(sdk):
    turns = [{"role": "user", "content": f"Turn {i}"} for i in range(5)]
    given = ask(sdk, turns)
    first = sdk.responses.input_items.list(given.id, limit=2)
    assert [item.content[0].text for item in first.data] == ["Turn 4", "Turn 3"]
    assert first.has_more
    ids = [item.id for item in first]
    assert len(ids) == len(set(ids)) == 5
    forward = sdk.responses.input_items.list(given.id, order="asc", after=ids[1])
    assert [item.content[0].text for item in forward.data] == ["Turn 4"]
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "nobody"}):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.input_items.list(given.id, **wrong)
        assert caught.value.param in wrong


def test_an_answer_in_the_background_is_asked_for_until_it_ended(sdk):
    begun = ask(sdk, background=True)
    assert (begun.status, begun.background) == ("queued", True)
    ended = until(
        lambda: (
            (r := sdk.responses.retrieve(begun.id)).status not in ("queued", "in_progress") and r
        )
    )
    assert ended.status in ("completed", "incomplete")
    assert ended.output_text == ask(sdk).output_text
    assert sdk.responses.cancel(begun.id) == ended


def test_cancelling_frees_the_engine(gateway, sdk):
    begun = ask(sdk, "Tell a long story.", background=True, **ENDLESS)
    until(lambda: sdk.responses.retrieve(begun.id).status == "in_progress")
    assert not gateway.quiet()
    assert sdk.responses.cancel(begun.id).status == "cancelled"
    until(gateway.quiet)
    assert sdk.responses.cancel(begun.id).status == "cancelled"


def test_deleting_ends_what_runs(gateway, sdk):
    begun = ask(sdk, "Tell a long story.", background=True, **ENDLESS)
    sdk.responses.delete(begun.id)
    until(gateway.quiet)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(begun.id)


def test_what_fails_in_the_background_says_why(gateway, sdk):
    begun = gateway.post(PATH, {"input": "hi", "background": True, "no_such_field": 1}).json
    ended = until(lambda: (r := sdk.responses.retrieve(begun["id"])).status == "failed" and r)
    assert "no_such_field" in ended.error.message
    check_response(gateway.get(f"{PATH}/{begun['id']}").json)


def test_only_what_runs_in_the_background_is_cancelled(sdk):
    given = ask(sdk)
    with pytest.raises(openai.BadRequestError, match="background"):
        sdk.responses.cancel(given.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.cancel("resp_of_nobody")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "hi"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "hi", "tool_choice": "required"}, "tool_choice"),
        ({"input": "hi", "temperature": 3}, "temperature"),
        ({"input": "hi", "conversation": "conv_1"}, "conversation"),
        ({"input": "hi", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "hi", "include": ["everything"]}, "include[0]"),
        ({"input": "hi", "background": True, "stream": True}, "stream"),
        ({"input": "hi", "background": True, "store": False}, "store"),
        ({"input": "hi", "n": 2}, "n"),
        ({"input": "hi", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"input": "hi", "previous_response_id": "resp_0"}, "previous_response_id"),
        ({"input": "hi", "no_such_field": 1}, "no_such_field"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(gateway, body, param):
    reply = gateway.post(PATH, body)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert reply.error["type"] == "invalid_request_error"


def test_one_who_says_nothing_is_answered_all_the_same(sdk):
    assert sdk.responses.create(max_output_tokens=4).output_text


def test_the_path_is_there_without_its_version(gateway):
    reply = gateway.post("/responses", {"input": "hi", "max_output_tokens": 1})
    assert reply.status == 200
    assert gateway.get(f"/responses/{reply.json['id']}").json == reply.json
    refused = gateway.ask("PUT", f"/responses/{reply.json['id']}", b"{}")
    assert (refused.status, set(refused.headers["allow"].split(", "))) == (
        405,
        {"DELETE", "GET", "HEAD"},
    )


def test_the_openapi_document_describes_every_path(gateway):
    document = gateway.get("/openapi.json").json
    paths = {path for path in document["paths"] if path.startswith(PATH)}
    assert paths == {
        PATH,
        f"{PATH}/{{response_id}}",
        f"{PATH}/{{response_id}}/cancel",
        f"{PATH}/{{response_id}}/input_items",
    }
    known = document["components"]["schemas"]["ResponsesRequest"]["properties"]
    assert {"input", "previous_response_id", "reasoning", "background"} <= known.keys()


def test_the_log_has_a_line_without_the_text(gateway):
    reply = gateway.post(PATH, {"input": "the secret recipe", "max_output_tokens": 1})
    line = gateway.line_of(reply.headers["x-request-id"])
    assert (line["path"], line["status"], line["model"]) == (PATH, 200, MODEL)
    assert "secret recipe" not in gateway.log


@pytest.fixture(scope="module")
def guarded(box_model, tmp_path_factory):
    """A gateway with two callers' keys that keeps two responses and runs one in the background."""
    served = Served(
        tmp_path_factory.mktemp("guarded"),
        {
            "server": {"api_keys": ["key-of-ann", "key-of-bob"]},
            "engine": {"kv_tokens": 8192},
            "responses": {"max_stored": 2, "max_background": 1},
        },
    )
    try:
        served.show_key("key-of-ann")
        until(lambda: served.get("/ready").status == 200)
        yield served
    finally:
        served.stop()


@pytest.fixture
def ann(guarded):
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="key-of-ann", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def bob(guarded):
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="key-of-bob", max_retries=0) as sdk:
        yield sdk


def test_callers_do_not_see_one_anothers_responses(ann, bob):
    given = ask(ann)
    for look in (
        bob.responses.retrieve,
        bob.responses.delete,
        bob.responses.cancel,
        bob.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError):
            look(given.id)
    with pytest.raises(openai.BadRequestError):
        ask(bob, previous_response_id=given.id)
    with pytest.raises(openai.NotFoundError):
        ask(bob, [{"type": "item_reference", "id": given.output[0].id}])
    assert ann.responses.retrieve(given.id) == given


def test_the_responses_used_last_are_kept(ann):
    first, second = ask(ann), ask(ann)
    ann.responses.retrieve(first.id)
    third = ask(ann)
    assert {ann.responses.retrieve(each.id).id for each in (first, third)} == {first.id, third.id}
    with pytest.raises(openai.NotFoundError):
        ann.responses.retrieve(second.id)


def test_only_so_many_run_in_the_background(ann, guarded):
    begun = ask(ann, "Tell a long story.", background=True, **ENDLESS)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(ann, background=True)
    assert caught.value.response.headers["retry-after"] == "1"
    ann.responses.cancel(begun.id)
    until(guarded.quiet)
    assert ask(ann, background=True).status == "queued"
