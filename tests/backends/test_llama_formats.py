"""llama.cpp's own server, asked in each of the formats that it answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from headrace import Client

PATIENCE_S = 120.0
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def server(box_model) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "headrace.backends.managed.llama_server"]
    command = [*program, "--model", str(box_model.path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except urllib.error.URLError:
                    assert process.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.1)
            yield url
        finally:
            process.kill()


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("provider", "base"), [("llama-server", "/v1"), ("open-responses", "/v1"), ("anthropic", "")]
)
def test_every_format_gives_the_same_answer_whole_and_in_pieces(server, provider, base):
    settings = {"max_tokens": 12, "temperature": 0}
    with Client("m", provider=provider, base_url=server + base, api_key="none") as client:
        whole = client.chat(QUESTION, **settings)
        pieces = [e.delta_text or "" for e in client.stream_chat(QUESTION, **settings)]
    with Client("m", provider="llama-server", base_url=f"{server}/v1") as chats:
        expected = chats.chat(QUESTION, **settings).text
    assert whole.text == expected
    assert "".join(pieces) == expected
    assert whole.usage.completion_tokens == 12
