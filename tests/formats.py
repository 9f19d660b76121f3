"""Streamed answers as the servers of each format send them, for scripts."""

from __future__ import annotations

import json
from typing import Any


def streamed(format_name: str, *texts: str) -> tuple[bytes, ...]:
    """The pieces of a stream that says ``texts``, 3 tokens in and one out for each of them."""
    return _WRITERS[format_name](texts)


def stream_headers(format_name: str) -> tuple[tuple[str, str], ...]:
    """The headers of such a stream."""
    return (("content-type", _STREAM_TYPES.get(format_name, "text/event-stream")),)


def _openai(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    opening = {"role": "assistant", "content": ""}
    deltas = [opening, *({"content": text} for text in texts)]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": d}]} for d in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    count = len(texts)
    usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}
    chunks.append({"choices": [], "usage": usage})
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = [json.dumps({**head, **chunk}).encode() for chunk in chunks]
    return tuple(b"data: " + each + b"\n\n" for each in (*said, b"[DONE]"))


def _anthropic(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(texts)},
        },
        {"type": "message_stop"},
    ]
    return tuple(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def _responses(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    response: dict[str, Any] = {"id": "resp_1", "object": "response", "model": "m"}
    count = len(texts)
    usage = {"input_tokens": 3, "output_tokens": count, "total_tokens": 3 + count}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    whole = {**response, "status": "completed", "output": [message], "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": message},
    ]
    for text in texts:
        events.append({"type": "response.output_text.delta", **place, "delta": text})
    events.append({"type": "response.output_text.done", **place, "text": "".join(texts)})
    events.append({"type": "response.completed", "response": whole})
    return tuple(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def _gemini(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    events: list[dict[str, Any]] = []
    for done, text in enumerate(texts, 1):
        usage = {
            "promptTokenCount": 3,
            "candidatesTokenCount": done,
            "totalTokenCount": 3 + done,
        }
        candidate: dict[str, Any] = {
            "content": {"parts": [{"text": text}], "role": "model"},
            "index": 0,
        }
        if done == len(texts):
            candidate["finishReason"] = "STOP"
        head = {"modelVersion": "m", "responseId": "r-1"}
        events.append({"candidates": [candidate], "usageMetadata": usage, **head})
    return tuple(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events)


def _ollama(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    head = {"model": "m", "created_at": "2025-10-17T23:14:07.414671Z"}
    lines: list[dict[str, Any]] = [
        {**head, "message": {"role": "assistant", "content": text}, "done": False} for text in texts
    ]
    counts = {"prompt_eval_count": 3, "eval_count": len(texts), "total_duration": 174560334}
    empty = {"role": "assistant", "content": ""}
    lines.append({**head, "message": empty, "done": True, "done_reason": "stop", **counts})
    return tuple(json.dumps(line).encode() + b"\n" for line in lines)


def _tgi(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    # As the server writes them: no space behind the colon, and the last token with all of the text.
    end = {"finish_reason": "eos_token", "generated_tokens": len(texts), "seed": None}
    said = [
        {
            "index": place,
            "token": {"id": place, "text": text, "logprob": -0.5, "special": False},
            "generated_text": "".join(texts) if place == len(texts) else None,
            "details": {**end, "input_length": 3} if place == len(texts) else None,
        }
        for place, text in enumerate(texts, 1)
    ]
    return tuple(b"data:" + json.dumps(each).encode() + b"\n\n" for each in said)


_WRITERS = {
    "openai": _openai,
    "anthropic": _anthropic,
    "openai-responses": _responses,
    "gemini": _gemini,
    "ollama": _ollama,
    # Conversations at Cohere are in OpenAI's format.
    "cohere": _openai,
    "tgi": _tgi,
    "opea": _openai,
}
_STREAM_TYPES = {"ollama": "application/x-ndjson"}
