"""Speech in OpenAI's format, both ways: forms, five kinds of answers, events; judged by its SDK's types."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

from headrace.contracts.audio import (
    SpeechRequest,
    TranscribedSegment,
    TranscribedWord,
    TranscriptionDelta,
    TranscriptionRequest,
    TranscriptionResult,
)
from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMInvalidRequestError
from headrace.contracts.responses import Usage
from headrace.wire.multipart import Part, read_parts, write_parts
from headrace.wire.openai_audio import (
    read_request,
    read_speech_request,
    write_request,
    write_speech_request,
)
from headrace.wire.openai_services import SERVICES
from headrace.wire.openai_transcripts import (
    StreamReader,
    StreamWriter,
    read_response,
    write_response,
)

from .strategies import counts, full_texts, maybe, words

names = st.text(
    st.characters(codec="ascii", exclude_characters='\r\n"\0\\'), min_size=1, max_size=20
)
seconds = st.integers(0, 10_000_000).map(lambda ms: ms / 1000)
requests = st.builds(
    TranscriptionRequest,
    audio=st.binary(min_size=1, max_size=60),
    file_name=st.just("talk.mp3"),
    translate=st.booleans(),
    model=maybe(words),
    language=maybe(st.sampled_from(["en", "de"])),
    prompt=maybe(full_texts),
    temperature=maybe(st.sampled_from([0.0, 0.25, 1.0])),
    granularities=st.sampled_from([(), ("segment",), ("word",), ("word", "segment")]),
    provider_options=st.dictionaries(words.map("x_{}".format), words, max_size=2),
)
segments = st.builds(
    TranscribedSegment,
    start_s=seconds,
    end_s=seconds,
    text=full_texts,
    seek=counts,
    token_ids=st.lists(counts, max_size=4).map(tuple),
    temperature=seconds,
    avg_logprob=seconds.map(lambda x: -x),
    compression_ratio=seconds,
    no_speech_prob=seconds,
)
heard_words = st.builds(TranscribedWord, word=words, start_s=seconds, end_s=seconds)
results = st.builds(
    TranscriptionResult,
    text=full_texts,
    language=st.sampled_from(["en", "english"]),
    duration_s=seconds,
    segments=maybe(st.lists(segments, max_size=4).map(tuple)),
    words=maybe(st.lists(heard_words, max_size=4).map(tuple)),
)


def form(*parts: tuple[str, str], file: bytes | None = b"RIFF", name: str = "a.wav"):
    made = [Part(field, value.encode()) for field, value in parts]
    if file is not None:
        made.append(Part("file", file, name))
    return write_parts(made)


@given(
    parts=st.lists(
        st.builds(Part, names, st.binary(max_size=40), maybe(names), st.just(None)), max_size=5
    )
)
def test_a_form_arrives_as_it_was_written(parts):
    content_type, body = write_parts(parts)
    assert read_parts(content_type, body) == tuple(parts)


@given(request=requests)
def test_a_request_arrives_as_it_was_sent(request):
    content_type, body = write_request(request)
    inbound = read_request(content_type, body, translate=request.translate)
    assert inbound.request == request
    assert inbound.response_format == ("verbose_json" if request.granularities else "json")
    assert not inbound.stream


def test_a_form_of_the_sdks_is_read():
    content_type, body = form(
        ("model", "whisper-1"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("temperature", "0.2"),
        ("stream", "false"),
        ("include[]", "logprobs"),
    )
    inbound = read_request(content_type, body)
    assert inbound.request.granularities == ("word", "segment")
    assert inbound.request.temperature == 0.2
    assert inbound.request.provider_options == {"include": ["logprobs"]}
    assert inbound.request.file_name == "a.wav"


@pytest.mark.parametrize(
    ("parts", "file", "param"),
    [
        ([], None, "file"),
        ([], b"", "file"),
        ([("response_format", "xml")], b"a", "response_format"),
        ([("temperature", "hot")], b"a", "temperature"),
        ([("temperature", "3")], b"a", "temperature"),
        ([("timestamp_granularities[]", "word")], b"a", "timestamp_granularities"),
        ([("timestamp_granularities[]", "letter")], b"a", "timestamp_granularities"),
        ([("stream", "maybe")], b"a", "stream"),
        ([("stream", "true"), ("response_format", "srt")], b"a", "stream"),
        ([("model", "")], b"a", "model"),
        ([("model", "a"), ("model", "b")], b"a", "model"),
        ([("file", "words")], None, "file"),
    ],
)
def test_what_is_wrong_is_named(parts, file, param):
    content_type, body = form(*parts, file=file)
    with pytest.raises(LLMInvalidRequestError) as caught:
        read_request(content_type, body)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_what_is_no_form_is_refused():
    with pytest.raises(LLMInvalidRequestError) as caught:
        read_request("application/json", b"{}")
    assert caught.value.status == 415
    content_type, body = form()
    with pytest.raises(LLMInvalidRequestError, match="breaks off"):
        read_request(content_type, body[:-8])


@given(result=results)
def test_a_result_arrives_whole(result):
    content_type, body = write_response(result, "verbose_json")
    assert read_response(body, content_type) == result


@given(result=results)
def test_the_sdk_reads_what_is_written(result):
    plain = json.loads(write_response(result, "json")[1])
    assert Transcription.model_validate(plain, strict=True).text == result.text
    verbose = TranscriptionVerbose.model_validate(
        json.loads(write_response(result, "verbose_json")[1])
    )
    assert verbose.duration == result.duration_s
    assert len(verbose.segments or ()) == len(result.segments or ())
    assert [each.word for each in verbose.words or ()] == [w.word for w in result.words or ()]


def test_tokens_and_seconds_are_told_as_usage():
    counted = TranscriptionResult(text="a", usage=Usage(prompt_tokens=3, completion_tokens=2))
    wire = json.loads(write_response(counted)[1])
    assert wire["usage"] == {
        "type": "tokens",
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
    }
    timed = TranscriptionResult(text="a", duration_s=2.5)
    assert json.loads(write_response(timed)[1])["usage"] == {"type": "duration", "seconds": 2.5}
    assert json.loads(write_response(timed, translate=True)[1]) == {"text": "a"}


TWO = TranscriptionResult(
    text="Hello there. Go --> on.",
    duration_s=4000.0,
    segments=(
        TranscribedSegment(start_s=0.0, end_s=1.5, text=" Hello\n\nthere."),
        TranscribedSegment(start_s=3661.0015, end_s=3662.9996, text=" Go --> on."),
    ),
)


def test_subtitles_are_subrips():
    content_type, body = write_response(TWO, "srt")
    assert content_type.startswith("application/x-subrip")
    assert body.decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n"
        "2\n01:01:01,002 --> 01:01:03,000\nGo -> on.\n"
    )


def test_subtitles_are_webvtts():
    content_type, body = write_response(TWO, "vtt")
    assert content_type.startswith("text/vtt")
    assert body.decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n"
        "01:01:01.002 --> 01:01:03.000\nGo -> on.\n"
    )


@given(result=results, response_format=st.sampled_from(["srt", "vtt"]))
def test_subtitles_have_one_block_a_segment(result, response_format):
    said = [each for each in result.segments or () if each.text.split()]
    body = write_response(result, response_format)[1].decode()
    arrows = re.findall(r"^[0-9:,.]+ --> [0-9:,.]+$", body, re.MULTILINE)
    assert len(arrows) >= len(said)
    assert body.count("-->") == len(arrows)


def test_text_is_text():
    assert write_response(TWO, "text") == (
        "text/plain; charset=utf-8",
        b"Hello there. Go --> on.\n",
    )
    assert read_response(b" Hello. \n", "text/plain").text == "Hello."


@given(texts=st.lists(full_texts, max_size=5), cuts=st.lists(st.integers(1, 40), max_size=30))
def test_a_stream_survives_any_chopping(texts, cuts):
    result = TranscriptionResult(
        text="".join(texts), usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    )
    writer = StreamWriter()
    deltas = [TranscriptionDelta(text=text) for text in texts]
    deltas.append(TranscriptionDelta(result=result))
    sent = b"".join(map(writer.write, deltas))
    reader, got = StreamReader(), []
    for cut in [*cuts, len(sent)]:
        got += reader.feed(sent[:cut])
        sent = sent[cut:]
    assert [*got, *reader.close()] == deltas


def test_the_sdk_knows_the_events():
    writer = StreamWriter()
    delta = json.loads(writer.write(TranscriptionDelta(text="Hel"))[6:])
    assert TranscriptionTextDeltaEvent.model_validate(delta, strict=True).delta == "Hel"
    result = TranscriptionResult(text="Hello", usage=Usage(prompt_tokens=1, completion_tokens=2))
    done = json.loads(writer.write(TranscriptionDelta(result=result))[6:])
    assert TranscriptionTextDoneEvent.model_validate(done, strict=True).usage.total_tokens == 3


def test_a_stream_that_breaks_off_is_no_result():
    reader = StreamReader()
    reader.feed(StreamWriter().write(TranscriptionDelta(text="Hel")))
    with pytest.raises(LLMBadResponseError, match="ended without"):
        reader.close()
    with pytest.raises(LLMError, match="Busy"):
        reader.feed(b'data: {"error": {"message": "Busy."}}\n\n')


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"text": 1}', b'{"text":"a","words":[1]}'])
def test_an_answer_that_says_nothing_is_refused(body):
    with pytest.raises(LLMBadResponseError):
        read_response(body)


# Sound


@given(
    text=full_texts,
    voice=words,
    speed=maybe(st.sampled_from([0.25, 1.0, 4.0])),
    response_format=maybe(st.sampled_from(["mp3", "wav"])),
    options=st.dictionaries(words.map("x_{}".format), words, max_size=2),
)
def test_a_text_to_be_read_aloud_arrives(text, voice, speed, response_format, options):
    request = SpeechRequest(
        text=text,
        voice=voice,
        speed=speed,
        response_format=response_format,
        provider_options=options,
        model="tts-1",
    )
    inbound = read_speech_request(write_speech_request(request))
    assert inbound.request == request
    assert not inbound.events


def test_a_voice_of_ones_own_is_named_by_its_id():
    body = {"input": "a", "voice": {"id": "voice_1"}, "stream_format": "sse"}
    inbound = read_speech_request(json.dumps(body).encode())
    assert inbound.request.voice == "voice_1"
    assert inbound.events
    assert json.loads(write_speech_request(inbound.request, events=True)) == body


# Every service's body is checked by name

PICTURE = ("a.png", b"\x89PNG")


def picture_form(*parts: tuple[str, str], image: bytes | None = PICTURE[1]):
    made = [Part(field, value.encode()) for field, value in parts]
    if image is not None:
        made.append(Part("image", image, "a.png", "image/png"))
    return write_parts(made)


@pytest.mark.parametrize(
    ("service", "body", "param"),
    [
        ("audio/speech", {"voice": "a"}, "input"),
        ("audio/speech", {"input": "a"}, "voice"),
        ("audio/speech", {"input": "a" * 4097, "voice": "a"}, "input"),
        ("audio/speech", {"input": "a", "voice": "a", "speed": 9}, "speed"),
        ("audio/speech", {"input": "a", "voice": "a", "response_format": "mid"}, "response_format"),
        ("audio/speech", {"input": "a", "voice": {}}, "voice.id"),
        ("images/generations", {}, "prompt"),
        ("images/generations", {"prompt": 1}, "prompt"),
        ("images/generations", {"prompt": "a", "n": 11}, "n"),
        ("images/generations", {"prompt": "a", "size": "big"}, "size"),
        ("images/generations", {"prompt": "a", "partial_images": 4}, "partial_images"),
        ("images/generations", {"prompt": "a", "response_format": "png"}, "response_format"),
        ("images/edits", {"prompt": "a"}, "images"),
        ("images/edits", {"prompt": "a", "images": []}, "images"),
        ("images/edits", {"prompt": "a", "images": [{}]}, "images[0]"),
        ("moderations", {}, "input"),
        ("moderations", {"input": []}, "input"),
        ("moderations", {"input": 1}, "input"),
        ("moderations", {"input": [{"type": "sound"}]}, "input[0].type"),
        ("moderations", {"input": [{"type": "text"}]}, "input[0].text"),
        ("moderations", {"input": "a", "model": ""}, "model"),
    ],
)
def test_a_field_that_is_wrong_is_named(service, body, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        SERVICES[service]("application/json", json.dumps(body).encode())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("service", "parts", "image", "param"),
    [
        ("images/edits", [("prompt", "a")], None, "image"),
        ("images/edits", [], b"a", "prompt"),
        ("images/edits", [("prompt", "a"), ("n", "many")], b"a", "n"),
        ("images/edits", [("prompt", "a"), ("n", "--5")], b"a", "n"),
        ("images/edits", [("prompt", "a"), ("n", "9" * 5000)], b"a", "n"),
        ("images/edits", [("prompt", "a"), ("mask", "a")], b"a", "mask"),
        ("images/edits", [("prompt", "a"), ("prompt", "b")], b"a", "prompt"),
        ("images/variations", [("n", "0")], b"a", "n"),
        ("images/variations", [], b"", "image"),
    ],
)
def test_a_field_of_a_form_that_is_wrong_is_named(service, parts, image, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        SERVICES[service](*picture_form(*parts, image=image))
    assert caught.value.param == param


def test_a_form_goes_on_under_the_models_other_name():
    asked = SERVICES["images/edits"](*picture_form(("model", "mine"), ("prompt", "A cat")))
    assert asked.model == "mine"
    parts = read_parts(*asked.write("theirs"))
    assert {part.name: part.data for part in parts} == {
        "model": b"theirs",
        "prompt": b"A cat",
        "image": PICTURE[1],
    }
    assert [p.content_type for p in parts if p.name == "image"] == ["image/png"]


@pytest.mark.parametrize("end", ["\n", "\r", "\0"])
def test_no_type_of_a_part_brings_a_header_along(end):
    content_type, body = write_parts([Part("image", b"a", "a.png", f"image/png{end}X: 1")])
    with pytest.raises(LLMInvalidRequestError, match="content type"):
        read_parts(content_type, body)


def test_json_goes_on_as_it_came_or_under_the_other_name():
    body = b'{"prompt": "A cat", "model": "mine", "own": [1]}'
    asked = SERVICES["images/generations"]("application/json", body)
    assert asked.write("mine") == ("application/json", body)
    assert json.loads(asked.write("theirs")[1]) == {
        "prompt": "A cat",
        "model": "theirs",
        "own": [1],
    }
