"""What every client promises of every provider, whichever of its two faces is used."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from client.faces import FACES, KEY, ROWS, Face, credentials
from formats import stream_headers, streamed
from headrace import (
    AudioPart,
    Client,
    ImagePart,
    LLMAuthError,
    LLMCapabilityError,
    LLMClient,
    LLMInvalidRequestError,
    LLMMessage,
    LLMProviderError,
    LLMRateLimitError,
    LLMRequest,
    TextPart,
    Usage,
)
from headrace.backends.providers import PROVIDERS, Provider
from headrace.net.scripted import ScriptedAnswer
from headrace.stores.credentials import Credentials
from headrace.traffic.endpoint import EndpointSettings
from traffic.play import answer, refusal

OTHER_KEY = "sk-of-one-call-only-9876543210"
SETTINGS: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "seed": 1,
    "n": 2,
    "logit_bias": {"1": 1.0},
    "user": "ann",
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logprobs": True,
    "top_logprobs": 2,
    "response_schema": {"type": "object"},
    "parallel_tool_calls": True,
    "suffix": "end",
    "best_of": 3,
    "response_format": {"type": "json_object"},
}
FIELDS = {name for name in inspect.signature(LLMRequest).parameters if name != "metadata"}

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
every_face = pytest.mark.parametrize("face", FACES)


def asking(name: str) -> dict[str, Any]:
    """The arguments of a chat that uses one setting, be it ours or the provider's own."""
    value = SETTINGS.get(name, {"some": "thing"})
    return {name: value} if name in FIELDS else {"provider_options": {name: value}}


def said_by(row: Provider, *texts: str) -> ScriptedAnswer:
    """A streamed answer as that provider would send it."""
    return ScriptedAnswer(headers=stream_headers(row.format), body=streamed(row.format, *texts))


def rows_and_names(which: str) -> Iterator[Any]:
    for row in ROWS:
        for name in sorted(getattr(row, which)):
            yield pytest.param(row, name, id=f"{row.name}-{name}")


def everything_said(error: BaseException) -> str:
    """All that a program may print of it."""
    return repr(error) + repr(vars(error)) + "".join(traceback.format_exception(error))


@every_face
@every_row
def test_an_answer_comes_whole_with_where_it_came_from(row: Provider, face: str) -> None:
    with Face(face, row, [said_by(row, "hi ", "there")]) as client:
        response = client.chat()
        (request,) = client.requests
        (record,) = client.records
    assert (response.text, response.finish_reason) == ("hi there", "stop")
    assert isinstance(response.usage, Usage)
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (3, 2)
    assert response.provider == row.name
    assert response.provenance is not None
    assert response.provenance.backend_kind == row.name
    assert response.dropped == ()
    assert (record.status, record.provider, record.operation) == (200, row.name, "chat")
    assert [each.error_kind for each in record.attempts] == [None]
    if row.key_env:
        assert dict(request.headers)[row.key_header] == row.key_scheme + KEY
    said = json.loads(request.body)
    (turn,) = said["input"] if row.format == "openai-responses" else said["messages"]
    assert {"role": "user", "content": "hello"}.items() <= turn.items()


@every_face
@every_row
def test_a_stream_is_deltas_and_then_all_of_it(row: Provider, face: str) -> None:
    with Face(face, row, [said_by(row, "hi ", "there")]) as client:
        *deltas, last = client.stream_chat()
        (record,) = client.records
    assert {event.kind for event in deltas} == {"delta"}
    assert "".join(event.delta_text or "" for event in deltas) == "hi there"
    assert last.kind == "completed"
    assert last.response is not None
    assert (last.response.text, last.response.finish_reason) == ("hi there", "stop")
    assert isinstance(last.response.usage, Usage)
    assert last.response.usage.total_tokens == 5
    assert last.response.provenance is not None
    assert (record.stream, record.chunks) == (True, 2)


@every_face
@every_row
def test_a_wrong_key_is_said_at_once_and_never_shown(row: Provider, face: str) -> None:
    answers = [refusal(401)]
    with Face(face, row, answers) as client:
        with pytest.raises(LLMAuthError) as caught:
            client.chat()
        assert len(client.requests) == 1
        (record,) = client.records
    assert caught.value.provider == row.name
    assert (record.status, record.error_kind) == (401, "LLMAuthError")
    assert KEY not in everything_said(caught.value)
    assert KEY not in repr(record)


@every_face
@every_row
def test_a_limit_is_waited_for_as_long_as_it_says(row: Provider, face: str) -> None:
    limited = refusal(429, ("retry-after", "7"))
    with Face(face, row, [limited, limited, said_by(row, "at last")]) as client:
        assert client.chat().text == "at last"
        assert client.sent_at == [0.0, 7.0, 14.0]
        (record,) = client.records
    assert [each.status for each in record.attempts] == [429, 429, 200]


@every_face
@every_row
def test_an_ailing_provider_is_asked_six_times_ever_more_slowly(row: Provider, face: str) -> None:
    endpoint = EndpointSettings(breaker=None)
    with Face(face, row, [refusal(500)] * 6, endpoint=endpoint) as client:
        with pytest.raises(LLMProviderError) as caught:
            client.chat()
        waits = [b - a for a, b in zip(client.sent_at, client.sent_at[1:], strict=False)]
        (record,) = client.records
    assert caught.value.status == 500
    assert len(waits) == 5
    for waited, delay in zip(waits, (1, 2, 4, 8, 16), strict=True):
        assert delay / 2 <= waited <= delay
    assert [each.error_kind for each in record.attempts] == ["LLMProviderError"] * 6


@every_face
@every_row
def test_one_that_fails_five_times_in_a_row_is_left_alone(row: Provider, face: str) -> None:
    endpoint = EndpointSettings(retry=None)
    with Face(face, row, [refusal(500)] * 5, endpoint=endpoint) as client:
        for _ in range(7):
            with pytest.raises(LLMProviderError):
                client.chat()
        assert len(client.requests) == 5


@every_face
@every_row
def test_a_limit_that_never_ends_is_said_in_the_end(row: Provider, face: str) -> None:
    endpoint = EndpointSettings(breaker=None)
    with Face(face, row, [refusal(429, ("retry-after", "3"))] * 6, endpoint=endpoint) as client:
        with pytest.raises(LLMRateLimitError) as caught:
            client.chat()
        assert client.sent_at == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
    assert caught.value.retry_after_s == 3


@pytest.mark.parametrize(("row", "name"), list(rows_and_names("unsupported")))
def test_a_setting_that_a_provider_has_not_is_refused_by_its_name(row: Provider, name: str) -> None:
    with Face("async", row, []) as client:
        with pytest.raises(LLMCapabilityError, match=f"'{name}'") as caught:
            client.chat(**asking(name))
        assert client.requests == []
    assert caught.value.param == name


@every_face
@pytest.mark.parametrize(("row", "name"), list(rows_and_names("ignored")))
def test_a_setting_that_a_provider_ignores_is_told_of(row: Provider, name: str, face: str) -> None:
    with Face(face, row, [said_by(row, "hi"), said_by(row, "hi")]) as client:
        assert client.chat(**asking(name)).dropped == (name,)
        last = client.stream_chat(**asking(name))[-1]
        assert last.response is not None
        assert last.response.dropped == (name,)
        assert [record.dropped for record in client.records] == [(name,), (name,)]
        assert all(name not in json.loads(request.body) for request in client.requests)


@every_face
@every_row
def test_a_key_in_the_metadata_is_for_one_call_and_never_shown(row: Provider, face: str) -> None:
    own = {"metadata": {"api_key": OTHER_KEY}}
    # One that repeats the key it was shown, as some do.
    wrong = refusal(401, ("x-seen", OTHER_KEY), code=f"key {OTHER_KEY}")
    with Face(face, row, [said_by(row, "one"), wrong, said_by(row, "two")]) as client:
        response = client.chat(**own)
        with pytest.raises(LLMAuthError) as caught:
            client.chat(**own)
        client.chat()
        keys = [dict(request.headers).get(row.key_header) for request in client.requests]
        said = repr(response) + repr(client.records) + everything_said(caught.value)
    assert keys[:2] == [row.key_scheme + OTHER_KEY] * 2
    assert keys[2] == (row.key_scheme + KEY if row.key_env else None)
    assert OTHER_KEY not in said


@every_face
@pytest.mark.parametrize("row", [row for row in ROWS if row.needs_key], ids=lambda row: row.name)
def test_a_missing_key_is_said_with_the_names_it_may_have(row: Provider, face: str) -> None:
    with Face(face, row, [said_by(row, "hi")], credentials=credentials(row, key=None)) as client:
        with pytest.raises(LLMAuthError) as caught:
            client.chat()
        assert all(name in str(caught.value) for name in row.key_env)
        assert client.requests == []
        # And one call's own key is enough for that call alone.
        assert client.chat(metadata={"api_key": OTHER_KEY}).text == "hi"
        with pytest.raises(LLMAuthError):
            client.chat()


@every_face
@pytest.mark.parametrize(
    ("part", "lacking"),
    [
        (ImagePart(url="https://example.com/cat.png"), "vision"),
        (AudioPart(data=b"RIFF", format="wav"), "audio"),
    ],
    ids=["image", "recording"],
)
def test_what_a_model_cannot_do_is_refused_before_it_is_asked(
    part: ImagePart | AudioPart, lacking: str, face: str
) -> None:
    message = LLMMessage(role="user", content=(TextPart(text="What is this?"), part))
    with Face(face, PROVIDERS["openai"], [], model="gpt-4") as client:
        with pytest.raises(LLMCapabilityError, match=lacking):
            client.chat([message])  # type: ignore[arg-type]
        assert client.requests == []


@every_face
def test_what_a_model_cannot_do_goes_to_one_that_can(face: str) -> None:
    image = ImagePart(url="https://example.com/cat.png")
    message = LLMMessage(role="user", content=(image,))
    settings = {"model": "gpt-4", "fallbacks": ["openai/gpt-4o"]}
    with Face(face, PROVIDERS["openai"], [answer("a cat")], **settings) as client:
        assert client.chat([message]).text == "a cat"  # type: ignore[arg-type]
        assert json.loads(client.requests[0].body)["model"] == "gpt-4o"


@every_face
def test_the_next_is_asked_where_one_fails(face: str) -> None:
    both = Credentials(
        environment={"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY},
        dotenv=None,
        config=None,
        seed=None,
    )
    settings = {"fallbacks": ["groq/llama-3.3-70b-versatile"], "credentials": both}
    with Face(face, PROVIDERS["openai"], [refusal(503), answer("here")], **settings) as client:
        response = client.chat()
        (record,) = client.records
    assert (response.text, response.provider) == ("here", "groq")
    assert [each.backend for each in record.attempts] == ["openai", "groq"]


@every_face
def test_a_key_is_shown_only_to_the_provider_that_it_was_given_for(face: str) -> None:
    groqs = Credentials(environment={"GROQ_API_KEY": KEY}, dotenv=None, config=None, seed=None)
    settings = {"fallbacks": ["groq/llama-3.3-70b-versatile"], "credentials": groqs}
    answers = [refusal(503), answer("a"), refusal(503), answer("b"), answer("c")]
    image = LLMMessage(role="user", content=(ImagePart(url="https://example.com/cat.png"),))
    pictures = {"fallbacks": ["groq/llama-4-scout"], "model": "gpt-4", "credentials": groqs}
    with Face(face, PROVIDERS["openai"], answers, api_key=OTHER_KEY, **settings) as client:
        client.chat()
        client.chat(metadata={"api_key": OTHER_KEY})
        client.chat(model="groq/llama-3.3-70b-versatile")
        requests = client.requests
    with Face(face, PROVIDERS["openai"], [answer("a cat")], **pictures) as client:
        client.chat([image], metadata={"api_key": OTHER_KEY})  # type: ignore[arg-type]
        requests = requests + client.requests
    shown = [(request.url.host, dict(request.headers)["authorization"]) for request in requests]
    there, here = ("api.openai.com", f"Bearer {OTHER_KEY}"), ("api.groq.com", f"Bearer {KEY}")
    assert shown == [there, here, there, here, here, here]


@every_face
def test_calls_with_keys_of_their_own_share_the_endpoint(face: str) -> None:
    row = PROVIDERS["openai"]
    known = credentials(row, key=None)
    endpoint = EndpointSettings(retry=None)
    with Face(face, row, [refusal(500)] * 5, credentials=known, endpoint=endpoint) as client:
        for number in range(7):
            with pytest.raises(LLMProviderError):
                client.chat(metadata={"api_key": f"{OTHER_KEY}-{number}"})
        # The sixth call finds the circuit open.
        assert len(client.requests) == 5


@every_face
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temprature": 1}, "temperature"),
        ({"model": "no-such-provider/model"}, "provider/model"),
    ],
)
def test_a_slip_of_the_pen_is_named(settings: dict[str, Any], said: str, face: str) -> None:
    with Face(face, PROVIDERS["openai"], []) as client:
        with pytest.raises(LLMInvalidRequestError, match=said):
            client.chat(**settings)
        assert client.requests == []


@pytest.mark.parametrize("kind", [Client], ids=["sync"])
def test_the_client_takes_what_the_protocol_says(kind: type[Client]) -> None:
    promised = {
        name: method
        for name, method in inspect.getmembers(LLMClient, inspect.isfunction)
        if not name.startswith("_") or name in ("__enter__", "__exit__")
    }
    assert {"chat", "stream_chat", "generate", "stream", "close", "describe"} <= promised.keys()
    for name, method in promised.items():
        if name == "__init__":
            continue
        ours = inspect.signature(getattr(kind, name))
        positional, named = [], {}
        for parameter in inspect.signature(method).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[parameter.name] = None
            else:
                positional.append(None)
        ours.bind(*positional, **named)


def test_what_a_client_tells_of_itself_holds_no_key() -> None:
    with Face("sync", PROVIDERS["openai"], [answer("hi")], api_key=OTHER_KEY) as client:
        client.chat()
        assert client.sync is not None
        described = json.dumps(client.sync.describe())
        assert "openai" in described
        said = described + repr(client.sync) + repr(client.of_loop)
        said += repr(client.of_loop.__dict__)
    assert OTHER_KEY not in said
    assert KEY not in said
