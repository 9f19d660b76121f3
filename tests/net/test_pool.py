"""How connections are kept, shared, waited for and given up."""

from __future__ import annotations

import asyncio
import socket

import pytest
from attrs import evolve

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits, Url
from net.byte_server import answering, ok, saying, serving

LIMITS = TimeLimits(first_byte_s=20, idle_s=20)


async def ask(transport, server, limits=LIMITS, **fields):
    reply = await transport.send(HttpRequest(url=server.url, **fields), limits)
    return await reply.read(1 << 20)


def test_one_connection_carries_requests_one_after_the_other(run):
    async def main():
        transport = PooledTransport()
        async with serving(answering) as server:
            reused = []
            for _ in range(3):
                reply = await transport.send(HttpRequest(url=server.url), LIMITS)
                await reply.read(10)
                reused.append(reply.connection_reused)
            assert reused == [False, True, True]
            assert len(server.peers) == 1
            await transport.aclose()

    run(main)


def test_the_connection_is_free_when_the_answer_has_come_though_nobody_took_it(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(answering) as server:
            request = HttpRequest(url=server.url)
            first = await transport.send(request, LIMITS)
            second = await transport.send(request, LIMITS)
            assert await second.read(10) == b"0.2"
            assert await first.read(10) == b"0.1"
            await transport.aclose()

    run(main)


def test_the_connection_used_last_is_used_next(run):
    async def slowly(peer):
        while True:
            await peer.request()
            await peer.server.peer(1)  # so that the first two requests need a connection each
            peer.send(ok(b"%d" % peer.number))

    async def main():
        transport = PooledTransport()
        async with serving(slowly) as server:
            await asyncio.gather(ask(transport, server), ask(transport, server))
            last = await ask(transport, server)
            assert [await ask(transport, server) for _ in range(3)] == [last] * 3
            await transport.aclose()

    run(main)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        ok(b"hi") + ok(b"an answer nobody asked for"),
        ok(b"hi") + b"garbage",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
def test_a_connection_that_is_not_fit_for_another_request_is_closed(run, answer):
    async def main():
        transport = PooledTransport()
        async with serving(saying(answer, then="stay")) as server:
            assert await ask(transport, server) == b"hi"
            await server.peers[0].gone.wait()
            await transport.aclose()

    run(main)


def test_bytes_that_come_on_an_idle_connection_close_it(run):
    async def main():
        transport = PooledTransport()
        async with serving(saying(ok(b"hi"), then="stay")) as server:
            assert await ask(transport, server) == b"hi"
            server.peers[0].send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            await server.peers[0].gone.wait()
            await transport.aclose()

    run(main)


def test_an_idle_connection_is_closed_after_its_time(run):
    async def main():
        transport = PooledTransport(keep_idle_s=0.05)
        async with serving(answering) as server:
            await ask(transport, server)
            await server.peers[0].gone.wait()
            assert await ask(transport, server) == b"1.1"
            await transport.aclose()

    run(main)


def test_a_connection_that_the_server_closed_while_idle_is_not_used(run):
    async def body():
        yield b"piece"  # streamed, so that a second try could not hide the first

    async def main():
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        transport = PooledTransport()
        url = Url(host="127.0.0.1", port=listening.getsockname()[1])
        for _ in range(3):
            request = HttpRequest(method="POST", url=url, body=body())
            task = asyncio.ensure_future(transport.send(request, LIMITS))
            peer, _ = await loop.sock_accept(listening)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += await loop.sock_recv(peer, 1000)
            peer.send(ok(b"answer"))
            assert await (await task).read(10) == b"answer"
            peer.close()  # no turn of the loop comes now, so only a look at the socket can tell
        await transport.aclose()
        listening.close()

    run(main)


async def closing_on_the_second_request(peer):
    await peer.request()
    peer.send(ok(b"first"))
    await peer.request()
    peer.close()


def test_a_request_that_meets_a_closing_kept_connection_is_sent_again_on_a_new_one(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(closing_on_the_second_request) as server:
            await ask(transport, server)
            reply = await transport.send(
                HttpRequest(method="POST", url=server.url, body=b"question"), LIMITS
            )
            assert await reply.read(10) == b"first"
            assert not reply.connection_reused
            assert reply.sends == 2  # told of, for the record
            assert len(server.peers) == 2
            assert [r.endswith(b"question") for r in server.requests] == [False, True, True]
            await transport.aclose()

    run(main)


def test_it_is_sent_again_once_only(run):
    async def script(peer):
        if peer.number == 0:
            await closing_on_the_second_request(peer)
        await peer.request()
        peer.close()

    async def main():
        transport = PooledTransport()
        async with serving(script) as server:
            await ask(transport, server)
            with pytest.raises(LLMUnavailableError, match="without an answer"):
                await ask(transport, server)
            assert len(server.peers) == 2
            await transport.aclose()

    run(main)


def test_a_request_is_not_sent_again_when_a_byte_of_the_answer_has_come(run):
    async def script(peer):
        await peer.request()
        peer.send(ok(b"first"))
        await peer.request()
        peer.send(b"H")
        peer.close()

    async def main():
        transport = PooledTransport()
        async with serving(script) as server:
            await ask(transport, server)
            with pytest.raises(LLMBadResponseError, match="inside the answer's headers"):
                await ask(transport, server)
            assert len(server.peers) == 1
            await transport.aclose()

    run(main)


def test_a_streamed_body_is_not_sent_again(run):
    async def body():
        yield b"piece"

    async def main():
        transport = PooledTransport()
        async with serving(closing_on_the_second_request) as server:
            await ask(transport, server)
            with pytest.raises(LLMUnavailableError, match="without an answer"):
                await ask(transport, server, method="POST", body=body())
            assert len(server.peers) == 1
            await transport.aclose()

    run(main)


def test_five_hundred_requests_share_twenty_connections(run):
    async def main():
        transport = PooledTransport(max_connections=20)
        async with serving(answering) as server:
            answers = await asyncio.gather(*(ask(transport, server) for _ in range(500)))
            assert len(set(answers)) == 500  # each got an answer of its own
            assert len(server.peers) == server.most_open == 20
            await transport.aclose()

    run(main)


def test_connections_that_die_under_load_never_make_more_than_the_limit(run):
    async def dying(peer):
        for _ in range(3):
            await peer.request()
            peer.send(ok(b"x"))
        peer.close()

    async def main():
        transport = PooledTransport(max_connections=5)
        async with serving(dying) as server:
            answers = await asyncio.gather(*(ask(transport, server) for _ in range(200)))
            assert answers == [b"x"] * 200
            assert server.open <= 5
            await transport.aclose()

    run(main)


def test_the_limit_is_for_each_origin_on_its_own(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(saying(then="stay")) as held, serving(answering) as free:
            first = asyncio.ensure_future(ask(transport, held))
            await held.peer()
            assert await ask(transport, free) == b"0.1"
            await transport.aclose()
            with pytest.raises(LLMUnavailableError):
                await first

    run(main)


def test_those_who_wait_are_served_in_the_order_they_came(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(answering) as server:
            await asyncio.gather(
                *(ask(transport, server, headers=(("n", str(i)),)) for i in range(20))
            )
            seen = [int(r.split(b"\r\nn: ")[1].split(b"\r\n")[0]) for r in server.requests]
            assert seen == list(range(20))
            await transport.aclose()

    run(main)


def test_one_who_waits_and_is_cancelled_leaves_the_queue_to_the_others(run):
    async def gated(peer):
        await peer.request()
        await peer.server.go.wait()
        peer.send(ok(b"1"))
        await answering(peer)

    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(gated) as server:
            server.go = asyncio.Event()
            tasks = [asyncio.ensure_future(ask(transport, server)) for _ in range(4)]
            await (await server.peer()).asked.wait()
            tasks[1].cancel()
            tasks[2].cancel()
            server.go.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(r) for r in results] == [
                bytes,
                asyncio.CancelledError,
                asyncio.CancelledError,
                bytes,
            ]
            assert len(server.requests) == 2
            await transport.aclose()

    run(main)


def test_one_cancelled_at_the_moment_it_is_given_a_connection_passes_it_on(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(answering) as server:

            async def first():
                # When this goes on, the next in the queue holds the connection but has not yet run.
                await transport.send(HttpRequest(url=server.url), LIMITS)
                second.cancel()

            one = asyncio.ensure_future(first())
            await asyncio.sleep(0)
            second = asyncio.ensure_future(ask(transport, server))
            third = asyncio.ensure_future(ask(transport, server, TimeLimits(queue_s=10)))
            await one
            assert await third == b"0.2"
            with pytest.raises(asyncio.CancelledError):
                await second
            await transport.aclose()

    run(main)


def test_the_wait_for_a_free_connection_has_a_limit_of_its_own(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(saying(then="stay")) as server:
            held = asyncio.ensure_future(ask(transport, server))
            await server.peer()
            limits = TimeLimits(queue_s=0.02)
            with pytest.raises(LLMTimeoutError, match=r"queue_s of 0.02 s .* free connection"):
                await ask(transport, server, limits)
            limits = TimeLimits(total_s=0.02)
            with pytest.raises(LLMTimeoutError, match=r"total_s of 0.02 s .* free connection"):
                await ask(transport, server, limits)
            await transport.aclose()
            await asyncio.gather(held, return_exceptions=True)

    run(main)


def test_a_refused_connection_gives_its_place_back(run):
    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(answering) as server:
            pass  # closed: nobody listens there any more
        for _ in range(3):
            with pytest.raises(LLMUnavailableError, match=r"127\.0\.0\.1:\d+.*refused") as caught:
                await ask(transport, server)
            assert caught.value.transient
        await transport.aclose()

    run(main)


def test_a_host_that_cannot_be_found_is_unavailable():
    class Nameless(asyncio.SelectorEventLoop):
        """Asks no name server, so that the test stays on this machine."""

        async def getaddrinfo(self, host, port, **_):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main():
        transport = PooledTransport()
        request = HttpRequest(url=Url(host="nowhere.example", port=9))
        with pytest.raises(LLMUnavailableError, match=r"nowhere\.example:9: Name or service not"):
            await transport.send(request, LIMITS)
        await transport.aclose()

    with asyncio.Runner(loop_factory=Nameless) as runner:
        runner.run(main())


def test_a_host_name_that_can_be_none_is_an_invalid_request(run):
    async def main():
        transport = PooledTransport()
        with pytest.raises(LLMInvalidRequestError, match=r"a\.\.b:80 is no host name"):
            await transport.send(HttpRequest(url=Url(host="a..b")), LIMITS)
        await transport.aclose()

    run(main)


def test_closing_the_transport_ends_every_request_and_every_connection(run):
    async def half(peer):
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await peer.gone.wait()

    async def main():
        transport = PooledTransport(max_connections=1)
        async with serving(half) as server:
            reading = asyncio.ensure_future(ask(transport, server))
            queued = asyncio.ensure_future(ask(transport, server))
            await (await server.peer()).asked.wait()
            await transport.aclose()
            for task in (reading, queued):
                with pytest.raises(LLMUnavailableError, match="our transport"):
                    await task
            await server.peers[0].gone.wait()
            with pytest.raises(LLMUnavailableError, match="our transport is closed"):
                await ask(transport, server)
            await transport.aclose()
            assert len(server.peers) == 1

    run(main)


def test_a_transport_closed_while_it_connects_leaves_no_connection(run):
    async def main():
        transport = PooledTransport()
        async with serving(answering) as server:
            asking = asyncio.ensure_future(ask(transport, server))
            await asyncio.sleep(0)
            await transport.aclose()
            with pytest.raises(LLMUnavailableError, match="our transport"):
                await asking

    run(main)


def test_a_transport_serves_one_event_loop_after_the_other_but_not_two_at_once():
    transport = PooledTransport()

    async def main():
        async with serving(answering) as server:
            assert await ask(transport, server) == b"0.1"
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, ask(transport, server))
            for connection in server.peers:
                connection.close()
            await asyncio.sleep(0.05)  # the client's side is closed with it

    asyncio.run(main())
    asyncio.run(main())


def test_a_pool_without_room_is_refused():
    with pytest.raises(LLMInvalidRequestError, match="max_connections is 0: expected 1 or more"):
        PooledTransport(max_connections=0)
    assert issubclass(LLMInvalidRequestError, LLMError)


def test_an_address_that_is_not_admitted_is_sent_nothing(run):
    async def main():
        asked = []

        def admits(host, address):
            asked.append((host, address))
            return host != "localhost"

        transport = PooledTransport(max_connections=1, admits=admits)
        async with serving(answering) as server:
            by_name = evolve(server.url, host="localhost")
            for _ in range(2):
                with pytest.raises(
                    LLMUnavailableError, match="no connection is admitted"
                ) as caught:
                    await transport.send(HttpRequest(url=by_name), LIMITS)
                assert not caught.value.transient
            assert server.requests == []
            assert await ask(transport, server) == b"2.1"
            assert asked == [("localhost", "127.0.0.1")] * 2 + [("127.0.0.1", "127.0.0.1")]
            await transport.aclose()

    run(main)
