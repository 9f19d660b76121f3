"""What a supervisor and its workers say to each other; the frames themselves are ``net.frames``."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from headrace.contracts.snapshot import CircuitState
from headrace.gateway.overlay import PlainOverlay
from headrace.numbers.parts import CallsPart, HistoryPart
from headrace.traffic.counts_parts import EndpointPart


class Model(Struct, array_like=True, frozen=True):
    """A model in the box: its names are known to the workers, who hand on what asks for it."""

    name: str
    patterns: tuple[str, ...]
    created: int


class Begin(Struct, array_like=True, frozen=True, tag="begin"):
    """The first message to a worker: what it stands on, and where it listens.

    ``text`` stands in the file at ``path``; ``overrides`` are section, field and value. ``place``
    is its share's. It reaches the supervisor by ``socket_path``, and its callers by ``listener``,
    an inherited file descriptor, or by a socket of its own on ``host`` and ``port``. ``endpoints``
    is what was said of them at run time.
    """

    path: str | None
    text: str | None
    overrides: list[tuple[str, str, Any]]
    place: int
    processes: int
    chat: Model | None
    embeddings: Model | None
    audio: Model | None
    socket_path: str
    host: str
    port: int
    listener: int | None
    endpoints: PlainOverlay = []


class Lay(Struct, array_like=True, frozen=True, tag="lay"):
    """Have ``endpoints`` lie over the configuration from now on; answered as Reread."""

    number: int
    endpoints: PlainOverlay


class Reread(Struct, array_like=True, frozen=True, tag="reread"):
    """Stand on ``text`` from now on; Reread is answered with Stands of that number."""

    number: int
    text: str


class Tell(Struct, array_like=True, frozen=True, tag="tell"):
    """Send a Report of that number now."""

    number: int


class Drain(Struct, array_like=True, frozen=True, tag="drain"):
    """Finish what is in flight, and end."""


class Ready(Struct, array_like=True, frozen=True, tag="ready"):
    """It listens."""


class Failed(Struct, array_like=True, frozen=True, tag="failed"):
    """It cannot begin, and ends."""

    why: str


class Stands(Struct, array_like=True, frozen=True, tag="stands"):
    """It stands on what Reread said, or on what it stood on before: then ``error`` says why."""

    number: int
    error: str | None = None


class LaneState(Struct, array_like=True, frozen=True):
    """How one lane stands, by its backend's name."""

    name: str
    running: int
    places: int
    waiting: int
    max_waiting: int
    circuit: CircuitState | None


class Report(Struct, array_like=True, frozen=True, tag="report"):
    """What was counted since the last report, and how the worker stands.

    ``number`` is that of the Tell that it answers. ``requests`` is how many it has answered in all,
    those that it handed on among them. ``endpoints`` is what each has done since.
    """

    number: int | None
    calls: CallsPart
    history: HistoryPart
    waiting: dict[str, int]
    running: dict[str, int]
    running_at: dict[str, int]
    lanes: list[LaneState]
    requests: int
    rss_bytes: int | None
    endpoints: list[EndpointPart] = []


ToWorker: TypeAlias = Begin | Reread | Lay | Tell | Drain
FromWorker: TypeAlias = Ready | Failed | Stands | Report
