"""The fast way and the general one give the same answers and leave the same records, in all formats.

Each face asks a backend of each format through two gateways, one of which has no fast way. What the
backend answers is what its codec writes: texts, thoughts, calls, counts, errors, streams cut short.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gateway.faults.upstream import HEAD, Play, Upstream, chunk
from gateway.served import Reply, Served, until
from headrace.contracts.errors import LLMInvalidRequestError, LLMRateLimitError
from headrace.contracts.messages import LLMMessage, ReasoningPart, ToolCall, ToolSpec
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.wire import anthropic, gemini, ollama, openai_chat, openai_responses
from headrace.wire.assemble import deltas
from net.byte_server import Peer
from wire.codecs import CODECS, row_of, takes_prompts

FACES: dict[str, tuple[ModuleType, str, dict[str, Any]]] = {
    "chat": (openai_chat, "/v1/chat/completions", {}),
    "responses": (openai_responses, "/v1/responses", {"store": False}),
    "messages": (anthropic, "/v1/messages", {}),
    "gemini": (gemini, "/v1beta/models/{model}:generateContent", {}),
    "ollama": (ollama, "/api/chat", {}),
}
BACKENDS = [name for name, wire in CODECS.items() if not takes_prompts(wire)]
PLAIN = LLMResponse(
    text="Grüezi 👋",
    finish_reason="stop",
    usage=Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12),
)
RICH = LLMResponse(
    text="I look.",
    finish_reason="tool_calls",
    reasoning="Hm.",
    reasoning_parts=(ReasoningPart(text="Hm.", signature="c2VhbA=="),),
    tool_calls=(
        ToolCall(name="weather", arguments_json='{"city":"Bern"}', call_id="call_1"),
        ToolCall(name="weather", arguments_json='{"city":"Chur"}', call_id="call_2"),
    ),
    usage=Usage(
        prompt_tokens=90,
        completion_tokens=30,
        total_tokens=120,
        input_uncached_tokens=40,
        input_cache_read_tokens=30,
        input_cache_write_tokens=20,
        output_text_tokens=10,
        output_reasoning_tokens=20,
    ),
)
SHORT = LLMResponse(text="Once upon", finish_reason="length", usage=PLAIN.usage)
SAID = {"plain": PLAIN, "rich": RICH, "short": SHORT}
FAILING = ("cut", "refused", "busy")


def written(wire: ModuleType, said: LLMResponse, *, stream: bool, cut: bool = False) -> bytes:
    """A whole HTTP answer of a backend."""
    if not stream:
        body = wire.write_response(said, response_id="msg_1", model="m", created=1)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % len(body) + body
    writer = wire.stream_writer(response_id="msg_1", model="m", created=1, include_usage=True)
    pieces = [writer.write(delta) for delta in deltas(said)]
    head = HEAD.replace(b"text/event-stream", wire.STREAM_TYPE.encode())
    if cut:
        return head + b"".join(map(chunk, filter(None, pieces[:1])))
    pieces.append(writer.finish())
    return head + b"".join(map(chunk, filter(None, pieces))) + b"0\r\n\r\n"


def playing(wire: ModuleType) -> Play:
    """A backend of that format; the model's name says what it does."""

    async def play(peer: Peer, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        stream = asks_for_stream(head, body)
        what = re.search(rb"to-be-([a-z]+)", request)
        assert what is not None
        wish = what[1].decode()
        if wish == "refused":
            error = wire.write_error(_error(400))
            peer.send(b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n%b" % (len(error), error))
        elif wish == "busy":
            error = wire.write_error(_error(429))
            length = b"Content-Length: %d\r\nRetry-After: 7\r\n\r\n%b" % (len(error), error)
            peer.send(b"HTTP/1.1 429 No\r\n" + length)
        elif wish == "cut":
            peer.send(written(wire, PLAIN, stream=True, cut=True))
            await asyncio.sleep(0.05)
            peer.close()
        else:
            peer.send(written(wire, SAID[wish], stream=stream))

    return play


def _error(status: int) -> Any:
    return (LLMRateLimitError if status == 429 else LLMInvalidRequestError)("no, thank you")


def asks_for_stream(head: bytes, body: bytes) -> bool:
    path = head.split(b" ", 2)[1]
    if b'"stream":' in body:
        return b'"stream":true' in body
    return b"tream" in path or path.endswith((b"/api/chat", b"/api/generate"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        server.plays.update({name: playing(CODECS[name]) for name in BACKENDS})
        yield server


@pytest.fixture(scope="module")
def fronts(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Served]]:
    off = {"enabled": False}
    folders = {way: tmp_path_factory.mktemp(way) for way in ("fast", "general")}
    served = {
        way: Served(
            folder,
            {
                "engine": off,
                "embeddings": off,
                "server": {"pass_through": way == "fast"},
                "records": {"file": str(folder / "records.jsonl")},
                "backends": [
                    {
                        "name": name,
                        "provider": row_of(CODECS[name]).name,
                        "base_url": upstream.base_url(name),
                        "models": [f"{name}-to-be-*"],
                        "api_key": "unused",
                        "max_retries": 0,
                        "breaker_failures": 0,
                    }
                    for name in BACKENDS
                ],
            },
        )
        for way, folder in folders.items()
    }
    try:
        yield served
    finally:
        for each in served.values():
            assert each.stop() == 0
            assert "Traceback" not in each.log, each.log


def ask(served: Served, face: str, model: str, *, stream: bool) -> Reply:
    wire, path, options = FACES[face]
    request = LLMRequest(
        model=model,
        max_tokens=99,
        messages=(
            LLMMessage(role="system", content="Be brief."),
            LLMMessage(role="user", content="Hello", name=None if face != "chat" else "ann"),
        ),
        tools=(ToolSpec(name="weather", description="w", input_schema={"type": "object"}),),
        provider_options=options,
    )
    path = path.replace("{model}", model)
    if stream and face == "gemini":
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    return served.post(path, wire.write_request(request, stream=stream))


_CHANCE = re.compile(
    rb"((?:chatcmpl-|cmpl-|msg_|resp_|fc_|rs_|req_)[0-9a-f]{8,})(_\d+)*|"
    rb'(?<="created_at":)"[^"]*"|"responseId":"[0-9a-f]{32}"|'
    rb'(?<="created":)\d+|(?<="created_at":)\d+|(?<="completed_at":)\d+'
)


# What is asked for whole has no time of a first token, and what is asked for in pieces has one.
_DURATION = re.compile(rb',?"[a-z_]+_duration":\d+')


def without_chance(body: bytes) -> bytes:
    return _CHANCE.sub(b"X", _DURATION.sub(b"", body))


def shown(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    kept = ("content-type", "x-headrace-dropped", "retry-after")
    headers = {name: value for name, value in reply.headers.items() if name in kept}
    return reply.status, headers, without_chance(reply.body)


# A message for a backend of messages goes on as it came, so it is in the backend's words.
PAIRS = [pair for pair in product(FACES, BACKENDS) if pair != ("messages", "anthropic")]


@pytest.mark.parametrize("wish", [*SAID, *FAILING])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("face", "backend"), PAIRS)
def test_both_ways_answer_alike_and_leave_the_same_record(
    face: str, backend: str, stream: bool, wish: str, fronts: dict[str, Served]
) -> None:
    if wish == "cut" and not stream and row_of(CODECS[backend]).asked_whole:
        return  # only a stream can be cut behind its first piece
    replies, records = {}, {}
    for way, served in fronts.items():
        replies[way] = ask(served, face, f"{backend}-to-be-{wish}", stream=stream)
        records[way] = record_of(served, replies[way].headers["x-request-id"])
    assert shown(replies["fast"]) == shown(replies["general"])
    assert records["fast"] == records["general"]
    expected = {"refused": 400, "busy": 429, "cut": 200 if stream else 502}.get(wish, 200)
    assert replies["fast"].status == expected


def record_of(served: Served, request_id: str) -> dict[str, Any]:
    """What stands in the file of records about one call, but for instants and what is the way's own."""
    path = Path(served.log_path.parent / "records.jsonl")
    (line,) = until(
        lambda: [
            line
            for line in (path.read_text().splitlines() if path.exists() else [])
            if request_id in line
        ]
    )
    told = json.loads(line)
    kept = (
        "operation",
        "backend",
        "provider",
        "requested_model",
        "model",
        "route",
        "stream",
        "dropped",
        "usage",
        "price_usd",
        "finish_reason",
        "status",
        "error_kind",
    )
    # The general way asks for a stream where it has to see that the answer begins in time.
    more = ("chunks",) if told["stream"] else ()
    return {name: told.get(name) for name in (*kept, *more)}
