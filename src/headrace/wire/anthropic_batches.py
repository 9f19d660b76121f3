"""Anthropic's message batches, both ways: https://platform.claude.com/docs/en/api/creating-message-batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from headrace.contracts.batches import (
    Batch,
    BatchAsked,
    BatchCounts,
    BatchItem,
    BatchPhase,
    BatchResult,
    ItemFate,
)
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCancelledError,
    LLMError,
    LLMInvalidRequestError,
    LLMTimeoutError,
)
from headrace.contracts.responses import Usage
from headrace.wire.anthropic_errors import error_from_wire
from headrace.wire.batch_pieces import known_only, object_body, raw, reply_object, said, whole
from headrace.wire.json import bad_reply, decode, decode_reply, encode
from headrace.wire.openai_fields import filled_text, refuse, refuse_absence

ENDPOINT = "/v1/messages"
MOST_ITEMS = 100_000
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ITEM_FIELDS = ("custom_id", "params")
_STATUS: dict[BatchPhase, str] = {
    "validating": "in_progress",
    "in_progress": "in_progress",
    "finalizing": "in_progress",
    "cancelling": "canceling",
}
_FATES: dict[str, ItemFate] = {
    "succeeded": "succeeded",
    "errored": "errored",
    "canceled": "cancelled",
    "expired": "expired",
}
_WORDS = {fate: word for word, fate in _FATES.items()}


_NONE = msgspec.Raw()


class _Item(msgspec.Struct):
    custom_id: Any = None
    params: msgspec.Raw = _NONE


class _Create(msgspec.Struct):
    requests: list[_Item] | None = None


class _Result(msgspec.Struct):
    type: str = ""
    message: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


class _Line(msgspec.Struct):
    result: _Result
    custom_id: str | None = None


_items = msgspec.json.Decoder(_Item)
_names = msgspec.json.Decoder(dict[str, msgspec.Raw])
_creates = msgspec.json.Decoder(_Create)
_lines = msgspec.json.Decoder(_Line)


# Asking for a batch: its requests come along


def write_create(asked: BatchAsked) -> bytes:
    """The body of ``POST /v1/messages/batches``."""
    return encode(
        {
            "requests": [
                {"custom_id": item.custom_id, "params": raw(item.body)} for item in asked.items
            ]
        }
    )


def read_create(body: bytes) -> BatchAsked:
    """The batch that ``body`` asks for; LLMInvalidRequestError, naming the field, where it does not."""
    try:
        known_only(_names.decode(body), ("requests",))
        wire = _creates.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        decode(body)  # says better what is wrong with JSON that is none
        raise LLMInvalidRequestError(f"The request body is no batch: {error}.") from error
    if wire.requests is None:
        refuse_absence("requests", "an array of requests")
    if not 0 < len(wire.requests) <= MOST_ITEMS:
        refuse("requests", len(wire.requests), f"from 1 to {MOST_ITEMS:,} requests")
    items, seen = [], set()
    for place, each in enumerate(wire.requests):
        item = _item(each, f"requests.{place}.")
        if item.custom_id in seen:
            refuse(f"requests.{place}.custom_id", item.custom_id, "an id that no other request has")
        seen.add(item.custom_id)
        items.append(item)
    return BatchAsked(endpoint=ENDPOINT, items=tuple(items))


def write_item(item: BatchItem, endpoint: str = ENDPOINT) -> bytes:
    """One of the requests, alone."""
    return encode({"custom_id": item.custom_id, "params": raw(item.body)})


def read_item(line: bytes, endpoint: str = ENDPOINT) -> BatchItem:
    """The request in ``line``; LLMInvalidRequestError where it is none."""
    try:
        known_only(_names.decode(line), _ITEM_FIELDS)
        wire = _items.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"The request is not valid JSON: {error}.") from error
    return _item(wire, "")


def _item(wire: _Item, path: str) -> BatchItem:
    if wire.custom_id is None:
        refuse_absence(f"{path}custom_id", "a string that is no other request's")
    name: str = filled_text(wire.custom_id, f"{path}custom_id")
    if not _CUSTOM_ID.fullmatch(name):
        refuse(f"{path}custom_id", name, "1 to 64 letters, digits, '_' or '-'")
    return BatchItem(custom_id=name, body=object_body(wire.params, f"{path}params"))


# How a batch stands


def write_batch(batch: Batch) -> bytes:
    """``batch`` as a body."""
    return encode(batch_to_wire(batch))


def read_batch(body: bytes) -> Batch:
    """The batch in a server's answer."""
    return batch_from_wire(reply_object(body, "A message batch"))


def write_batches(batches: Sequence[Batch], *, has_more: bool) -> bytes:
    """A page of a list."""
    return encode(
        {
            "data": [batch_to_wire(each) for each in batches],
            "has_more": has_more,
            "first_id": batches[0].batch_id if batches else None,
            "last_id": batches[-1].batch_id if batches else None,
        }
    )


def read_batches(body: bytes) -> tuple[tuple[Batch, ...], bool]:
    """A page of a list, and whether more follow."""
    wire = reply_object(body, "A list of message batches")
    data = wire.get("data")
    if not isinstance(data, list):
        raise LLMBadResponseError("A list of message batches has an array 'data'.")
    return tuple(batch_from_wire(each) for each in data), bool(wire.get("has_more"))


def batch_to_wire(batch: Batch) -> dict[str, Any]:
    """``batch`` in Anthropic's form, which counts nothing but what is open before all have ended."""
    counts, ended = batch.counts, batch.has_ended
    return {
        "id": batch.batch_id,
        "type": "message_batch",
        "processing_status": _STATUS.get(batch.phase, "ended"),
        "request_counts": {
            "processing": counts.open if ended else counts.total,
            "succeeded": counts.succeeded if ended else 0,
            "errored": counts.errored if ended else 0,
            "canceled": counts.cancelled if ended else 0,
            "expired": counts.expired if ended else 0,
        },
        "created_at": _date(batch.created),
        "expires_at": _date(batch.created if batch.expires is None else batch.expires),
        "ended_at": _date(batch.ended),
        "cancel_initiated_at": _date(batch.cancelling),
        "archived_at": None,
        "results_url": batch.results_url,
    }


def batch_from_wire(wire: dict[str, Any]) -> Batch:
    """The batch that a server tells of."""
    status = said(wire, "processing_status", "A message batch")
    cancelling = _instant(wire.get("cancel_initiated_at"))
    phases: dict[str, BatchPhase] = {
        "in_progress": "in_progress",
        "canceling": "cancelling",
        "ended": "completed" if cancelling is None else "cancelled",
    }
    if status not in phases:
        raise LLMBadResponseError(
            f"A message batch's processing_status is {status!r}; known: {', '.join(phases)}."
        )
    counts = wire.get("request_counts") or {}
    return Batch(
        batch_id=said(wire, "id", "A message batch"),
        phase=phases[status],
        endpoint=ENDPOINT,
        counts=BatchCounts(
            total=sum(map(whole, counts.values())),
            succeeded=whole(counts.get("succeeded")),
            errored=whole(counts.get("errored")),
            cancelled=whole(counts.get("canceled")),
            expired=whole(counts.get("expired")),
        ),
        results_url=wire.get("results_url"),
        created=_instant(wire.get("created_at")) or 0.0,
        expires=_instant(wire.get("expires_at")),
        cancelling=cancelling,
        ended=_instant(wire.get("ended_at")),
    )


def write_deletion(batch_id: str) -> bytes:
    """That a batch is gone."""
    return encode({"id": batch_id, "type": "message_batch_deleted"})


# A line of the results


def write_result(result: BatchResult) -> bytes:
    """What became of one request, as a line without its end."""
    wire: dict[str, Any] = {"type": _WORDS[result.fate]}
    if result.fate == "succeeded":
        wire["message"] = raw(result.body or b"{}")
    elif result.fate == "errored":
        told = {"type": "api_error", "message": result.message or "The server gave no reason."}
        wire["error"] = raw(result.body or encode({"type": "error", "error": told}))
    return encode({"custom_id": result.custom_id, "result": wire})


def read_result(line: bytes) -> BatchResult:
    """What a line of the results says."""
    try:
        wire = _lines.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(line, error) from error
    told = wire.result
    fate = _FATES.get(told.type)
    if fate is None:
        raise LLMBadResponseError(f"A result's type is {told.type!r}; known: {', '.join(_FATES)}.")
    body = told.message if fate == "succeeded" else told.error
    return BatchResult(
        custom_id=wire.custom_id,
        fate=fate,
        status=200 if fate == "succeeded" else None,
        body=bytes(body) or None,
    )


def error_of(result: BatchResult) -> LLMError | None:
    """Why a request has no answer; None where it has one."""
    match result.fate:
        case "succeeded":
            return None
        case "cancelled":
            return LLMCancelledError("The batch was cancelled before this request was answered.")
        case "expired":
            return LLMTimeoutError("The batch expired before this request was answered.")
    return error_from_wire(None, decode_reply(result.body or b"{}"))


def usage_in(body: bytes) -> Usage | None:
    """What a message says that it cost."""
    wire = decode_reply(body)
    usage = wire.get("usage") if isinstance(wire, dict) else None
    if not isinstance(usage, dict):
        return None
    fresh, read = whole(usage.get("input_tokens")), whole(usage.get("cache_read_input_tokens"))
    written = whole(usage.get("cache_creation_input_tokens"))
    answered = whole(usage.get("output_tokens"))
    return Usage(
        prompt_tokens=fresh + read + written,
        completion_tokens=answered,
        input_cache_read_tokens=read,
        output_reasoning_tokens=0,
        total_tokens=fresh + read + written + answered,
    )


def _date(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, timezone.utc).isoformat().replace("+00:00", "Z")


def _instant(stamp: object) -> float | None:
    if not isinstance(stamp, str):
        return None
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
