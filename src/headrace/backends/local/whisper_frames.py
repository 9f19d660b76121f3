"""What we and the Whisper child say to each other; the frames themselves are ``net.frames``."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

SOUND_BYTES = 4 << 20
"""How much of a recording goes into one frame."""


class Sound(Struct, array_like=True, frozen=True, tag="sound"):
    """The next piece of the recording."""

    data: bytes


class Hear(Struct, array_like=True, frozen=True, tag="hear"):
    """That was all of the recording; say what is heard in it."""

    language: str | None
    prompt: str | None
    temperature: float | None
    translate: bool
    words: bool


class Segment(Struct, array_like=True, frozen=True, tag="segment"):
    """A stretch of it; ``words`` are each a text, a begin and an end in seconds."""

    start_s: float
    end_s: float
    text: str
    seek: int
    token_ids: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: list[tuple[str, float, float]]


class End(Struct, array_like=True, frozen=True, tag="end"):
    """That was all that is heard."""

    language: str
    duration_s: float


class Refused(Struct, array_like=True, frozen=True, tag="refused"):
    """It cannot be heard; ``param`` is the field that is wrong."""

    message: str
    param: str | None


class Failed(Struct, array_like=True, frozen=True, tag="failed"):
    """The engine failed at it, and is ready for the next."""

    message: str


ToChild: TypeAlias = Sound | Hear
FromChild: TypeAlias = Segment | End | Refused | Failed
