"""A provider with more of OpenAI's API than models: it keeps what it was asked and says what it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import frozen


@frozen
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@frozen
class Says:
    """An answer: its status, body and headers; with ``cut`` the connection ends midway."""

    body: bytes = b"{}"
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    chunks: tuple[bytes, ...] = ()


class Keeper:
    """Answers each path with what ``says`` has for it, or an empty object; ``asked`` is what came."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.says: dict[str, Says] = {}
        keeper = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                keeper.asked.append(Asked(self.command, self.path, headers, body))
                said = keeper.says.get(self.path.partition("?")[0], Says())
                with contextlib.suppress(OSError):
                    self.send_response(said.status)
                    self.send_header("content-type", said.content_type)
                    for name, value in said.headers:
                        self.send_header(name, value)
                    if said.chunks:
                        self.send_header("transfer-encoding", "chunked")
                    else:
                        self.send_header("content-length", str(len(said.body) + said.cut))
                    self.end_headers()
                    self.wfile.write(said.body if not said.chunks else b"")
                    for chunk in said.chunks:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                        self.wfile.flush()
                    if said.chunks and not said.cut:
                        self.wfile.write(b"0\r\n\r\n")
                if said.cut:
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = do_PUT = _answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                """A caller that left is none of the tests' business."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def backend(self, **settings: object) -> dict[str, object]:
        """What a configuration says of it."""
        return {
            "name": "kept",
            "base_url": f"{self.url}/v1",
            "models": ["m", "whisper-*", "gpt-*", "tts-*", "dall-*", "omni-*"],
            "api_key": "sk-theirs",
            "max_retries": 0,
            "breaker_failures": 0,
            **settings,
        }

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def keeper() -> Iterator[Keeper]:
    """One that runs within the block."""
    made = Keeper()
    made.start()
    try:
        yield made
    finally:
        made.stop()
