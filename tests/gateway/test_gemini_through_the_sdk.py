"""Gemini's API with the real model through Google's own client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from google import genai
from google.genai import errors, types

from gateway.served import MODEL, Served
from headrace.stores.models import EMBEDDER

FRANCE = "What is the capital of France?"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = types.FunctionDeclaration(
    name="get_weather", description="The weather in a city.", parameters_json_schema=CITY
)
CLOCK = types.FunctionDeclaration(name="get_time", description="What time it is.")
TOOLS = [types.Tool(function_declarations=[WEATHER, CLOCK])]


def client_of(served: Served, key: str = "unused", version: str = "v1beta") -> genai.Client:
    options = types.HttpOptions(base_url=served.url, api_version=version)
    return genai.Client(api_key=key, http_options=options)


@pytest.fixture(scope="module")
def google(gateway: Served) -> Iterator[genai.Client]:
    """Google's own client, pointed at the gateway."""
    with client_of(gateway) as client:
        yield client


def settings(**more):
    return types.GenerateContentConfig(
        **{"temperature": 0, "max_output_tokens": 32, "seed": 1, **more}
    )


def ask(google, contents=FRANCE, **more):
    return google.models.generate_content(model=MODEL, contents=contents, config=settings(**more))


def stream(google, contents=FRANCE, **more):
    return list(
        google.models.generate_content_stream(
            model=MODEL, contents=contents, config=settings(**more)
        )
    )


def calls_in(chunks):
    return [call for chunk in chunks for call in chunk.function_calls or ()]


def test_the_model_knows_the_capital_of_france(google):
    answer = ask(google)
    assert "Paris" in answer.text
    assert answer.candidates[0].finish_reason is types.FinishReason.STOP
    assert answer.model_version == MODEL
    assert answer.response_id
    usage = answer.usage_metadata
    assert usage.prompt_token_count > 5
    assert usage.candidates_token_count > 1
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count


def test_a_stream_says_what_a_plain_answer_says(google):
    plain, chunks = ask(google), stream(google)
    assert len(chunks) > 2
    assert "".join(chunk.text or "" for chunk in chunks) == plain.text
    last = chunks[-1]
    assert last.candidates[0].finish_reason is types.FinishReason.STOP
    for counted in ("prompt_token_count", "candidates_token_count", "total_token_count"):
        assert getattr(last.usage_metadata, counted) == getattr(plain.usage_metadata, counted)
    assert {chunk.response_id for chunk in chunks} == {last.response_id}


def test_an_answer_that_is_cut_says_so(google):
    answer = ask(google, max_output_tokens=2)
    assert answer.candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
    assert answer.usage_metadata.candidates_token_count == 2
    assert "Paris" not in ask(google, stop_sequences=["Paris"]).text


def test_a_conversation_goes_on(google):
    chat = google.chats.create(model=MODEL, config=settings(system_instruction="Be brief."))
    first = chat.send_message("My name is Ada.")
    assert first.text
    said = "".join(chunk.text or "" for chunk in chat.send_message_stream("What is my name?"))
    assert said
    # What Google's client takes for no answer is not in its history.
    history = chat.get_history(curated=True)
    assert [turn.role for turn in history[:4]] == ["user", "model", "user", "model"]
    pieces = history[3:]
    assert len(pieces) > 2
    assert "".join(part.text for turn in pieces for part in turn.parts) == said
    # It sends each chunk of a streamed answer as a content of its own, and they are one turn.
    whole = types.Content(role="model", parts=[types.Part(text=said)])
    more = types.Content(role="user", parts=[types.Part(text="Go on.")])
    in_pieces, in_one = (
        google.models.count_tokens(model=MODEL, contents=[*history[:3], *answer, more])
        for answer in (pieces, [whole])
    )
    assert in_pieces.total_tokens == in_one.total_tokens


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("names", [None, ["get_weather"]], ids=["any", "one"])
def test_a_forced_function_is_called_with_what_its_schema_allows(google, names, streams):
    calling = types.FunctionCallingConfig(mode="ANY", allowed_function_names=names)
    more = {
        "tools": TOOLS if names else [types.Tool(function_declarations=[WEATHER])],
        "tool_config": types.ToolConfig(function_calling_config=calling),
        "max_output_tokens": 64,
    }
    asked = "What is the weather in Paris?"
    chunks = stream(google, asked, **more) if streams else [ask(google, asked, **more)]
    (call,) = calls_in(chunks)
    assert (call.name, set(call.args)) == ("get_weather", {"city"})
    assert call.id
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP


def test_googles_client_calls_a_function_by_itself(google):
    """It takes the declaration from the function, calls it, and sends the result back."""
    heard: list[str] = []

    def get_weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: The city's name.
        """
        heard.append(city)
        return "12 degrees"

    calling = types.FunctionCallingConfig(mode="ANY")
    answer = ask(
        google,
        "What is the weather in Paris?",
        tools=[get_weather],
        tool_config=types.ToolConfig(function_calling_config=calling),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(maximum_remote_calls=2),
        max_output_tokens=48,
    )
    assert heard
    history = answer.automatic_function_calling_history
    result = history[2].parts[0].function_response
    assert (result.name, result.response) == ("get_weather", {"result": "12 degrees"})


def test_a_conversation_with_functions_goes_on(google):
    call = types.Part.from_function_call(name="get_weather", args={"city": "Paris"})
    result = types.Part.from_function_response(
        name="get_weather", response={"output": "12 degrees"}
    )
    answer = ask(
        google,
        [
            types.Content(role="user", parts=[types.Part(text="Weather in Paris?")]),
            types.Content(role="model", parts=[call]),
            types.Content(role="user", parts=[result]),
        ],
        tools=TOOLS,
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(mode="NONE")
        ),
        max_output_tokens=8,
    )
    assert answer.text


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "schema",
    [
        {"response_json_schema": CITY},
        {
            "response_schema": types.Schema(
                type="OBJECT",
                properties={"city": types.Schema(type="STRING", max_length=12)},
                required=["city"],
            )
        },
    ],
    ids=["JSON Schema", "Google's"],
)
def test_an_answer_meets_its_schema(google, schema, streams):
    more = {"response_mime_type": "application/json", "max_output_tokens": 48, **schema}
    chunks = stream(google, **more) if streams else [ask(google, **more)]
    said = json.loads("".join(chunk.text or "" for chunk in chunks))
    assert set(said) == {"city"}
    assert len(said["city"]) <= 12


def test_several_answers_at_once(google):
    answer = ask(google, candidate_count=2, temperature=1, max_output_tokens=6)
    assert [candidate.index or 0 for candidate in answer.candidates] == [0, 1]
    assert all(candidate.content.parts[0].text for candidate in answer.candidates)


def test_log_probabilities(google):
    answer = ask(google, response_logprobs=True, logprobs=2, max_output_tokens=3)
    (candidate,) = answer.candidates
    chosen = candidate.logprobs_result.chosen_candidates
    assert "".join(each.token for each in chosen) == answer.text
    assert all(each.log_probability <= 0 for each in chosen)
    assert [len(each.candidates) for each in candidate.logprobs_result.top_candidates] == [2] * 3
    assert candidate.avg_logprobs < 0


@pytest.mark.parametrize(
    "contents",
    [
        FRANCE,
        [
            types.Content(role="user", parts=[types.Part(text="日本の首都は? 🗼 Zürich")]),
            types.Content(role="model", parts=[types.Part(text="東京")]),
            types.Content(role="user", parts=[types.Part(text="Merci")]),
        ],
    ],
    ids=["plain", "several turns"],
)
def test_a_count_is_the_usage_that_follows(google, contents):
    counted = google.models.count_tokens(model=MODEL, contents=contents)
    usage = ask(google, contents, max_output_tokens=1).usage_metadata
    assert counted.total_tokens == usage.prompt_token_count


def test_a_count_of_a_whole_request(gateway):
    whole = {
        "model": f"models/{MODEL}",
        "contents": [{"parts": [{"text": FRANCE}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [{"name": "get_time"}]}],
    }
    path = f"/v1beta/models/{MODEL}"
    counted = gateway.post(f"{path}:countTokens", {"generateContentRequest": whole}).json
    asked = {**whole, "generationConfig": {"maxOutputTokens": 1}}
    usage = gateway.post(f"{path}:generateContent", asked).json["usageMetadata"]
    assert counted["totalTokens"] == usage["promptTokenCount"]


def test_texts_become_vectors(google, gateway):
    result = google.models.embed_content(model=EMBEDDER.name, contents=["a dog", "a cat", "a dog"])
    first, second, third = (each.values for each in result.embeddings)
    assert first == third != second
    body = {"model": EMBEDDER.name, "input": "a dog"}
    (same,) = gateway.post("/v1/embeddings", body).json["data"]
    assert first == pytest.approx(same["embedding"], abs=1e-6)
    content = {"content": {"parts": [{"text": "a dog"}]}, "taskType": "RETRIEVAL_QUERY"}
    alone = gateway.post(f"/v1beta/models/{EMBEDDER.name}:embedContent", content)
    assert alone.json["embedding"]["values"] == pytest.approx(first, abs=1e-6)
    assert alone.headers["x-headrace-dropped"] == "taskType"


def test_the_models_are_listed(google, gateway):
    listed = list(google.models.list(config={"page_size": 1}))
    ours = gateway.get("/v1/models").json["data"]
    assert [model.name for model in listed] == [f"models/{model['id']}" for model in ours]
    chat = google.models.get(model=MODEL)
    assert chat == listed[0]
    assert "generateContent" in chat.supported_actions
    assert chat.input_token_limit > 100
    embedder = google.models.get(model=EMBEDDER.name)
    assert embedder.supported_actions == ["embedContent"]


def test_the_stable_version_has_the_same_methods(gateway):
    with client_of(gateway, version="v1") as google:
        assert "Paris" in ask(google).text
        assert "Paris" in "".join(chunk.text or "" for chunk in stream(google))


def test_an_unknown_model_is_not_found(google):
    for call in (
        lambda: google.models.generate_content(model="smollm3", contents="a"),
        lambda: list(google.models.generate_content_stream(model="smollm3", contents="a")),
        lambda: google.models.get(model="smollm3"),
        lambda: google.models.count_tokens(model="smollm3", contents="a"),
        lambda: google.models.embed_content(model="smollm3", contents="a"),
    ):
        with pytest.raises(errors.ClientError) as caught:
            call()
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
        assert "smollm" in caught.value.message


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"temperature": 9}, "generationConfig.temperature"),
        ({"max_output_tokens": 20000}, "max_tokens"),
        ({"tools": [types.Tool(google_search=types.GoogleSearch())]}, "tools.*googleSearch"),
        ({"cached_content": "cachedContents/a"}, "cachedContent"),
        ({"response_modalities": ["IMAGE"]}, "responseModalities"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(google, more, words, streams):
    with pytest.raises(errors.ClientError, match=words) as caught:
        (stream if streams else ask)(google, **more)
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")


def test_a_picture_is_refused_by_a_model_that_sees_none(google):
    picture = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n", mime_type="image/png")
    with pytest.raises(errors.ClientError, match="image"):
        ask(google, [FRANCE, picture])


def test_what_a_local_engine_has_no_use_for_is_listed(google):
    answer = ask(
        google,
        max_output_tokens=1,
        safety_settings=[
            types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_ONLY_HIGH")
        ],
        media_resolution="MEDIA_RESOLUTION_LOW",
        thinking_config=types.ThinkingConfig(thinking_budget=700),
    )
    dropped = answer.sdk_http_response.headers["x-headrace-dropped"].split(", ")
    assert set(dropped) >= {"safetySettings", "mediaResolution", "thinkingConfig"}


def test_the_openapi_document_describes_every_path(gateway):
    document = gateway.get("/openapi.json").json
    schemas = document["components"]["schemas"]
    own = {path: each for path, each in document["paths"].items() if path.startswith("/v1beta/")}
    assert len(own) == 7
    written = json.dumps([own, {k: v for k, v in schemas.items() if k.startswith("Gemini")}])
    named = {each.partition('"')[0] for each in written.split("#/components/schemas/")[1:]}
    assert named <= schemas.keys()
    assert schemas["GeminiRequest"]["required"] == ["contents"]
    assert (
        "maxOutputTokens"
        in schemas["GeminiRequest"]["properties"]["generationConfig"]["properties"]
    )


KEY = "hr-a-key-for-gemini"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Served]:
    """One without a model of its own, that lets in who has the key."""
    hashed = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
    config = {
        "server": {"api_keys": [hashed], "max_body_bytes": 4096},
        "engine": {"enabled": False},
        "embeddings": {"enabled": False},
        "backends": [{"name": "away", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
    }
    served = Served(tmp_path_factory.mktemp("guarded"), config)
    try:
        yield served
    finally:
        served.stop()


def test_a_key_may_be_shown_in_each_of_its_places(guarded):
    for headers in ({"x-goog-api-key": KEY}, {"authorization": f"Bearer {KEY}"}):
        assert guarded.get("/v1beta/models", **headers).status == 200
    assert guarded.get(f"/v1beta/models?key={KEY}").status == 200
    # In the address it is Gemini's habit alone.
    assert guarded.get(f"/v1/models?key={KEY}").status == 401
    for path in ("/v1beta/models", "/v1beta/models?key=wrong", "/v1beta/models/m:generateContent"):
        reply = guarded.ask("POST" if ":" in path else "GET", path)
        assert reply.status == 401
        assert reply.json["error"]["status"] == "UNAUTHENTICATED"


def test_a_key_in_an_address_is_in_no_log(guarded):
    reply = guarded.ask("POST", f"/v1beta/models/m:generateContent?key={KEY}", b"{")
    assert reply.status == 400
    line = guarded.line_of(reply.headers["x-request-id"])
    assert line["path"] == "/v1beta/models/m:generateContent"
    assert KEY not in guarded.log


def test_the_sdk_says_that_the_key_is_wrong(guarded):
    with client_of(guarded, "wrong") as google, pytest.raises(errors.ClientError) as caught:
        google.models.generate_content(model="m", contents="a")
    assert caught.value.code == 401
    with client_of(guarded, KEY) as google:
        assert [model.name for model in google.models.list()] == ["models/away"]


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("POST", "/v1beta/models/m:generateContent", 400, "INVALID_ARGUMENT"),
        ("POST", "/v1beta/models/m:streamGenerateContent?alt=proto", 400, "INVALID_ARGUMENT"),
        ("POST", "/v1beta/models/m:predict", 404, "NOT_FOUND"),
        ("POST", "/v1beta/models/m", 404, "NOT_FOUND"),
        ("GET", "/v1beta/cachedContents", 404, "NOT_FOUND"),
        ("GET", "/v1beta/models?pageSize=many", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1beta/models?pageToken=none", 400, "INVALID_ARGUMENT"),
        ("DELETE", "/v1beta/models/away", 405, "INVALID_ARGUMENT"),
    ],
)
def test_what_goes_wrong_on_the_way_is_told_in_geminis_form(guarded, method, path, status, word):
    body = b"{" if method == "POST" else None
    reply = guarded.ask(method, path, body, {"x-goog-api-key": KEY})
    assert reply.status == status
    error = reply.json["error"]
    assert (error["code"], error["status"]) == (status, word)
    assert reply.headers["x-request-id"] in json.dumps(error["details"])


def test_a_body_that_is_too_large_is_413(guarded):
    reply = guarded.post(
        "/v1beta/models/away:generateContent", b" " * 5000, {"x-goog-api-key": KEY}
    )
    assert (reply.status, reply.json["error"]["status"]) == (413, "INVALID_ARGUMENT")


def test_a_backend_that_cannot_be_reached_is_unavailable(guarded):
    body = {"contents": [{"parts": [{"text": "a"}]}]}
    reply = guarded.post("/v1beta/models/away:generateContent", body, {"x-goog-api-key": KEY})
    assert (reply.status, reply.json["error"]["status"]) == (503, "UNAVAILABLE")
    assert KEY not in reply.body.decode()


def test_who_does_not_ask_for_events_gets_an_array(gateway):
    body = {
        "contents": [{"parts": [{"text": FRANCE}]}],
        "generationConfig": {"maxOutputTokens": 16, "temperature": 0},
    }
    path = f"/v1beta/models/{MODEL}:streamGenerateContent"
    array = gateway.post(path, body)
    assert array.headers["content-type"].startswith("application/json")
    events = gateway.post(f"{path}?alt=sse", body)
    assert events.headers["content-type"].startswith("text/event-stream")
    chunks = [json.loads(each[6:]) for each in events.body.split(b"\n\n") if each]
    assert len(chunks) > 2

    def said(answers):
        return [part["text"] for a in answers for part in a["candidates"][0]["content"]["parts"]]

    assert "Paris" in "".join(said(array.json))
    assert "".join(said(array.json)) == "".join(said(chunks))
    for counted in ("promptTokenCount", "candidatesTokenCount"):
        assert array.json[-1]["usageMetadata"][counted] == chunks[-1]["usageMetadata"][counted]
