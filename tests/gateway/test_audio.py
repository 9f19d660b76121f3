"""Speech, pictures and judgements through the gateway: OpenAI's own client, a provider that has them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from gateway.far import NO_MODEL
from gateway.kept import Keeper, Says, keeper
from gateway.served import Served, until
from headrace import (
    Client,
    EndpointSettings,
    ImagePart,
    LLMBadResponseError,
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMRateLimitError,
    TextPart,
)
from headrace.wire.multipart import Part, read_parts, write_parts

WAV = b"RIFF....WAVEfmt "
HEARD = {
    "task": "transcribe",
    "language": "english",
    "duration": 2.5,
    "text": "Hello there.",
    "segments": [
        {"id": 0, "seek": 0, "start": 0.0, "end": 2.5, "text": " Hello there.", "tokens": [1]}
    ],
    "words": [{"word": "Hello", "start": 0.0, "end": 0.5}],
}
HEAR = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def kept() -> Iterator[Keeper]:
    with keeper() as made:
        yield made


@pytest.fixture(scope="module")
def served(kept: Keeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("audio")
    served = Served(
        folder,
        {
            **NO_MODEL,
            "records": {"file": str(folder / "calls.jsonl")},
            "backends": [
                {
                    "name": "deaf",
                    "provider": "deepseek",
                    "base_url": kept.url,
                    "api_key": "k",
                    "models": ["deaf-*"],
                },
                kept.backend(),
                {**kept.backend(model="theirs"), "name": "renamed", "models": ["mine"]},
            ],
        },
    )
    served.records = folder / "calls.jsonl"
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture
def sdk(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def hearing(kept: Keeper) -> None:
    kept.says[HEAR] = Says(json.dumps(HEARD).encode())
    kept.says["/v1/audio/translations"] = Says(b'{"text": "Hello."}')


def fields(kept: Keeper) -> dict[str, bytes]:
    parts = read_parts(kept.last.headers["content-type"], kept.last.body)
    return {part.name: part.data for part in parts}


def test_the_sdk_has_a_recording_transcribed(sdk, kept):
    heard = sdk.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", WAV), language="en", prompt="Hi", temperature=0.5
    )
    assert heard.text == "Hello there."
    assert heard.usage.seconds == 2.5
    assert kept.last.target == HEAR
    assert kept.last.headers["authorization"] == "Bearer sk-theirs"
    assert fields(kept) == {
        "model": b"whisper-1",
        "language": b"en",
        "prompt": b"Hi",
        "temperature": b"0.5",
        "response_format": b"json",
        "file": WAV,
    }


def test_the_sdk_gets_words_and_segments(sdk, kept):
    heard = sdk.audio.transcriptions.create(
        model="whisper-1",
        file=("a.wav", WAV),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert [each.word for each in heard.words] == ["Hello"]
    assert heard.segments[0].end == 2.5
    assert heard.language == "english"
    assert fields(kept)["timestamp_granularities[]"] == b"segment"


@pytest.mark.parametrize(
    ("response_format", "told"),
    [
        ("text", "Hello there.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\nHello there.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nHello there.\n"),
    ],
)
def test_subtitles_are_made_here(sdk, kept, response_format, told):
    heard = sdk.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", WAV), response_format=response_format
    )
    assert heard == told
    assert fields(kept)["response_format"] == (
        b"json" if response_format == "text" else b"verbose_json"
    )


def test_the_sdk_hears_a_stream(sdk, kept, served):
    events = [
        {"type": "transcript.text.delta", "delta": "Hello"},
        {"type": "transcript.text.delta", "delta": " there."},
        {
            "type": "transcript.text.done",
            "text": "Hello there.",
            "usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
        },
    ]
    chunks = tuple(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    kept.says[HEAR] = Says(content_type="text/event-stream", chunks=chunks)
    stream = sdk.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=("a.wav", WAV), stream=True
    )
    got = list(stream)
    assert [each.type for each in got] == [event["type"] for event in events]
    assert got[-1].usage.total_tokens == 13
    assert fields(kept)["stream"] == b"true"
    record = until(
        lambda: (r := last(served))["operation"] == "transcription" and r["stream"] and r
    )
    assert record["usage"]["prompt_tokens"] == 9
    assert record["backend"] == "kept"


def test_who_does_not_stream_is_heard_whole(sdk):
    stream = sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", WAV), stream=True)
    (done,) = stream
    assert (done.type, done.text) == ("transcript.text.done", "Hello there.")


def test_a_stream_that_breaks_off_ends_with_an_error(served, kept):
    delta = b'data: {"type":"transcript.text.delta","delta":"Hel"}\n\n'
    kept.says[HEAR] = Says(content_type="text/event-stream", chunks=(delta,))
    with OpenAI(base_url=f"{served.url}/v1", api_key="a", max_retries=0) as sdk:
        stream = sdk.audio.transcriptions.create(model="gpt-x", file=("a.wav", WAV), stream=True)
        with pytest.raises(openai.APIError, match="ended without"):
            list(stream)


def last(served: Served) -> dict:
    def found():
        lines = served.records.read_text().splitlines() if served.records.is_file() else []
        return json.loads(lines[-1]) if lines else None

    return until(found)


def test_a_translation_is_one(served, kept):
    content_type, body = write_parts([Part("model", b"whisper-1"), Part("file", WAV, "a.wav")])
    reply = served.post("/v1/audio/translations", body, {"content-type": content_type})
    assert reply.json == {"text": "Hello."}
    assert kept.last.target == "/v1/audio/translations"


def test_the_backends_own_name_goes_along(sdk, kept):
    sdk.audio.transcriptions.create(model="mine", file=("a.wav", WAV))
    assert fields(kept)["model"] == b"theirs"
    sdk.audio.speech.create(model="mine", voice="alloy", input="Hi")
    assert kept.last.json["model"] == "theirs"


def test_sound_comes_as_it_is_made(sdk, kept, served):
    sound = bytes(range(256)) * 400
    kept.says["/v1/audio/speech"] = Says(
        content_type="audio/mpeg", chunks=(sound[:50_000], sound[50_000:])
    )
    with sdk.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hello", speed=1.5, instructions="Softly"
    ) as reply:
        assert reply.read() == sound
        assert reply.headers["content-type"] == "audio/mpeg"
    assert kept.last.json == {
        "model": "tts-1",
        "voice": "alloy",
        "input": "Hello",
        "speed": 1.5,
        "instructions": "Softly",
    }
    assert until(lambda: (r := last(served))["operation"] == "speech" and r)["status"] == 200


def test_pictures_come_from_who_makes_them(sdk, kept, served):
    picture = base64.b64encode(b"png").decode()
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    body = {"created": 1, "data": [{"b64_json": picture}], "usage": usage}
    kept.says["/v1/images/generations"] = Says(json.dumps(body).encode())
    made = sdk.images.generate(model="gpt-image-1", prompt="A cat", size="1024x1024", n=1)
    assert made.data[0].b64_json == picture
    assert kept.last.json == {
        "model": "gpt-image-1",
        "prompt": "A cat",
        "size": "1024x1024",
        "n": 1,
    }
    record = until(lambda: (r := last(served))["operation"] == "image" and r)
    assert record["usage"]["total_tokens"] == 12


def test_pictures_are_made_of_others(sdk, kept, served):
    kept.says["/v1/images/edits"] = Says(b'{"created": 1, "data": []}')
    two = [("a.png", b"one", "image/png"), ("b.png", b"two", "image/png")]
    sdk.images.edit(model="gpt-image-1", image=two, prompt="Both", mask=("m.png", b"mask"))
    parts = read_parts(kept.last.headers["content-type"], kept.last.body)
    assert [part.data for part in parts if part.name == "image[]"] == [b"one", b"two"]
    assert {p.name for p in parts} == {"model", "prompt", "image[]", "mask"}
    kept.says["/v1/images/variations"] = Says(b'{"created": 1, "data": []}')
    content_type, body = write_parts([Part("model", b"dall-e-2"), Part("image", b"a", "a.png")])
    reply = served.post("/v1/images/variations", body, {"content-type": content_type})
    assert reply.json["data"] == []


def test_texts_are_judged_by_who_can(sdk, kept):
    judged = {"flagged": True, "categories": {}, "category_scores": {}}
    body = {"id": "modr-1", "model": "omni", "results": [judged]}
    kept.says["/v1/moderations"] = Says(json.dumps(body).encode())
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    found = sdk.moderations.create(model="omni-moderation-latest", input=parts)
    assert found.results[0].flagged
    assert kept.last.json["input"] == parts


def test_where_no_model_is_named_the_first_that_can_is_asked(served, kept):
    kept.says["/v1/moderations"] = Says(b'{"id": "m", "model": "x", "results": []}')
    assert served.post("/v1/moderations", {"input": "a"}).status == 200
    assert kept.last.json == {"input": "a"}


def test_a_model_that_has_it_not_says_who_has(served, kept):
    before = len(kept.asked)
    reply = served.post("/v1/images/generations", {"model": "deaf-1", "prompt": "A cat"})
    assert reply.status == 400
    assert reply.error["param"] == "model"
    assert "has no /images/generations; ask 'm'" in reply.error["message"]
    with OpenAI(base_url=f"{served.url}/v1", api_key="a", max_retries=0) as sdk:
        with pytest.raises(openai.BadRequestError, match="has no /audio/transcriptions"):
            sdk.audio.transcriptions.create(model="deaf-1", file=("a.wav", WAV))
        with pytest.raises(openai.NotFoundError):
            sdk.audio.transcriptions.create(model="nobody", file=("a.wav", WAV))
    assert len(kept.asked) == before


def test_a_server_without_any_says_how_to_get_one(tmp_path, kept):
    backend = {"name": "d", "provider": "deepseek", "base_url": kept.url, "api_key": "k"}
    served = Served(tmp_path, {**NO_MODEL, "backends": [backend]})
    try:
        reply = served.post("/v1/moderations", {"input": "a"})
        assert reply.status == 501
        assert reply.error["code"] == "not_supported"
    finally:
        served.stop()


def test_a_refusal_of_the_backends_keeps_its_status(sdk, kept):
    kept.says[HEAR] = Says(b'{"error": {"message": "Slow down."}}', status=429)
    with pytest.raises(openai.RateLimitError, match="Slow down"):
        sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", WAV))


# The client


def client_of(kept: Keeper, **settings) -> Client:
    return Client("m", base_url=f"{kept.url}/v1", api_key="sk-mine", **settings)


def test_the_client_has_a_recording_transcribed(kept, tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(WAV)
    records = []
    with client_of(kept, sinks=[records.append]) as client:
        heard = client.transcribe(path, granularities=("word",), language="en")
        assert heard.text == "Hello there."
        assert heard.words[0].word == "Hello"
        assert heard.duration_s == 2.5
        assert fields(kept)["file"] == WAV
        assert b'filename="talk.wav"' in kept.last.body
        assert kept.last.headers["authorization"] == "Bearer sk-mine"
        client.transcribe(WAV, metadata={"api_key": "sk-other"}, translate=True)
        assert kept.last.headers["authorization"] == "Bearer sk-other"
        assert kept.last.target == "/v1/audio/translations"
    assert [record.operation for record in records] == ["transcription", "translation"]


def test_the_client_hears_pieces(kept):
    chunks = (
        b'data: {"type":"transcript.text.delta","delta":"Hello"}\n\n',
        b'data: {"type":"transcript.text.done","text":"Hello"}\n\n',
    )
    kept.says[HEAR] = Says(content_type="text/event-stream", chunks=chunks)
    with client_of(kept) as client:
        pieces = list(client.stream_transcription(WAV))
    assert [piece.text for piece in pieces] == ["Hello", ""]
    assert pieces[-1].result.text == "Hello"


def test_the_client_has_a_text_read_aloud(kept):
    kept.says["/v1/audio/speech"] = Says(b"sound", "audio/wav")
    with client_of(kept) as client:
        spoken = client.speak("Hello", voice="alloy", response_format="wav")
    assert (spoken.audio, spoken.content_type) == (b"sound", "audio/wav")
    assert kept.last.json == {
        "model": "m",
        "input": "Hello",
        "voice": "alloy",
        "response_format": "wav",
    }


def test_the_client_names_what_a_provider_has_not(kept):
    with Client("deepseek/x", base_url=kept.url, provider="deepseek", api_key="k") as client:
        with pytest.raises(LLMCapabilityError, match="transcribes no recordings"):
            client.transcribe(WAV)
        with pytest.raises(LLMCapabilityError, match="reads nothing aloud"):
            client.speak("Hello", voice="alloy")


def test_the_client_raises_what_the_provider_refuses(kept):
    kept.says[HEAR] = Says(b'{"error": {"message": "Slow down."}}', status=429)
    with (
        client_of(kept, endpoint=EndpointSettings(retry=None)) as client,
        pytest.raises(LLMRateLimitError),
    ):
        client.transcribe(WAV)


def test_the_client_has_pictures_drawn(kept):
    picture = base64.b64encode(b"png").decode()
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    body = {"created": 1, "data": [{"b64_json": picture}, {"url": "https://a/b"}], "usage": usage}
    kept.says["/v1/images/generations"] = Says(json.dumps(body).encode())
    records = []
    with client_of(kept, sinks=[records.append]) as client:
        made = client.draw("A cat", n=2, size="1024x1024", provider_options={"style": "vivid"})
    assert [(each.data, each.url) for each in made.images] == [
        (b"png", None),
        (None, "https://a/b"),
    ]
    assert made.usage.total_tokens == 12
    assert kept.last.json == {
        "model": "m",
        "prompt": "A cat",
        "n": 2,
        "size": "1024x1024",
        "style": "vivid",
    }
    assert records[0].operation == "image"
    assert records[0].usage.prompt_tokens == 5


def test_the_client_has_texts_judged(kept):
    one = {"flagged": True, "categories": {"hate": True}, "category_scores": {"hate": 0.9}}
    mistrals = {"categories": {"hate": False}, "category_scores": {"hate": 0.1}}
    body = {"id": "modr-1", "model": "omni", "results": [one, mistrals]}
    kept.says["/v1/moderations"] = Says(json.dumps(body).encode())
    with client_of(kept) as client:
        found = client.moderate(["a", "b"])
        assert [each.flagged for each in found.judgements] == [True, False]
        assert found.judgements[0].scores == {"hate": 0.9}
        assert kept.last.json == {"model": "m", "input": ["a", "b"]}
        client.moderate([TextPart(text="a"), ImagePart(url="https://a/b.png")])
        assert [each["type"] for each in kept.last.json["input"]] == ["text", "image_url"]
        with pytest.raises(LLMInvalidRequestError, match="Either texts"):
            client.moderate(["a", TextPart(text="b")])


@pytest.mark.parametrize("body", [b"{}", b'{"data": []}', b'{"data": [{}]}', b"[]", b"oops"])
def test_an_answer_without_pictures_is_an_error(kept, body):
    kept.says["/v1/images/generations"] = Says(body)
    with client_of(kept) as client, pytest.raises(LLMBadResponseError):
        client.draw("A cat")


def test_tokens_of_pictures_are_not_priced_as_text(kept):
    usage = {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000}
    body = {"created": 1, "data": [{"url": "https://a/b"}], "usage": usage}
    kept.says["/v1/images/generations"] = Says(json.dumps(body).encode())
    records = []
    settings = {"provider": "openai", "base_url": f"{kept.url}/v1", "api_key": "k"}
    with Client("gpt-image-1", sinks=[records.append], **settings) as client:
        client.draw("A cat")
    assert records[0].usage.total_tokens == 2000
    assert records[0].price_usd is None
