"""Requests by way of a real HTTP proxy, and which of them go there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.net.pool import PooledTransport
from headrace.net.proxy import ENVIRONMENT, Through, find_proxies, masked, read_proxy, through
from headrace.net.transport import NO_LIMITS, HttpRequest, Proxy, TimeLimits, Url, parse_url
from net.byte_server import Gone, Peer, answering, ok, saying, serving
from net.test_tls_and_unix import certificates, client_tls, fetch, server_tls  # noqa: F401

USER, PASSWORD = "ann", "p@ss:w/rd"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_CONNECT = re.compile(rb"CONNECT (\S+):(\d+) HTTP/1.1\r\n")
_ABSOLUTE = re.compile(rb"([A-Z]+) http://([^/:]+):?(\d+)?(/\S*) HTTP/1.1\r\n")
_WANTED = re.compile(rb"proxy-authorization: *([^\r\n]+)", re.IGNORECASE)


def relaying(*, to: int | None = None, authorization: str | None = None):
    """A proxy's script: tunnels and requests go to the port asked for, or all to the port ``to``."""

    async def relay(peer: Peer) -> None:
        while True:
            request = await peer.request()
            shown = _WANTED.search(request)
            if authorization is not None and (not shown or shown[1].decode() != authorization):
                peer.send(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
                )
                continue
            if connect := _CONNECT.match(request):
                await tunnel(peer, to or int(connect[2]))
                return
            asked = _ABSOLUTE.match(request)
            assert asked, request[:60]
            plain = b"%b %b HTTP/1.1\r\n" % (asked[1], asked[4]) + request[asked.end() :]
            plain = re.sub(rb"(?i)proxy-authorization:[^\r\n]*\r\n", b"", plain)
            reader, writer = await asyncio.open_connection("127.0.0.1", to or int(asked[3] or 80))
            try:
                writer.write(plain.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
                peer.send(head + await reader.readexactly(length))
            except asyncio.IncompleteReadError:  # the target went first
                peer.close()
                return
            finally:
                writer.close()

    async def tunnel(peer: Peer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer.send(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")

        async def back() -> None:
            while data := await reader.read(65536):
                peer.send(data)
            peer.close()

        task = asyncio.ensure_future(back())
        try:
            while True:
                writer.write(await peer.some())
        except Gone:
            pass
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            writer.close()

    return relay


def proxy_at(server, authorization: str | None = None) -> Proxy:
    return Proxy(host=server.url.host, port=server.url.port, authorization=authorization)


def test_an_https_target_is_reached_in_a_tunnel_that_the_proxy_cannot_read(
    run,
    server_tls,  # noqa: F811
    client_tls,  # noqa: F811
):
    async def main():
        async with serving(answering, tls=server_tls) as far, serving(relaying()) as near:
            pool = PooledTransport(tls=client_tls)
            transport = Through(pool, proxy_at(near, AUTHORIZATION))
            assert [await fetch(transport, far.url) for _ in range(3)] == [b"0.1", b"0.2", b"0.3"]
            (asked,) = near.requests  # one tunnel for all three
            lines = asked.decode().splitlines()
            assert lines[0] == f"CONNECT localhost:{far.url.port} HTTP/1.1"
            assert f"Host: localhost:{far.url.port}" in lines
            assert f"Proxy-Authorization: {AUTHORIZATION}" in lines
            assert all(request.startswith(b"GET / HTTP/1.1\r\n") for request in far.requests)
            assert not any(b"roxy" in request for request in far.requests)
            await pool.aclose()

    run(main)


def test_an_http_target_is_asked_of_the_proxy_in_absolute_form(run):
    async def main():
        async with serving(answering) as far, serving(relaying()) as near:
            pool = PooledTransport()
            transport = Through(pool, proxy_at(near, AUTHORIZATION))
            url = evolve(far.url, target="/v1/models?a=b")
            assert await fetch(transport, url) == b"0.1"
            assert await fetch(transport, url) == b"1.1"
            place = f"127.0.0.1:{far.url.port}"
            for asked in near.requests:
                lines = asked.decode().splitlines()
                assert lines[0] == f"GET http://{place}/v1/models?a=b HTTP/1.1"
                assert f"Host: {place}" in lines
                assert f"Proxy-Authorization: {AUTHORIZATION}" in lines
            assert len(near.peers) == 1  # the connection to the proxy is kept
            assert far.requests[0].startswith(b"GET /v1/models?a=b HTTP/1.1\r\n")
            await pool.aclose()

    run(main)


def test_the_targets_certificate_is_checked_in_the_tunnel(run, server_tls):  # noqa: F811
    async def main():
        async with serving(answering, tls=server_tls) as far, serving(relaying()) as near:
            pool = PooledTransport()
            with pytest.raises(LLMUnavailableError, match="certificate") as caught:
                await fetch(Through(pool, proxy_at(near)), far.url)
            assert caught.value.transient is False
            assert far.requests == []
            await pool.aclose()

    run(main)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_other_credentials_is_named_and_they_are_not(run, scheme):
    async def main():
        async with serving(relaying(authorization="Basic other")) as near:
            pool = PooledTransport()
            url = Url(scheme=scheme, host="far.example", port=4443)
            proxy = read_proxy(f"http://{USER}:p%40ss%3Aw%2Frd@127.0.0.1:{near.url.port}")
            assert proxy.authorization == AUTHORIZATION
            with pytest.raises(LLMUnavailableError) as caught:
                await fetch(Through(pool, proxy), url)
            error = caught.value
            said = repr(error) + str(error) + repr(proxy) + repr(url) + repr(vars(error))
            assert f"127.0.0.1:{near.url.port}" in said
            assert "407" in said
            assert "far.example:4443" in said
            assert error.transient is False
            for secret in (PASSWORD, "p%40ss", AUTHORIZATION, AUTHORIZATION[6:]):
                assert secret not in said
            await pool.aclose()

    run(main)


@pytest.mark.parametrize(
    ("answer", "error", "transient"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", LLMUnavailableError, False),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!", LLMUnavailableError, True),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", LLMBadResponseError, True),
        (b"HTTP/1.1 200 OK\r\n", LLMBadResponseError, True),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01 too soon", LLMBadResponseError, True),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, LLMBadResponseError, True),
        (b"", LLMBadResponseError, True),
    ],
)
def test_a_tunnel_that_is_not_opened_is_an_error_of_ours(run, answer, error, transient):
    async def main():
        async with serving(saying(answer)) as near:
            pool = PooledTransport()
            url = Url(scheme="https", host="far.example", port=443)
            with pytest.raises(error) as caught:
                await fetch(Through(pool, proxy_at(near)), url)
            assert caught.value.transient is transient
            assert str(near.url.port) in str(caught.value)
            await pool.aclose()

    run(main)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_where_nobody_listens_is_unavailable(run, scheme):
    async def main():
        async with serving(answering) as gone:
            proxy = proxy_at(gone)
        pool = PooledTransport()
        with pytest.raises(LLMUnavailableError, match=f"through the proxy .*:{proxy.port}"):
            await fetch(Through(pool, proxy), Url(scheme=scheme, host="far.example", port=443))
        await pool.aclose()

    run(main)


def test_a_proxy_that_says_nothing_is_waited_for_as_for_any_connection(run):
    async def main():
        async def silent(peer):
            await peer.gone.wait()

        async with serving(silent) as near:
            pool = PooledTransport()
            url = Url(scheme="https", host="far.example", port=443)
            with pytest.raises(LLMTimeoutError):
                await fetch(Through(pool, proxy_at(near)), url, TimeLimits(connect_s=0.05))
            await near.peers[0].gone.wait()
            waiting = asyncio.ensure_future(fetch(Through(pool, proxy_at(near)), url))
            second = await near.peer(1)
            await second.request()
            waiting.cancel()
            await second.gone.wait()
            await pool.aclose()

    run(main)


def test_two_users_of_one_proxy_share_no_connection(run):
    async def main():
        async with serving(answering) as far, serving(relaying()) as near:
            pool = PooledTransport()
            for authorization in (None, "Basic one", "Basic two", "Basic one"):
                await fetch(Through(pool, proxy_at(near, authorization)), far.url)
            assert len(near.peers) == 3
            await pool.aclose()

    run(main)


def test_a_407_that_the_target_itself_answers_is_the_proxys_word(run):
    async def main():
        body = ok(b"x").replace(b"200 OK", b"407 Proxy Authentication Required")
        async with serving(saying(body)) as near:
            pool = PooledTransport()
            url = Url(host="far.example", port=80)
            with pytest.raises(LLMUnavailableError, match="user and password"):
                await fetch(Through(pool, proxy_at(near)), url)
            await pool.aclose()

    run(main)


PROXIED = {
    "https_proxy": "http://secure:1",
    "http_proxy": "plain:2",
    "no_proxy": "corp.example, .lan.example,10.0.0.0/8,*.star.example,special.example:444",
}


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://api.openai.com/v1", 1),
        ("http://api.openai.com/v1", 2),
        ("https://corp.example/v1", None),
        ("https://llm.CORP.example/v1", None),
        ("https://notcorp.example/v1", 1),
        ("https://lan.example/v1", None),
        ("https://a.star.example/v1", None),
        ("https://special.example/v1", 1),
        ("https://special.example:444/v1", None),
        ("http://10.1.2.3:8000/v1", None),
        ("http://11.1.2.3:8000/v1", 2),
        ("http://127.0.0.1:8000/v1", None),
        ("http://127.1:8000/v1", None),
        ("http://0.0.0.0:8000/v1", None),
        ("http://[::1]:8000/v1", None),
        ("http://[::ffff:127.0.0.1]:8000/v1", None),
        ("http://localhost:8000/v1", None),
        ("http://LOCALHOST.:8000/v1", None),
        ("http://box.localhost:8000/v1", None),
        ("http+unix://%2Frun%2Fengine.sock/v1", None),
    ],
)
def test_the_variables_say_which_target_has_which_proxy(url, port):
    proxy = find_proxies(ENVIRONMENT, PROXIED).for_url(parse_url(url))
    assert (proxy and proxy.port) == port


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({"HTTPS_PROXY": "big:1"}, "big"),
        ({"HTTPS_PROXY": "big:1", "https_proxy": "small:1"}, "small"),
        ({"ALL_PROXY": "every:1"}, "every"),
        ({"ALL_PROXY": "every:1", "HTTPS_PROXY": "big:1"}, "big"),
        ({"ALL_PROXY": "every:1", "NO_PROXY": "*"}, None),
        ({"HTTP_PROXY": "plain:1"}, None),
        ({"HTTPS_PROXY": " "}, None),
        ({}, None),
    ],
)
def test_small_letters_go_before_capitals_and_the_scheme_before_all(environment, host):
    proxy = find_proxies(ENVIRONMENT, environment).for_url(parse_url("https://far.example"))
    assert (proxy and proxy.host) == host


def test_a_variable_that_a_web_server_made_of_a_header_is_not_believed():
    environment = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil:1"}
    assert find_proxies(ENVIRONMENT, environment).for_url(parse_url("http://far.example")) is None


def test_a_setting_goes_before_the_variables():
    target = parse_url("https://corp.example")
    assert find_proxies(None, PROXIED).for_url(target) is None
    assert find_proxies("http://mine:3", PROXIED).for_url(target) == Proxy(host="mine", port=3)
    assert find_proxies("http://mine:3", {}).for_url(parse_url("http://127.0.0.1:8000")) is None


def test_without_a_proxy_the_transport_is_as_it_was():
    transport = PooledTransport()
    assert through(transport, find_proxies(ENVIRONMENT, {}), "https://far.example") is transport


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://ann:hush@proxy:1", "http://"),
        ("socks5://ann:hush@proxy:1", "socks5://"),
        ("http://ann:hush@", "expected http://host:port"),
        ("http://ann:hush@proxy:eighty", "expected http://host:port"),
        ("ann:hush@pro xy:1", "expected http://host:port"),
        ("http://ann:a/hush@proxy:1", "expected http://host:port"),
        ("http://ann:hush@a@:proxy", "expected http://host:port"),
    ],
)
def test_a_wrong_proxy_is_told_what_would_be_right_and_shows_no_password(text, words):
    with pytest.raises(LLMInvalidRequestError, match=words) as caught:
        read_proxy(text, "HTTPS_PROXY")
    assert "HTTPS_PROXY" in str(caught.value)
    assert "hush" not in str(caught.value)


@given(
    user=st.text(st.characters(codec="ascii", exclude_characters="/@:?#% []\\"), min_size=1),
    password=st.text("abcdefghij/@", min_size=12),
)
def test_what_is_masked_holds_no_password(user, password):
    for text in (f"http://{user}:{password}@proxy:1", f"{user}:{password}@proxy:1"):
        assert password not in (masked(text) or "")
        assert "proxy:1" in (masked(text) or "")


def test_the_proxy_is_part_of_no_repr(client_tls):  # noqa: F811
    assert isinstance(client_tls, ssl.SSLContext)
    url = evolve(parse_url("https://far.example"), proxy=read_proxy("http://ann:hush-hush@proxy:1"))
    assert "hush" not in repr(HttpRequest(url=url)) + url.origin
    assert base64.b64encode(b"ann:hush-hush").decode() not in repr(url) + url.origin


def test_limits_are_those_of_any_request(run):
    async def main():
        async with serving(relaying()) as near, serving(saying(then="stay")) as far:
            pool = PooledTransport()
            limits = evolve(NO_LIMITS, first_byte_s=0.05)
            with pytest.raises(LLMTimeoutError):
                await fetch(Through(pool, proxy_at(near)), far.url, limits)
            await pool.aclose()

    run(main)
