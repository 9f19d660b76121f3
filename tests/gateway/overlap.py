"""A server that ranks by shared words, in the forms of Cohere, Jina and TEI.

What it computes is simple, but it computes it: a document's score is the share of the query's words
that it has. Its classes are whether a text says "good" or "bad" more often.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k3j9-only-the-backend-may-see-this"


def score(query: str, document: str) -> float:
    """The share of the words in ``query`` that ``document`` has."""
    asked = set(query.lower().split())
    return len(asked & set(document.lower().split())) / len(asked)


def classes(text: str) -> list[dict[str, Any]]:
    """``text`` as good or bad, the likelier first."""
    words = text.lower().split()
    good, bad = words.count("good") + 1, words.count("bad") + 1
    found = [("GOOD", good / (good + bad)), ("BAD", bad / (good + bad))]
    found.sort(key=lambda each: -each[1])
    return [{"label": label, "score": value} for label, value in found]


class Overlap(ThreadingHTTPServer):
    """``seen`` holds the path, headers and body of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def overlap() -> Iterator[Overlap]:
    """One that runs within the block."""
    server = Overlap()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Overlap
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, body))
        if "fail" in str(body.get("query")):
            self._send(*self._failure())
            return
        answer = {"/rerank": self._tei, "/predict": self._predict}.get(self.path, self._shared)
        self._send(200, answer(body))

    def do_GET(self) -> None:
        self._send(200, {"model_id": "overlap", "data": [], "models": []})

    def _failure(self) -> tuple[int, Any]:
        if self.path == "/rerank":
            return 429, {"error": "Model is overloaded", "error_type": "Overloaded"}
        if self.path == "/v2/rerank":
            return 429, {"id": "1", "message": "you are past the limit"}
        return 429, {"detail": "you are past the limit"}

    def _shared(self, body: Any) -> Any:
        scores = [score(body["query"], each) for each in body["documents"]]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])[: body.get("top_n")]
        results = [{"index": place, "relevance_score": scores[place]} for place in order]
        words = sum(len(each.split()) for each in (body["query"], *body["documents"]))
        if self.path == "/v2/rerank":
            meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
            return {"id": "c-1", "results": results, "meta": meta}
        usage = {"total_tokens": words, "prompt_tokens": words}
        return {"model": body.get("model"), "results": results, "usage": usage}

    def _tei(self, body: Any) -> Any:
        scores = [score(body["query"], each) for each in body["texts"]]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return [{"index": place, "score": scores[place]} for place in order]

    def _predict(self, body: Any) -> Any:
        return [classes(" ".join(each)) for each in body["inputs"]]

    def _send(self, status: int, answer: Any) -> None:
        said = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if isinstance(answer, list):
            self.send_header("x-compute-tokens", "11")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is for failures."""
