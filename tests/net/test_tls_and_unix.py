"""The same transport over TLS, with certificates made here, and over unix sockets."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest
from attrs import evolve

from headrace.contracts.errors import LLMBadResponseError, LLMTimeoutError, LLMUnavailableError
from headrace.net.pool import PooledTransport
from headrace.net.tls import default_context
from headrace.net.transport import NO_LIMITS, HttpRequest, TimeLimits, Url
from net.byte_server import answering, ok, saying, serving


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with ca.pem, and server.pem and server.key for the host ``localhost``."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl binary to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=Test CA", "-addext", "basicConstraints=critical,CA:TRUE",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    openssl(
        folder, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"
    )
    (folder / "extensions").write_text(
        "subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n"
    )
    openssl(
        folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "extensions",
    )  # fmt: skip
    return folder


@pytest.fixture
def server_tls(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    return context


@pytest.fixture
def client_tls(certificates):
    return ssl.create_default_context(cafile=certificates / "ca.pem")


async def fetch(transport, url, limits=NO_LIMITS):
    reply = await transport.send(HttpRequest(url=url), limits)
    return await reply.read(1 << 24)


def test_requests_go_over_tls_on_a_kept_connection(run, server_tls, client_tls):
    async def main():
        transport = PooledTransport(tls=client_tls)
        async with serving(answering, tls=server_tls) as server:
            assert [await fetch(transport, server.url) for _ in range(3)] == [
                b"0.1",
                b"0.2",
                b"0.3",
            ]
            await transport.aclose()

    run(main)


def test_a_large_body_comes_whole_over_tls_to_a_slow_reader(run, server_tls, client_tls):
    async def main():
        body = bytes(range(256)) * 20_000
        transport = PooledTransport(tls=client_tls)
        async with serving(saying(ok(body)), tls=server_tls) as server:
            reply = await transport.send(HttpRequest(url=server.url), NO_LIMITS)
            got = b""
            async for piece in reply:
                got += piece
                await asyncio.sleep(0)
            assert got == body
            await transport.aclose()

    run(main)


def test_a_certificate_for_another_host_is_refused_and_asking_again_is_no_use(
    run, server_tls, client_tls
):
    async def main():
        transport = PooledTransport(tls=client_tls)
        async with serving(answering, tls=server_tls) as server:
            url = evolve(server.url, host="127.0.0.1")
            with pytest.raises(LLMUnavailableError, match=r"127\.0\.0\.1.*mismatch") as caught:
                await fetch(transport, url)
            assert not caught.value.transient
            assert server.requests == []
            await transport.aclose()

    run(main)


def test_a_certificate_of_an_unknown_authority_is_refused_by_default(run, server_tls):
    async def main():
        transport = PooledTransport()
        async with serving(answering, tls=server_tls) as server:
            with pytest.raises(LLMUnavailableError, match="certificate refused"):
                await fetch(transport, server.url)
            await transport.aclose()

    run(main)


def test_the_default_context_verifies_and_asks_for_tls_1_2_or_newer():
    context = default_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_server_that_speaks_no_tls_is_unavailable(run):
    async def plain(peer):
        await peer.some()
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.close()

    async def main():
        transport = PooledTransport()
        async with serving(plain) as server:
            with pytest.raises(LLMUnavailableError, match="TLS with localhost"):
                await fetch(transport, Url(scheme="https", host="localhost", port=server.url.port))
            await transport.aclose()

    run(main)


def test_a_handshake_that_is_never_answered_ends_by_limit_or_cancellation(run):
    async def silent(peer):
        await peer.gone.wait()

    async def main():
        transport = PooledTransport()
        async with serving(silent) as server:
            url = Url(scheme="https", host="localhost", port=server.url.port)
            # Long enough for a busy machine to look the name up and to accept.
            with pytest.raises(LLMTimeoutError, match=r"connect_s of 0.5 s .* connecting"):
                await fetch(transport, url, TimeLimits(connect_s=0.5))
            first = await server.peer(0)
            await first.gone.wait()
            task = asyncio.ensure_future(fetch(transport, url))
            peer = await server.peer(1)
            await peer.some()  # its hello
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await peer.gone.wait()
            await transport.aclose()

    run(main)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_cancelling_closes_a_tls_connection_too(run, server_tls, client_tls, said):
    async def script(peer):
        await peer.request()
        peer.send(said)
        await peer.gone.wait()

    async def main():
        transport = PooledTransport(tls=client_tls)
        async with serving(script, tls=server_tls) as server:
            task = asyncio.ensure_future(fetch(transport, server.url))
            peer = await server.peer()
            await peer.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await peer.gone.wait()
            await transport.aclose()

    run(main)


def test_a_body_cut_short_is_an_error_over_tls_too(run, server_tls, client_tls):
    async def main():
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
        transport = PooledTransport(tls=client_tls)
        async with serving(saying(answer), tls=server_tls) as server:
            with pytest.raises(LLMBadResponseError, match="after 4 of 9 bytes"):
                await fetch(transport, server.url)
            await transport.aclose()

    run(main)


def test_a_kept_tls_connection_that_the_server_closes_is_replaced(run, server_tls, client_tls):
    async def main():
        transport = PooledTransport(tls=client_tls)
        async with serving(saying(ok(b"one")), tls=server_tls) as server:
            for _ in range(3):
                assert await fetch(transport, server.url) == b"one"
            assert len(server.peers) == 3
            await transport.aclose()

    run(main)


def test_requests_go_over_a_unix_socket(run, tmp_path):
    async def main():
        transport = PooledTransport()
        async with serving(answering, unix_path=str(tmp_path / "socket")) as server:
            assert await fetch(transport, server.url) == b"0.1"
            assert await fetch(transport, server.url) == b"0.2"
            assert b"\r\nHost: localhost\r\n" in server.requests[0]
            await transport.aclose()

    run(main)


def test_a_unix_socket_that_is_not_there_is_unavailable_and_named(run, tmp_path):
    async def main():
        transport = PooledTransport()
        path = str(tmp_path / "nothing")
        with pytest.raises(LLMUnavailableError, match=r"unix:.*nothing: No such file") as caught:
            await fetch(transport, Url(unix_path=path))
        assert path in str(caught.value)
        await transport.aclose()

    run(main)
