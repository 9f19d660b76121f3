"""What goes wrong between a client and a server, over real sockets: the error, and what is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace import (
    AsyncClient,
    LLMBadResponseError,
    LLMContextLengthError,
    LLMError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.record import CallRecord
from headrace.stores.credentials import Credentials
from headrace.traffic.endpoint import EndpointSettings
from headrace.traffic.retry import RetryPolicy
from net.byte_server import ByteServer, Peer, ok, serving
from traffic.play import ENDING, OPENING, event, said

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
Script = Callable[[Peer], Awaitable[None]]
NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)
RETRIES = 2
QUICKLY = EndpointSettings(
    retry=RetryPolicy(retries=RETRIES, first_delay_s=0.001, max_delay_s=0.001), breaker=None
)
OUT_OF_MEMORY = {"message": "out of memory", "type": "server_error", "code": 500}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


GOOD = HEAD + chunk(OPENING + said("fine") + b"".join(ENDING)) + END


def refused(status: int, headers: bytes = b"", code: str | None = None) -> bytes:
    body = json.dumps({"error": {"message": f"says {status}", "code": code}}).encode()
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


def client_of(server: ByteServer, **settings: Any) -> AsyncClient:
    settings = {"endpoint": QUICKLY, "credentials": NOTHING, **settings}
    return AsyncClient("m", base_url=f"http://127.0.0.1:{server.url.port}/v1", **settings)


async def heard(client: AsyncClient) -> tuple[str, LLMError | None]:
    """The text of one stream as far as it came, and how it ended."""
    text = ""
    try:
        async for each in client.stream_chat("hello"):
            text += each.delta_text or ""
    except LLMError as error:
        return text, error
    return text, None


def sends(*pieces: bytes, then: str = "close", answers: int = 1_000_000) -> Script:
    """A script that answers each request with these pieces; those after ``answers`` with GOOD."""
    given = 0

    async def script(peer: Peer) -> None:
        nonlocal given
        while True:
            await peer.request()
            given += 1
            if given > answers:
                peer.send(GOOD)
                continue
            for piece in pieces:
                peer.send(piece)
                await asyncio.sleep(0.005)  # or they would arrive as one, and a reset before them
            if then == "close":
                peer.close()
            elif then == "reset":
                peer.reset()
            elif then == "hang":
                await peer.gone.wait()

    return script


# Before any output the call is made again; after it, never.
AGAIN, ONCE = 1 + RETRIES, 1

FAULTS: dict[str, tuple[Script, type[LLMError], str, int]] = {
    "a reset before the headers": (sends(then="reset"), LLMUnavailableError, "", AGAIN),
    "closed before the headers": (sends(then="close"), LLMUnavailableError, "", AGAIN),
    "a reset before any output": (
        sends(HEAD + chunk(OPENING), then="reset"),
        LLMUnavailableError,
        "",
        AGAIN,
    ),
    "a reset in the middle of the stream": (
        sends(HEAD + chunk(OPENING + said("on")), chunk(said("ce")), then="reset"),
        LLMUnavailableError,
        "once",
        ONCE,
    ),
    "the end in the middle of the stream": (
        sends(HEAD + chunk(OPENING + said("once"))),
        LLMBadResponseError,
        "once",
        ONCE,
    ),
    "a limit": (
        sends(refused(429, b"retry-after-ms: 1\r\n"), then="stay"),
        LLMRateLimitError,
        "",
        AGAIN,
    ),
    "an ailing server": (sends(refused(500), then="stay"), LLMProviderError, "", AGAIN),
    "a wrong request": (
        sends(refused(400, code="context_length_exceeded"), then="stay"),
        LLMContextLengthError,
        "",
        ONCE,
    ),
    "a hang before the first byte": (sends(then="hang"), LLMTimeoutError, "", AGAIN),
    "a hang before any output": (
        sends(HEAD + chunk(OPENING), then="hang"),
        LLMTimeoutError,
        "",
        AGAIN,
    ),
    "an idle gap": (
        sends(HEAD + chunk(OPENING + said("once")), then="hang"),
        LLMTimeoutError,
        "once",
        ONCE,
    ),
    "broken JSON in an event": (
        sends(HEAD + chunk(OPENING + said("once") + b'data: {"choices": [{\n\n') + END),
        LLMBadResponseError,
        "once",
        ONCE,
    ),
    "broken JSON in the first event": (
        sends(HEAD + chunk(b"data: {{{\n\n") + END, then="stay"),
        LLMBadResponseError,
        "",
        ONCE,
    ),
    "invalid UTF-8": (
        sends(HEAD + chunk(OPENING + said("once") + said("X").replace(b"X", b"\xff\xfe")) + END),
        LLMBadResponseError,
        "once",
        ONCE,
    ),
    "no HTTP": (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), LLMBadResponseError, "", ONCE),
    "an error inside the stream": (
        sends(HEAD + chunk(OPENING + said("once") + event(error=OUT_OF_MEMORY)) + END),
        LLMProviderError,
        "once",
        ONCE,
    ),
    "an error in place of the stream": (
        sends(HEAD + chunk(event(error=OUT_OF_MEMORY)) + END, then="stay"),
        LLMProviderError,
        "",
        AGAIN,
    ),
    "JSON that is no answer": (
        sends(ok(b'{"hello": 1}', b"Content-Type: application/json\r\n"), then="stay"),
        LLMBadResponseError,
        "",
        ONCE,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_the_right_error_after_the_right_number_of_attempts(run, fault: str) -> None:
    script, kind, text, attempts = FAULTS[fault]

    async def main() -> None:
        records: list[CallRecord] = []
        limits = {"first_byte_s": 0.1, "idle_s": 0.1} if "hang" in fault or "idle" in fault else {}
        async with (
            serving(script) as server,
            client_of(server, sinks=[records.append], **limits) as client,
        ):
            got, error = await heard(client)
            assert type(error) is kind, repr(error)
            assert got == text
            assert len(server.requests) == attempts
            (record,) = records
            assert [each.error_kind for each in record.attempts] == [kind.__name__] * attempts
            assert record.error_kind == kind.__name__
            assert record.status == error.status
            stats = client.describe()["endpoints"]["openai-compatible"]["stats"]  # type: ignore[index]
            assert (stats["running"], stats["waiting"]) == (0, 0)
            await client.aclose()
            # Nothing is left open: the server sees that as the end of each connection.
            for peer in server.peers:
                await peer.gone.wait()

    run(main)


@pytest.mark.parametrize(
    "fault",
    [
        "a reset before the headers",
        "a limit",
        "an ailing server",
        "an error in place of the stream",
    ],
)
def test_what_passes_is_mended_without_a_word_and_asked_under_one_name(run, fault: str) -> None:
    pieces = {
        "a limit": refused(429, b"retry-after-ms: 1\r\n"),
        "an ailing server": refused(500),
        "an error in place of the stream": HEAD + chunk(event(error=OUT_OF_MEMORY)) + END,
    }
    sent = [pieces[fault]] if fault in pieces else []
    script = sends(*sent, then="stay" if sent else "reset", answers=RETRIES)

    async def main() -> None:
        async with serving(script) as server, client_of(server) as client:
            assert (await client.chat("hello")).text == "fine"
            assert len(server.requests) == 1 + RETRIES
            names = {
                line.partition(b":")[2].strip()
                for request in server.requests
                for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")
                if line.lower().startswith(b"idempotency-key:")
            }
            assert len(names) == 1

    run(main)


def test_events_that_are_cut_at_any_byte_are_read_as_if_they_came_whole(run) -> None:
    text = "ça va ☕ \U0001f600"
    plain = OPENING + said(text).replace(json.dumps(text).encode(), f'"{text}"'.encode())
    body = chunk(plain + b"".join(ENDING).replace(b"\n\n", b"\r\n\r\n")) + END
    cuts = iter(range(1, len(body)))

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            at = next(cuts)
            peer.send(HEAD + body[:at])
            await asyncio.sleep(0.001)
            peer.send(body[at:])

    async def main() -> None:
        async with serving(script) as server, client_of(server) as client:
            for at in range(1, len(body)):
                response = await client.chat("hello")
                assert (at, response.text, response.finish_reason) == (at, text, "stop")
            assert len(server.peers) == 1

    run(main)


def test_events_that_come_byte_by_byte_are_read_as_if_they_came_whole(run) -> None:
    body = (
        HEAD + b"".join(chunk(bytes([b])) for b in OPENING + said("été") + b"".join(ENDING)) + END
    )

    async def script(peer: Peer) -> None:
        await peer.request()
        for place in range(len(body)):
            peer.send(body[place : place + 1])
            await asyncio.sleep(0)

    async def main() -> None:
        async with serving(script) as server, client_of(server) as client:
            assert (await client.chat("hello")).text == "été"

    run(main)


def test_a_stream_that_is_left_is_closed_at_once(run) -> None:
    script = sends(HEAD + chunk(OPENING + said("once")), then="hang")

    async def main() -> None:
        async with serving(script) as server, client_of(server) as client:
            events = client.stream_chat("hello")
            async for _ in events:
                break
            await events.aclose()
            await (await server.peer()).gone.wait()

    run(main)


def test_a_call_that_is_cancelled_is_closed_at_once(run) -> None:
    async def main() -> None:
        records: list[CallRecord] = []
        async with (
            serving(sends(then="hang")) as server,
            client_of(server, sinks=[records.append]) as client,
        ):
            call = asyncio.ensure_future(client.chat("hello"))
            await (await server.peer()).asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.peers[0].gone.wait()
            assert [record.error_kind for record in records] == ["LLMCancelledError"]

    run(main)


def test_the_next_backend_answers_where_nobody_listens(run) -> None:
    async def main() -> None:
        async with serving(sends(GOOD, then="stay")) as server:
            places = {
                "VLLM_BASE_URL": "http://127.0.0.1:9/v1",
                "SGLANG_BASE_URL": f"http://127.0.0.1:{server.url.port}/v1",
            }
            found = Credentials(environment=places, dotenv=None, config=None, seed=None)
            client = AsyncClient("vllm/m", fallbacks=["sglang/n"], credentials=found)
            async with client:
                response = await client.chat("hello")
            assert (response.text, response.provider) == ("fine", "sglang")
            assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["model"] == "n"

    run(main)
