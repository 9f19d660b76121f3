"""What the configuration says of the speech model in the box."""

from __future__ import annotations

from attrs import field, frozen

from headrace.gateway.fields import at_least


@frozen(kw_only=True)
class AudioConfig:
    """The model that turns recordings into text, where the extra `audio` is installed.

    It is started by the first request that asks for it.
    """

    enabled: bool = field(default=True, metadata={"help": "false: no speech model of our own"})
    model: str = field(
        default="whisper-tiny.en",
        metadata={
            "help": "the one that comes with the extra, or a folder with a Whisper model in "
            "CTranslate2's format"
        },
    )
    name: str | None = field(
        default=None, metadata={"help": "the name it answers to; its own, if left out"}
    )
    aliases: tuple[str, ...] = field(
        default=(), metadata={"help": "further names, * and ? as wildcards, that reach this model"}
    )
    threads: int = field(
        default=0, validator=at_least(0), metadata={"help": "CPU threads; 0: as the engine likes"}
    )
    max_seconds: float = field(
        default=1800.0, validator=at_least(1), metadata={"help": "longest recording; 400 above it"}
    )
    max_waiting: int = field(
        default=32,
        validator=at_least(0),
        metadata={"help": "recordings that may wait for the one that is heard; 429 for the next"},
    )
    stuck_after_ms: int = field(
        default=120_000,
        validator=at_least(1000),
        metadata={"help": "an engine of which so long nothing is heard is started again"},
    )
