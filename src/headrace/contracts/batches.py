"""Batches of requests: what is asked, how it stands and what came, in no vendor's words."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.responses import Usage

BatchPhase: TypeAlias = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
    "completed",
    "failed",
    "expired",
    "cancelled",
]
"""The last four are ends; a vendor that has fewer words says one for several of them."""

ItemFate: TypeAlias = Literal["succeeded", "errored", "cancelled", "expired"]
"""What became of one request; ``cancelled`` and ``expired`` were not asked, or not to the end."""

ENDED: frozenset[BatchPhase] = frozenset({"completed", "failed", "expired", "cancelled"})


@frozen(kw_only=True)
class BatchItem:
    """One request of a batch; ``body`` is the JSON object that would be sent for it alone."""

    custom_id: str | None
    body: bytes = field(repr=False)


@frozen(kw_only=True)
class BatchAsked:
    """A batch to be made of the requests in ``input_files``, or of ``items`` that came along.

    ``window_s`` is how long it may take; ``model`` is for requests that name none.
    ``outputs_kept_s`` is how long its output files are kept, where the caller says so.
    """

    endpoint: str
    input_files: tuple[str, ...] = ()
    items: tuple[BatchItem, ...] = ()
    model: str | None = None
    metadata: dict[str, str] | None = None
    window_s: int = 24 * 3600
    outputs_kept_s: int | None = None


@frozen(kw_only=True)
class BatchCounts:
    """How many requests there are, and what became of those that have come to their end."""

    total: int = 0
    succeeded: int = 0
    errored: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def open(self) -> int:
        """Those that have not come to their end."""
        return self.total - self.succeeded - self.errored - self.cancelled - self.expired


@frozen(kw_only=True)
class BatchProblem:
    """Why a batch could not be begun; ``line`` counts from 1, in the input file."""

    message: str
    code: str | None = None
    param: str | None = None
    line: int | None = None


@frozen(kw_only=True)
class Batch:
    """How a batch stands; every instant is in Unix seconds.

    ``results_url`` is where its results are read, where a vendor says that instead of naming files.
    """

    batch_id: str
    phase: BatchPhase
    created: float
    endpoint: str = ""
    model: str | None = None
    counts: BatchCounts = field(factory=BatchCounts)
    input_files: tuple[str, ...] = ()
    output_file: str | None = None
    error_file: str | None = None
    results_url: str | None = None
    problems: tuple[BatchProblem, ...] = ()
    metadata: dict[str, str] | None = None
    usage: Usage | None = None
    window_s: int = 24 * 3600
    expires: float | None = None
    began: float | None = None
    finalizing: float | None = None
    cancelling: float | None = None
    ended: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.phase in ENDED


@frozen(kw_only=True)
class BatchResult:
    """What became of one request.

    ``body`` is the JSON of the answer, or of the error where it is ``errored``; ``status`` is the
    HTTP status that it would have had alone, where the vendor tells it. What has no body has a
    ``code`` and a ``message`` that say why.
    """

    custom_id: str | None
    fate: ItemFate
    result_id: str = ""
    status: int | None = None
    body: bytes | None = field(default=None, repr=False)
    request_id: str | None = None
    code: str | None = None
    message: str | None = None


@frozen(kw_only=True)
class KeptFile:
    """A file that a server keeps for its callers; ``lines`` are its requests or results."""

    file_id: str
    name: str
    purpose: str
    size: int
    created: int
    expires: int | None = None
    lines: int | None = None
    is_ours: bool = False
    """Made by the server, not brought to it."""
