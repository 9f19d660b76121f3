"""Where the extra `audio` is not installed: nothing is missing but the model, and it says so."""

from __future__ import annotations

import asyncio
import json
from importlib.util import find_spec

import pytest

from gateway.far import NO_MODEL
from gateway.served import run_headrace
from headrace.backends.local.whisper import Whisper, WhisperSettings, find_model
from headrace.contracts.audio import TranscriptionRequest
from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError
from headrace.contracts.record import Marks
from headrace.net.clock import World
from headrace.net.scripted import ScriptedTransport

without = pytest.mark.skipif(
    find_spec("faster_whisper") is not None, reason="the extra 'audio' is installed"
)


@without
def test_a_model_that_was_configured_says_what_to_install(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps({**NO_MODEL, "audio": {"threads": 1}}))
    said = run_headrace("serve", str(path), "--port", "0")
    assert said.returncode != 0
    assert "pip install 'headrace[audio]'" in said.stderr + said.stdout


@without
def test_the_model_of_the_extra_is_not_looked_for_elsewhere():
    with pytest.raises(LLMInvalidRequestError, match="pip install"):
        find_model("whisper-tiny.en")


def test_another_model_is_a_folder(tmp_path):
    with pytest.raises(LLMInvalidRequestError, match=r"model\.bin"):
        find_model(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"")
    assert find_model(str(tmp_path)) == tmp_path


def whisper(tmp_path) -> Whisper:
    settings = WhisperSettings(name="w.en", path=tmp_path, max_bytes=10)
    return Whisper(settings, World(transport=ScriptedTransport([])))


async def heard(backend: Whisper, request: TranscriptionRequest) -> None:
    async for _ in backend.transcribe(request, Marks(), stream=False):
        pass


@pytest.mark.parametrize(
    ("request_", "param", "status"),
    [
        (TranscriptionRequest(audio=b"a" * 11), "file", 413),
        (TranscriptionRequest(audio=b"a", prompt="a" * 70_000), "prompt", 400),
        (TranscriptionRequest(audio=b"a", provider_options={"include": ["x"]}), "include", 400),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_starts(tmp_path, request_, param, status):
    backend = whisper(tmp_path)
    with pytest.raises(LLMInvalidRequestError) as caught:
        asyncio.run(heard(backend, request_))
    assert (caught.value.param, caught.value.status) == (param, status)
    assert backend.snapshot() == {}


def test_it_makes_no_text_of_its_own(tmp_path):
    backend = whisper(tmp_path)
    assert not backend.transcribes(translate=True)
    assert backend.transcribes(translate=False)
    with pytest.raises(LLMCapabilityError, match="turns recordings into text"):
        backend.stream(None, Marks())
    asyncio.run(backend.aclose())


def test_a_folder_that_is_no_model_is_told_of_and_tried_again_later(tmp_path):
    async def twice() -> list[LLMError]:
        backend, errors = whisper(tmp_path), []
        for _ in range(2):
            with pytest.raises(LLMError) as caught:
                await heard(backend, TranscriptionRequest(audio=b"a"))
            errors.append(caught.value)
        status = await backend.status()
        assert "the last start failed" in status.message
        await backend.aclose()
        return errors

    first, second = asyncio.run(twice())
    assert str(first) == str(second)
    assert second.retry_after_s == pytest.approx(30, abs=20)
