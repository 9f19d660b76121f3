"""A gateway whose backends are reached through proxies."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.served import Served, free_port
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.config import load

PASSWORD = "hush-hush-hush"
AUTHORIZATION = "Basic YW5uOmh1c2gtaHVzaC1odXNo"


class _Handler(BaseHTTPRequestHandler):
    """A proxy that knows the answer of everything behind it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, self.headers.get("proxy-authorization")))
        message = {"role": "assistant", "content": "by way of the proxy"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        said = json.dumps({**body, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


@pytest.fixture
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.block_on_close, server.seen = True, False, []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_backend_has_its_own_proxy_or_that_of_the_environment(proxy, tmp_path):
    port = proxy.server_address[1]
    address = f"http://ann:{PASSWORD}@127.0.0.1:{port}"
    served = Served(
        tmp_path,
        {
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "backends": [
                {"name": "own", "base_url": "http://own.example/v1", "proxy": address},
                {"name": "usual", "base_url": "http://usual.example/v1"},
                {"name": "spared", "base_url": "http://spared.invalid/v1", "max_retries": 0},
                {
                    "name": "none",
                    "base_url": "http://none.invalid/v1",
                    "proxy": None,
                    "max_retries": 0,
                },
                {
                    "name": "here",
                    "base_url": f"http://127.0.0.1:{free_port()}/v1",
                    "max_retries": 0,
                },
            ],
        },
        http_proxy=f"http://127.0.0.1:{port}",
        no_proxy="spared.invalid",
    )
    try:
        for name in ("own", "usual"):
            reply = served.chat(model=name)
            assert reply.json["choices"][0]["message"]["content"] == "by way of the proxy"
        for name in ("spared", "none", "here"):
            assert served.chat(model=name).status == 503
        assert proxy.seen == [
            ("http://own.example/v1/chat/completions", AUTHORIZATION),
            ("http://usual.example/v1/chat/completions", None),
        ]
        assert PASSWORD not in served.log
        assert AUTHORIZATION not in served.log
    finally:
        served.stop()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"'https://ann:{PASSWORD}@proxy:1'", ["https://***@proxy:1", "http:// only"]),
        (f"'ann:{PASSWORD}@:x'", ["***@:x", "http://host:port"]),
        ("5", ["5", "text"]),
    ],
)
def test_a_wrong_proxy_names_its_place_and_shows_no_password(tmp_path, value, words):
    path = tmp_path / "headrace.yaml"
    path.write_text(f"backends: [{{name: far, proxy: {value}}}]")
    with pytest.raises(LLMInvalidRequestError) as caught:
        load(path, environment={})
    for word in ("$.backends[0].proxy", *words):
        assert word in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_proxys_password_is_in_no_repr(tmp_path):
    path = tmp_path / "headrace.yaml"
    path.write_text(f"backends: [{{name: far, proxy: 'http://ann:{PASSWORD}@proxy:1'}}]")
    config = load(path, environment={})
    assert config.backends[0].proxy == f"http://ann:{PASSWORD}@proxy:1"
    assert PASSWORD not in repr(config)
    assert "proxy:1" in repr(config)
