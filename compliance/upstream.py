"""A provider that answers every request in OpenAI's form with the same few words, at once."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TEXT = "It is sunny."
_USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
_SAME = {"id": "c-1", "created": 1767225600, "model": "m"}


@contextlib.contextmanager
def answering() -> Iterator[str]:
    """The base URL of one that runs until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_PICTURES = b'{"created": 1767225600, "data": [{"url": "https://a.example/a.png"}]}'
# What services beside a model's answers say, whatever they are asked.
_SERVICES = {
    "audio/transcriptions": ("application/json", b'{"text": "It is sunny."}'),
    "audio/translations": ("application/json", b'{"text": "It is sunny."}'),
    "audio/speech": ("audio/mpeg", b"\xff\xfb\x90\x00"),
    "images/generations": ("application/json", _PICTURES),
    "images/edits": ("application/json", _PICTURES),
    "images/variations": ("application/json", _PICTURES),
    "moderations": ("application/json", b'{"id": "m-1", "model": "m", "results": []}'),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = self.path.removeprefix("/v1/")
        if kind in _SERVICES:
            self._send(*_SERVICES[kind])
            return
        asked = json.loads(body)
        choices = range(asked.get("n") or 1)
        if kind == "embeddings":
            inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
            vectors = [
                {"object": "embedding", "index": at, "embedding": [0.6, 0.8]}
                for at in range(len(inputs))
            ]
            usage = {"prompt_tokens": 4, "total_tokens": 4}
            self._answer({"object": "list", "model": "m", "data": vectors, "usage": usage})
        elif asked.get("stream"):
            self._stream(kind, choices)
        else:
            pieces = [_choice(kind, at, whole=True) for at in choices]
            name = "chat.completion" if kind == "chat/completions" else "text_completion"
            self._answer({**_SAME, "object": name, "choices": pieces, "usage": _USAGE})

    def _answer(self, body: Any) -> None:
        self._send("application/json", json.dumps(body).encode())

    def _stream(self, kind: str, choices: range) -> None:
        name = "chat.completion.chunk" if kind == "chat/completions" else "text_completion"
        pieces = [[_choice(kind, at, whole=False)] for at in choices]
        chunks = [{**_SAME, "object": name, "choices": piece} for piece in [*pieces, []]]
        chunks[-1]["usage"] = _USAGE
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self._send("text/event-stream", "".join([*events, "data: [DONE]\n\n"]).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _choice(kind: str, at: int, *, whole: bool) -> dict[str, Any]:
    if kind == "completions":
        return {"index": at, "text": _TEXT, "logprobs": None, "finish_reason": "stop"}
    message = {"role": "assistant", "content": _TEXT}
    return {"index": at, ("message" if whole else "delta"): message, "finish_reason": "stop"}
