"""OpenAI's batches, both ways: https://platform.openai.com/docs/api-reference/batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from headrace.contracts.batches import (
    Batch,
    BatchAsked,
    BatchCounts,
    BatchItem,
    BatchPhase,
    BatchProblem,
    BatchResult,
    ItemFate,
)
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCancelledError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMTimeoutError,
)
from headrace.contracts.responses import Usage
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
from headrace.wire.json import bad_reply, decode_object, decode_reply, encode
from headrace.wire.openai_errors import read_error
from headrace.wire.openai_fields import filled_text, integer, mapping, member, one_of, refuse

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
CREATE_FIELDS = (
    "input_file_id",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
)
_ITEM_FIELDS = ("custom_id", "method", "url", "body")
_PHASES: dict[str, BatchPhase] = {phase: phase for phase in get_args(BatchPhase)}
# What an item that was not asked is told.
NOT_ASKED: dict[ItemFate, tuple[str, str]] = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": (
        "batch_cancelled",
        "This batch was cancelled before this request was executed.",
    ),
}
_endpoint = one_of(*ENDPOINTS)
_window = one_of("24h")
_anchor = one_of("created_at")
_kept_s = integer(3600, 30 * 24 * 3600)


_NONE = msgspec.Raw()


class _Item(msgspec.Struct):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = _NONE


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw
    request_id: str | None = None


class _Result(msgspec.Struct):
    custom_id: str | None = None
    id: str = ""
    response: _Response | None = None
    error: Any = None


_items = msgspec.json.Decoder(_Item)
_names = msgspec.json.Decoder(dict[str, msgspec.Raw])
_results = msgspec.json.Decoder(_Result)


# A line of the input file


def write_item(item: BatchItem, endpoint: str) -> bytes:
    """One request as a line, without its end."""
    return encode(
        {"custom_id": item.custom_id, "method": "POST", "url": endpoint, "body": raw(item.body)}
    )


def read_item(line: bytes, endpoint: str) -> BatchItem:
    """The request in ``line``; LLMInvalidRequestError, with OpenAI's code, where it is none."""
    try:
        known_only(_names.decode(line), _ITEM_FIELDS)
        wire = _items.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LLMInvalidRequestError(
            f"This line is not parseable as valid JSON: {error}.", code="invalid_json_line"
        ) from error
    name = custom_id(wire.custom_id)
    if wire.method != "POST":
        raise LLMInvalidRequestError(
            "Invalid value for 'method'. Expected 'POST'.", param="method", code="invalid_method"
        )
    if wire.url != endpoint:
        raise LLMInvalidRequestError(
            f"The URL provided for this request does not match the batch's endpoint, '{endpoint}'.",
            param="url",
            code="mismatched_url",
        )
    return BatchItem(custom_id=name, body=object_body(wire.body, "body"))


# Asking for a batch


def write_create(asked: BatchAsked) -> bytes:
    """The body of ``POST /v1/batches``; OpenAI takes one input file and 24 hours."""
    if len(asked.input_files) != 1:
        refuse("input_files", list(asked.input_files), "one file: OpenAI's batches have one each")
    wire: dict[str, Any] = {
        "input_file_id": asked.input_files[0],
        "endpoint": asked.endpoint,
        "completion_window": f"{asked.window_s // 3600}h",
    }
    if asked.metadata is not None:
        wire["metadata"] = asked.metadata
    if asked.outputs_kept_s is not None:
        wire["output_expires_after"] = {"anchor": "created_at", "seconds": asked.outputs_kept_s}
    return encode(wire)


def read_create(body: bytes) -> BatchAsked:
    """The batch that ``body`` asks for; LLMInvalidRequestError, naming the field, where it does not."""
    wire = decode_object(body)
    known_only(wire, CREATE_FIELDS)
    kept = wire.get("output_expires_after")
    if kept is not None:
        mapping(kept, "output_expires_after")
        member(kept, "anchor", "output_expires_after", _anchor, "'created_at'")
        kept = member(kept, "seconds", "output_expires_after", _kept_s, "a number of seconds")
    required = {
        "input_file_id": (filled_text, "the id of an uploaded file"),
        "endpoint": (_endpoint, "one of " + ", ".join(ENDPOINTS)),
        "completion_window": (_window, "'24h'"),
    }
    for name, (check, right) in required.items():
        if wire.get(name) is None:
            raise LLMInvalidRequestError(
                f"Missing required parameter: '{name}'. Expected {right}.",
                param=name,
                code="missing_required_parameter",
            )
        check(wire[name], name)
    return BatchAsked(
        endpoint=wire["endpoint"],
        input_files=(wire["input_file_id"],),
        metadata=metadata(wire.get("metadata")),
        outputs_kept_s=kept,
    )


# How a batch stands


def write_batch(batch: Batch) -> bytes:
    """``batch`` as a body."""
    return encode(batch_to_wire(batch))


def read_batch(body: bytes) -> Batch:
    """The batch in a server's answer."""
    return batch_from_wire(reply_object(body, "A batch"))


def write_batches(batches: Sequence[Batch], *, has_more: bool) -> bytes:
    """A page of a list."""
    return encode(
        {
            "object": "list",
            "data": [batch_to_wire(each) for each in batches],
            "first_id": batches[0].batch_id if batches else None,
            "last_id": batches[-1].batch_id if batches else None,
            "has_more": has_more,
        }
    )


def read_batches(body: bytes) -> tuple[tuple[Batch, ...], bool]:
    """A page of a list, and whether more follow."""
    wire = reply_object(body, "A list of batches")
    data = wire.get("data")
    if not isinstance(data, list):
        raise LLMBadResponseError("A list of batches has an array 'data'.")
    return tuple(batch_from_wire(each) for each in data), bool(wire.get("has_more"))


def batch_to_wire(batch: Batch) -> dict[str, Any]:
    """``batch`` in OpenAI's form."""
    ended = unix(batch.ended)

    def at(phase: str) -> int | None:
        return ended if batch.phase == phase else None

    wire: dict[str, Any] = {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": None,
        "input_file_id": batch.input_files[0] if batch.input_files else "",
        "completion_window": f"{batch.window_s // 3600}h",
        "status": batch.phase,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created),
        "in_progress_at": unix(batch.began),
        "expires_at": unix(batch.expires),
        "finalizing_at": unix(batch.finalizing),
        "completed_at": at("completed"),
        "failed_at": at("failed"),
        "expired_at": at("expired"),
        "cancelling_at": unix(batch.cancelling),
        "cancelled_at": at("cancelled"),
        "request_counts": {
            "total": batch.counts.total,
            "completed": batch.counts.succeeded,
            "failed": batch.counts.errored + batch.counts.cancelled + batch.counts.expired,
        },
        "metadata": batch.metadata,
    }
    if batch.problems:
        data = [
            {"code": each.code, "line": each.line, "message": each.message, "param": each.param}
            for each in batch.problems
        ]
        wire["errors"] = {"object": "list", "data": data}
    if batch.usage is not None:
        wire["usage"] = _usage_to_wire(batch.usage)
    return wire


def batch_from_wire(wire: dict[str, Any]) -> Batch:
    """The batch that a server tells of."""
    phase = said(wire, "status", "A batch")
    if phase not in _PHASES:
        raise LLMBadResponseError(
            f"A batch's status is {phase!r}; known: {', '.join(_PHASES)}.", code="bad_response"
        )
    counts = wire.get("request_counts") or {}
    usage, window = wire.get("usage"), str(wire.get("completion_window") or "24h")
    hours = window.removesuffix("h")
    return Batch(
        batch_id=said(wire, "id", "A batch"),
        phase=_PHASES[phase],
        endpoint=str(wire.get("endpoint") or ""),
        model=wire.get("model"),
        counts=BatchCounts(
            total=whole(counts.get("total")),
            succeeded=whole(counts.get("completed")),
            errored=whole(counts.get("failed")),
        ),
        input_files=(wire["input_file_id"],) if wire.get("input_file_id") else (),
        output_file=wire.get("output_file_id"),
        error_file=wire.get("error_file_id"),
        problems=tuple(_problem(each) for each in (wire.get("errors") or {}).get("data") or ()),
        metadata=texts(wire.get("metadata")),
        usage=_usage_from_wire(usage) if isinstance(usage, dict) else None,
        window_s=int(hours) * 3600 if hours.isdecimal() else 24 * 3600,
        created=instant(wire.get("created_at")) or 0.0,
        expires=instant(wire.get("expires_at")),
        began=instant(wire.get("in_progress_at")),
        finalizing=instant(wire.get("finalizing_at")),
        cancelling=instant(wire.get("cancelling_at")),
        ended=next(
            (
                at
                for name in ("completed_at", "failed_at", "expired_at", "cancelled_at")
                if (at := instant(wire.get(name))) is not None
            ),
            None,
        ),
    )


# A line of the output or the error file


def write_result(result: BatchResult) -> bytes:
    """What became of one request, as a line without its end."""
    wire: dict[str, Any] = {
        "id": result.result_id,
        "custom_id": result.custom_id,
        "response": None,
        "error": None,
    }
    if result.body is not None:
        wire["response"] = {
            "status_code": result.status or 200,
            "request_id": result.request_id or "",
            "body": raw(result.body),
        }
    else:
        code, message = NOT_ASKED.get(result.fate, (result.code, result.message))
        wire["error"] = {"code": result.code or code, "message": result.message or message}
    return encode(wire)


def read_result(line: bytes) -> BatchResult:
    """What a line of either file says."""
    try:
        wire = _results.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_reply(line, error) from error
    response = wire.response
    if response is not None:
        succeeded = 200 <= response.status_code < 300
        return BatchResult(
            result_id=wire.id,
            custom_id=wire.custom_id,
            fate="succeeded" if succeeded else "errored",
            status=response.status_code,
            body=bytes(response.body),
            request_id=response.request_id,
        )
    told: dict[str, Any] = (
        wire.error if isinstance(wire.error, dict) else {"message": str(wire.error or "")}
    )
    code = told.get("code")
    fates: dict[Any, ItemFate] = {known: fate for fate, (known, _) in NOT_ASKED.items()}
    return BatchResult(
        result_id=wire.id,
        custom_id=wire.custom_id,
        fate=fates.get(code, "errored"),
        code=code,
        message=told.get("message") or None,
    )


def error_of(result: BatchResult) -> LLMError | None:
    """Why a request has no answer; None where it has one."""
    if result.fate == "succeeded":
        return None
    if result.body is not None:
        return read_error(result.status or 500, result.body)
    message = result.message or "The batch gave no reason."
    if result.fate == "cancelled":
        return LLMCancelledError(message, code=result.code)
    if result.fate == "expired" or result.code == "request_timeout":
        return LLMTimeoutError(message, code=result.code)
    return LLMProviderError(message, code=result.code)


def usage_in(body: bytes) -> Usage | None:
    """What an answer of any of the endpoints says that it cost."""
    wire = decode_reply(body)
    usage = wire.get("usage") if isinstance(wire, dict) else None
    if not isinstance(usage, dict):
        return None
    if "input_tokens" in usage:
        return _usage_from_wire(usage)
    asked, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    return Usage(
        prompt_tokens=whole(asked),
        completion_tokens=whole(answered),
        input_cache_read_tokens=whole(cached),
        output_reasoning_tokens=whole(thought),
        total_tokens=whole(asked) + whole(answered),
    )


def _usage_to_wire(usage: Usage) -> dict[str, Any]:
    asked, answered = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": usage.input_cache_read_tokens or 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": usage.output_reasoning_tokens or 0},
        "total_tokens": asked + answered,
    }


def _usage_from_wire(wire: dict[str, Any]) -> Usage:
    asked, answered = whole(wire.get("input_tokens")), whole(wire.get("output_tokens"))
    return Usage(
        prompt_tokens=asked,
        completion_tokens=answered,
        input_cache_read_tokens=whole(
            (wire.get("input_tokens_details") or {}).get("cached_tokens")
        ),
        output_reasoning_tokens=whole(
            (wire.get("output_tokens_details") or {}).get("reasoning_tokens")
        ),
        total_tokens=asked + answered,
    )


def _problem(wire: Any) -> BatchProblem:
    told: dict[str, Any] = wire if isinstance(wire, dict) else {"message": str(wire)}
    return BatchProblem(
        message=str(told.get("message") or ""),
        code=told.get("code"),
        param=told.get("param"),
        line=told.get("line"),
    )
