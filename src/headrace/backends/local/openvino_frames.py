"""What we and the OpenVINO child say to each other; the frames themselves are ``net.frames``."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Add(Struct, array_like=True, frozen=True, tag="add"):
    """Answer the prompt ``token_ids``; ``settings`` are GenerationConfig's own."""

    answer_id: int
    token_ids: list[int]
    settings: dict[str, float | int | bool]


class Cancel(Struct, array_like=True, frozen=True, tag="cancel"):
    """Nobody wants that answer any more; what of it is under way may still come."""

    answer_id: int


class Hello(Struct, array_like=True, frozen=True, tag="hello"):
    """The first message of a connection: the model's vocabulary, and how it was loaded.

    ``pieces`` are the bytes of each token, empty for those that are no text; ``fingerprint`` names
    the engine's build.
    """

    pieces: list[bytes]
    context_tokens: int
    cache_tokens: int
    fingerprint: str


class Step(Struct, array_like=True, frozen=True, tag="step"):
    """What one step brought: for each answer its id, tokens, their log probabilities (empty where
    not asked for) and, with its last tokens, why it ended. A step that only read prompts brings
    none."""

    outputs: list[tuple[int, list[int], list[float], str | None]]


class Refused(Struct, array_like=True, frozen=True, tag="refused"):
    """The engine did not take that request."""

    answer_id: int
    message: str


class Broken(Struct, array_like=True, frozen=True, tag="broken"):
    """A step failed, which the engine does not survive: the child ends after this."""

    message: str


ToChild: TypeAlias = Add | Cancel
FromChild: TypeAlias = Hello | Step | Refused | Broken
