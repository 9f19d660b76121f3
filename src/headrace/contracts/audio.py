"""Speech: recordings that become text, and text that is read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.responses import Usage

Granularity: TypeAlias = Literal["word", "segment"]
SpeechFormat: TypeAlias = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


@frozen(kw_only=True)
class TranscriptionRequest:
    """A recording that is to become text, in its own language or, with ``translate``, in English.

    ``audio`` is a whole file of a usual kind (WAV, MP3, FLAC, Ogg, WebM, MP4) and ``file_name`` tells
    which. ``language`` is what is spoken, as in ``en``; ``prompt`` are words that may come before it.
    ``granularities`` ask for the times of words or of segments. ``provider_options`` are further
    fields of the provider's form, each a text or several. The other fields mean what they mean in
    LLMRequest.
    """

    audio: bytes = field(repr=False)
    file_name: str = "audio.wav"
    model: str | None = None
    translate: bool = False
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    granularities: tuple[Granularity, ...] = ()
    provider_options: dict[str, str | Sequence[str]] = field(factory=dict)
    metadata: dict[str, object] = field(factory=dict, repr=False)
    request_id: str | None = None


@frozen(kw_only=True)
class TranscribedWord:
    """A word, and when it is heard, in seconds from the recording's beginning."""

    word: str
    start_s: float
    end_s: float


@frozen(kw_only=True)
class TranscribedSegment:
    """A stretch of the recording; what Whisper says of how sure it is has Whisper's own names.

    ``seek`` is where it was looked for, in hundredths of a second; ``speaker`` who is heard, where
    voices are told apart.
    """

    start_s: float
    end_s: float
    text: str
    seek: int = 0
    token_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    speaker: str | None = None


@frozen(kw_only=True)
class TranscriptionResult:
    """What is heard in a recording of ``duration_s`` seconds.

    ``segments`` and ``words`` are ``None`` where nobody asked for them or the model has none.
    ``usage`` are tokens, where it is counted in these; ``provider_fields`` what else was told.
    """

    text: str
    model_id: str | None = None
    language: str | None = None
    duration_s: float | None = None
    segments: tuple[TranscribedSegment, ...] | None = None
    words: tuple[TranscribedWord, ...] | None = None
    usage: Usage | None = None
    provider_fields: dict[str, object] = field(factory=dict)


@frozen(kw_only=True)
class TranscriptionDelta:
    """A piece of the text while it is heard; the last one has the ``result`` and no text."""

    text: str = ""
    result: TranscriptionResult | None = None


@frozen(kw_only=True)
class SpeechRequest:
    """Text to be read aloud by ``voice``; ``instructions`` say how.

    ``speed`` is 1.0 for the voice's own. ``provider_options`` go into the provider's body as they
    are. The other fields mean what they mean in LLMRequest.
    """

    text: str
    voice: str
    model: str | None = None
    response_format: SpeechFormat | None = None
    speed: float | None = None
    instructions: str | None = None
    provider_options: dict[str, object] = field(factory=dict)
    metadata: dict[str, object] = field(factory=dict, repr=False)
    request_id: str | None = None


@frozen(kw_only=True)
class SpeechResult:
    """Sound, as a file of that type."""

    audio: bytes = field(repr=False)
    content_type: str
    usage: Usage | None = None
