"""Mistral's batch jobs, both ways: https://docs.mistral.ai/api/endpoint/batch.

Its results are lines of OpenAI's form; its requests have a body and, where they like, an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.contracts.batches import (
    Batch,
    BatchAsked,
    BatchCounts,
    BatchItem,
    BatchPhase,
    BatchProblem,
)
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.wire.batch_pieces import (
    custom_id,
    instant,
    known_only,
    metadata,
    object_body,
    raw,
    reply_object,
    said,
    texts,
    unix,
    whole,
)
from headrace.wire.json import decode, encode
from headrace.wire.openai_batches import error_of, read_result, usage_in, write_result
from headrace.wire.openai_fields import (
    array,
    filled_text,
    integer,
    one_of,
    refuse,
    refuse_absence,
)

__all__ = [
    "CREATE_FIELDS",
    "ENDPOINTS",
    "batch_from_wire",
    "batch_to_wire",
    "error_of",
    "read_batch",
    "read_batches",
    "read_create",
    "read_item",
    "read_result",
    "usage_in",
    "write_batch",
    "write_batches",
    "write_create",
    "write_deletion",
    "write_item",
    "write_result",
]

ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
CREATE_FIELDS = (
    "endpoint",
    "input_files",
    "requests",
    "model",
    "agent_id",
    "metadata",
    "timeout_hours",
)
MOST_INLINE = 10_000
_ITEM_FIELDS = ("custom_id", "body")
_STATUS: dict[BatchPhase, str] = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "CANCELLATION_REQUESTED",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelled": "CANCELLED",
}
STATUSES = tuple(dict.fromkeys(_STATUS.values()))
_PHASES: dict[str, BatchPhase] = {
    word: phase for phase, word in _STATUS.items() if phase != "finalizing"
}
_endpoint = one_of(*ENDPOINTS)
_hours = integer(1, 24 * 7)


_NONE = msgspec.Raw()


class _Item(msgspec.Struct):
    body: msgspec.Raw = _NONE
    custom_id: Any = None


class _Create(msgspec.Struct):
    endpoint: Any = None
    input_files: Any = None
    requests: list[_Item] | None = None
    model: Any = None
    agent_id: Any = None
    metadata: Any = None
    timeout_hours: Any = None


_items = msgspec.json.Decoder(_Item)
_names = msgspec.json.Decoder(dict[str, msgspec.Raw])
_creates = msgspec.json.Decoder(_Create)


# A line of an input file


def write_item(item: BatchItem, endpoint: str = "") -> bytes:
    """One request as a line, without its end."""
    return encode({"custom_id": item.custom_id, "body": raw(item.body)})


def read_item(line: bytes, endpoint: str = "") -> BatchItem:
    """The request in ``line``; LLMInvalidRequestError where it is none."""
    try:
        known_only(_names.decode(line), _ITEM_FIELDS)
        wire = _items.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LLMInvalidRequestError(
            f"This line is not parseable as valid JSON: {error}.", code="invalid_json_line"
        ) from error
    return _item(wire, "")


def _item(wire: _Item, path: str) -> BatchItem:
    given = wire.custom_id
    name = None if given is None else custom_id(given, f"{path}custom_id")
    return BatchItem(custom_id=name, body=object_body(wire.body, f"{path}body"))


# Asking for a job


def write_create(asked: BatchAsked) -> bytes:
    """The body of ``POST /v1/batch/jobs``."""
    wire: dict[str, Any] = {
        "endpoint": asked.endpoint,
        "model": asked.model,
        "timeout_hours": asked.window_s // 3600,
    }
    if asked.input_files:
        wire["input_files"] = list(asked.input_files)
    if asked.items:
        wire["requests"] = [
            {"custom_id": each.custom_id, "body": raw(each.body)} for each in asked.items
        ]
    if asked.metadata is not None:
        wire["metadata"] = asked.metadata
    return encode(wire)


def read_create(body: bytes) -> BatchAsked:
    """The job that ``body`` asks for; LLMInvalidRequestError, naming the field, where it does not."""
    try:
        known_only(_names.decode(body), CREATE_FIELDS)
        wire = _creates.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        decode(body)  # says better what is wrong with JSON that is none
        raise LLMInvalidRequestError(f"The request body is no batch job: {error}.") from error
    if wire.endpoint is None:
        refuse_absence("endpoint", "one of " + ", ".join(ENDPOINTS))
    if wire.agent_id is not None:
        refuse("agent_id", wire.agent_id, "none: this server has no agents; name a 'model'")
    files = () if wire.input_files is None else _files(wire.input_files)
    items = tuple(
        _item(each, f"requests.{place}.") for place, each in enumerate(wire.requests or ())
    )
    if bool(files) == bool(items):
        refuse_absence("input_files", "the ids of uploaded files, or 'requests', but not both")
    if len(items) > MOST_INLINE:
        refuse("requests", len(items), f"at most {MOST_INLINE:,} requests; upload a file for more")
    hours = 24 if wire.timeout_hours is None else _hours(wire.timeout_hours, "timeout_hours")
    return BatchAsked(
        endpoint=_endpoint(wire.endpoint, "endpoint"),
        input_files=files,
        items=items,
        model=None if wire.model is None else filled_text(wire.model, "model"),
        metadata=metadata(wire.metadata),
        window_s=hours * 3600,
    )


def _files(value: object) -> tuple[str, ...]:
    found = array(value, "input_files")
    return tuple(filled_text(each, f"input_files.{i}") for i, each in enumerate(found))


# How a job stands


def write_batch(batch: Batch, outputs: Iterable[bytes] | None = None) -> bytes:
    """``batch`` as a body; ``outputs`` are lines of results that its caller wants with it."""
    return encode(batch_to_wire(batch, outputs))


def read_batch(body: bytes) -> Batch:
    """The job in a server's answer."""
    return batch_from_wire(reply_object(body, "A batch job"))


def write_batches(batches: Sequence[Batch], *, total: int) -> bytes:
    """A page of a list."""
    data = [batch_to_wire(each) for each in batches]
    return encode({"object": "list", "data": data, "total": total})


def read_batches(body: bytes) -> tuple[tuple[Batch, ...], int]:
    """A page of a list, and how many there are in all."""
    wire = reply_object(body, "A list of batch jobs")
    data = wire.get("data")
    if not isinstance(data, list):
        raise LLMBadResponseError("A list of batch jobs has an array 'data'.")
    return tuple(batch_from_wire(each) for each in data), whole(wire.get("total"))


def batch_to_wire(batch: Batch, outputs: Iterable[bytes] | None = None) -> dict[str, Any]:
    """``batch`` in Mistral's form."""
    counts = batch.counts
    wire: dict[str, Any] = {
        "id": batch.batch_id,
        "object": "batch",
        "input_files": list(batch.input_files),
        "metadata": batch.metadata,
        "endpoint": batch.endpoint,
        "model": batch.model,
        "agent_id": None,
        "output_file": batch.output_file,
        "error_file": batch.error_file,
        "errors": [{"message": _said(each), "count": 1} for each in batch.problems],
        "status": _STATUS[batch.phase],
        "created_at": int(batch.created),
        "started_at": unix(batch.began),
        "completed_at": unix(batch.ended),
        "total_requests": counts.total,
        "completed_requests": counts.total - counts.open,
        "succeeded_requests": counts.succeeded,
        "failed_requests": counts.errored + counts.cancelled + counts.expired,
    }
    if outputs is not None:
        wire["outputs"] = [raw(line) for line in outputs]
    return wire


def batch_from_wire(wire: dict[str, Any]) -> Batch:
    """The job that a server tells of."""
    status = said(wire, "status", "A batch job")
    if status not in _PHASES:
        raise LLMBadResponseError(
            f"A batch job's status is {status!r}; known: {', '.join(_PHASES)}."
        )
    created, ended = instant(wire.get("created_at")) or 0.0, instant(wire.get("completed_at"))
    errors = wire.get("errors")
    return Batch(
        batch_id=said(wire, "id", "A batch job"),
        phase=_PHASES[status],
        endpoint=str(wire.get("endpoint") or ""),
        model=wire.get("model"),
        counts=BatchCounts(
            total=whole(wire.get("total_requests")),
            succeeded=whole(wire.get("succeeded_requests")),
            errored=whole(wire.get("failed_requests")),
        ),
        input_files=tuple(map(str, wire.get("input_files") or ())),
        output_file=wire.get("output_file"),
        error_file=wire.get("error_file"),
        problems=tuple(
            BatchProblem(
                message=str(each.get("message") or "") if isinstance(each, dict) else str(each)
            )
            for each in (errors if isinstance(errors, list) else ())
        ),
        metadata=texts(wire.get("metadata")),
        created=created,
        began=instant(wire.get("started_at")),
        ended=ended,
    )


def write_deletion(batch_id: str) -> bytes:
    """That a job is gone."""
    return encode({"id": batch_id, "object": "batch", "deleted": True})


def _said(problem: BatchProblem) -> str:
    return problem.message if problem.line is None else f"line {problem.line}: {problem.message}"
