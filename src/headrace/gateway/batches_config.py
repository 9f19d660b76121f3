"""What the gateway keeps of batches and files, and how much of them it takes."""

from __future__ import annotations

from attrs import field, frozen

from headrace.gateway.fields import at_least, between

_DAY_MS = 24 * 3600 * 1000


@frozen(kw_only=True)
class BatchesConfig:
    """Batches of requests, answered where nobody else asks: /v1/batches, /v1/messages/batches,
    /v1/batch/jobs and /v1/files.

    They lie in a folder that one gateway has at a time, and go on after a restart.
    """

    enabled: bool = field(default=True, metadata={"help": "false: no batches and no files"})
    folder: str | None = field(
        default=None,
        metadata={
            "help": "where they lie; ~ is your home; left out: `batches` in headrace's state folder"
        },
    )
    max_running: int = field(
        default=8,
        validator=at_least(1),
        metadata={"help": "requests of all batches that are asked or wait at once"},
    )
    max_open: int = field(
        default=100,
        validator=at_least(0),
        metadata={"help": "batches of one caller that have not ended; 429 for the next"},
    )
    max_requests: int = field(
        default=100_000,
        validator=at_least(1),
        metadata={"help": "requests in one batch; one with more fails"},
    )
    max_file_bytes: int = field(
        default=200 << 20,
        validator=at_least(1024),
        metadata={"help": "largest file or batch that may be brought; 413 above it"},
    )
    max_stored_bytes: int = field(
        default=10 << 30,
        validator=at_least(0),
        metadata={"help": "bytes of all files together; 413 for the next"},
    )
    max_tries: int = field(
        default=8,
        validator=between(1, 1000),
        metadata={"help": "times that a request is asked whose backend is busy or gone"},
    )
    keep_ms: int = field(
        default=30 * _DAY_MS,
        validator=at_least(1),
        metadata={"help": "how long files, and batches that have ended, are kept"},
    )
