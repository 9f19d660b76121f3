"""A client behind a proxy, over real sockets."""

from __future__ import annotations

import pytest

from headrace import AsyncClient, Credentials, LLMInvalidRequestError, LLMUnavailableError
from net.byte_server import Peer, ok, serving
from net.test_proxy import relaying

ANSWER = ok(
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"far away"},"finish_reason":"stop"}]}',
    b"Content-Type: application/json\r\n",
)
USER, PASSWORD = "ann", "hush-hush-hush"
AUTHORIZATION = "Basic YW5uOmh1c2gtaHVzaC1odXNo"


async def answering(peer: Peer) -> None:
    while True:
        await peer.request()
        peer.send(ANSWER)


def known(**environment: str) -> Credentials:
    return Credentials(environment=environment, dotenv=None, config=None, seed=None)


@pytest.mark.parametrize("how", ["setting", "HTTP_PROXY", "http_proxy"])
def test_a_far_provider_is_asked_through_the_proxy_whose_password_nobody_sees(run, how):
    async def main():
        async with (
            serving(answering) as far,
            serving(relaying(to=far.url.port, authorization=AUTHORIZATION)) as near,
        ):
            address = f"http://{USER}:{PASSWORD}@127.0.0.1:{near.url.port}"
            records = []
            client = AsyncClient(
                "m",
                base_url="http://far.example/v1",
                sinks=[records.append],
                **(
                    {"proxy": address, "credentials": known()}
                    if how == "setting"
                    else {"credentials": known(**{how: address})}
                ),
            )
            async with client:
                response = await client.chat("hello")
                shown = repr((client._settings, response, records, client.describe()))
            assert response.text == "far away"
            (asked,) = near.requests
            assert asked.startswith(b"POST http://far.example/v1/chat/completions HTTP/1.1\r\n")
            assert PASSWORD not in shown
            assert AUTHORIZATION not in shown

    run(main)


@pytest.mark.parametrize("settings", [{"proxy": None}, {}])
def test_this_machine_is_asked_directly_and_so_is_everybody_without_a_proxy(run, settings):
    async def main():
        async with serving(answering) as far:
            url = f"http://127.0.0.1:{far.url.port}/v1"
            # Nobody listens at the proxy.
            credentials = known(HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9")
            async with AsyncClient(
                "m", base_url=url, credentials=credentials, **settings
            ) as client:
                assert (await client.chat("hello")).text == "far away"

    run(main)


def test_a_proxy_that_refuses_is_not_asked_again_and_again(run):
    async def main():
        async with serving(relaying(authorization="Basic other")) as near:
            proxy = f"http://{USER}:{PASSWORD}@127.0.0.1:{near.url.port}"
            async with AsyncClient(
                "m", base_url="http://far.example/v1", credentials=known(), proxy=proxy
            ) as client:
                with pytest.raises(LLMUnavailableError, match="407") as caught:
                    await client.chat("hello")
            assert len(near.requests) == 1
            assert PASSWORD not in repr(caught.value)

    run(main)


def test_a_wrong_proxy_is_refused_when_the_client_is_made():
    with pytest.raises(LLMInvalidRequestError, match="socks5") as caught:
        AsyncClient("m", base_url="http://far.example/v1", proxy=f"socks5://a:{PASSWORD}@proxy:1")
    assert PASSWORD not in str(caught.value)
