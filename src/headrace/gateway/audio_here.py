"""The speech model in the box as the gateway has it: the engine, and the route that leads there."""

from __future__ import annotations

from pathlib import Path

from headrace.backends.local.whisper import (
    INSTALL,
    Whisper,
    WhisperSettings,
    find_model,
    is_installed,
)
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.audio_config import AudioConfig
from headrace.gateway.config import Config
from headrace.gateway.routes import Route
from headrace.net.clock import World
from headrace.traffic.admission import Admission
from headrace.traffic.lane import Lane


def open_audio(config: Config, world: World) -> tuple[Whisper, Route] | None:
    """The engine and its route; ``None`` where it is switched off, or is not installed.

    Raises LLMInvalidRequestError where it was configured and cannot be had.
    """
    wanted = config.audio
    if not wanted.enabled:
        return None
    if not is_installed():
        if wanted != AudioConfig():
            raise LLMInvalidRequestError(
                f"audio needs faster-whisper, which is not installed: {INSTALL}", param="audio"
            )
        return None
    path = find_model(wanted.model)
    name = wanted.name or _name_of(wanted.model)
    engine = Whisper(
        WhisperSettings(
            name=name,
            path=path,
            threads=wanted.threads,
            max_seconds=wanted.max_seconds,
            max_bytes=config.server.max_body_bytes,
            stuck_after_s=wanted.stuck_after_ms / 1000,
        ),
        world,
    )
    lane = Lane(
        backend=engine,
        # It hears one recording at a time; whoever waits for minutes waits here.
        admission=Admission(
            max_running=1, max_waiting=wanted.max_waiting, timeout_s=wanted.max_seconds
        ),
    )
    route = Route(
        model=name,
        lane=lane,
        patterns=wanted.aliases,
        created=int(world.clock.wall()),
        serves="transcription",
    )
    return engine, route


def _name_of(model: str) -> str:
    return Path(model).name
