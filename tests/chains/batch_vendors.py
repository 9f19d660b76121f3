"""The batch APIs of OpenAI, Anthropic and Mistral in one small server, strict about what it is told.

Fields and words are those of the vendors' SDKs, which read its answers in ``test_batch_vendors``.
Below ``/openai/v1`` and ``/mistral/v1`` are files and batches of files, below ``/anthropic/v1`` are
message batches; each also answers live.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[str, int], Any]
"""From the prompt, and how often it was asked before: the text; or a status, or ``"expired"``."""

OPENAI_CREATE = {
    "input_file_id",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
}
MISTRAL_CREATE = {
    *("input_files", "requests", "endpoint", "model", "agent_id", "metadata", "timeout_hours")
}
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def need(holds: bool, message: str) -> None:
    if not holds:
        raise Refused(400, message)


class Vendors(ThreadingHTTPServer):
    """``asked`` counts prompts, in batches and live; ``live`` those asked live alone.

    ``seen`` has every call's method and path. A batch is in progress until ``ready`` is set and it
    was looked at ``looks`` times. ``reset`` has calls whose work is done and whose answer is lost,
    ``cut`` those whose answer comes in part, ``refuse`` statuses that calls get first, ``before`` what is done when a call comes.
    """

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.seen: list[str] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.ready = threading.Event()
        self.ready.set()
        self.looks = 0
        self.problem: str | None = None
        self.reset: list[str] = []
        self.cut: list[str] = []
        self.refuse: dict[str, list[int]] = {}
        self.before: Callable[[str], None] = lambda call: None

    def url(self, vendor: str) -> str:
        root = f"http://127.0.0.1:{self.server_address[1]}/{vendor}"
        return root if vendor == "anthropic" else f"{root}/v1"

    def calls(self, pattern: str) -> int:
        return sum(1 for each in self.seen if re.fullmatch(pattern, each))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers who leave are none of our errors."""

    # What a batch does

    def make(self, vendor: str, requests: list[tuple[str, dict[str, Any]]], **more: Any) -> dict:
        number = len(self.batches)
        batch = {
            "vendor": vendor,
            "id": f"{'msgbatch' if vendor == 'anthropic' else 'batch'}_{number}",
            "requests": requests,
            "created": time.time(),
            "status": "running",
            "looks": 0,
            "results": [],
            **more,
        }
        self.batches[batch["id"]] = batch
        return batch

    def look(self, batch: dict[str, Any]) -> None:
        batch["looks"] += 1
        if batch["status"] == "cancelling":
            self._end(batch, "cancelled")
        elif batch["status"] == "running" and batch["looks"] > self.looks and self.ready.is_set():
            if self.problem is not None:
                batch["status"] = "failed"
            else:
                self._end(batch, "completed")

    def _end(self, batch: dict[str, Any], status: str) -> None:
        batch["status"] = status
        done = len(batch["requests"]) // 2 if status == "cancelled" else len(batch["requests"])
        for number, (custom_id, body) in enumerate(batch["requests"]):
            if number >= done:
                batch["results"].append((custom_id, "cancelled", None))
                continue
            said = self.say(body)
            fate = said if said == "expired" else "errored" if isinstance(said, int) else "done"
            if fate == "done":
                said = (_message if batch["vendor"] == "anthropic" else _chat)(said, body)
            batch["results"].append((custom_id, fate, said))
        # In no order.
        batch["results"].sort(key=lambda each: each[0][::-1])
        if batch["vendor"] != "anthropic":
            write = _openai_line
            out = [write(*each) for each in batch["results"] if each[1] == "done"]
            errors = [write(*each) for each in batch["results"] if each[1] != "done"]
            batch["output"] = self.keep("out.jsonl", "batch_output", b"".join(out)) if out else None
            batch["error"] = (
                self.keep("err.jsonl", "batch_output", b"".join(errors)) if errors else None
            )

    def say(self, body: dict[str, Any]) -> Any:
        prompt = body["messages"][-1]["content"]
        prompt = prompt if isinstance(prompt, str) else prompt[0]["text"]
        with self.lock:
            before = self.asked[prompt]
            self.asked[prompt] += 1
        return self.answer(prompt, before)

    def keep(self, name: str, purpose: str, data: bytes) -> str:
        file = f"file-{len(self.files)}"
        self.files[file] = {
            "id": file,
            "object": "file",
            "bytes": len(data),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "sample_type": "batch_request",
            "source": "upload",
            "data": data,
        }
        return file


def _arguments(said: str, body: dict[str, Any]) -> Any:
    """What a tool is called with, where one is forced and there is something to call it with."""
    if "tool_choice" not in body:
        return None
    try:
        return json.loads(said)
    except ValueError:
        return None


def _chat(said: str, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said}
    arguments = _arguments(said, body)
    if arguments is not None:
        function = {"name": body["tools"][0]["function"]["name"], "arguments": said}
        calls = [{"id": "t", "type": "function", "function": function}]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "stop" if arguments is None else "tool_calls",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def _message(said: str, body: dict[str, Any]) -> dict[str, Any]:
    arguments = _arguments(said, body)
    content: dict[str, Any] = {"type": "text", "text": said}
    if arguments is not None:
        name = body["tools"][0]["name"]
        content = {"type": "tool_use", "id": "t", "name": name, "input": arguments}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [content],
        "stop_reason": "end_turn" if arguments is None else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def _openai_line(custom_id: str, fate: str, said: Any) -> bytes:
    response, error = None, None
    if fate == "done":
        response = {"status_code": 200, "request_id": "r", "body": said}
    elif fate == "errored":
        told = {"error": {"message": f"told {said}", "type": "some_error", "code": None}}
        response = {"status_code": said, "request_id": "r", "body": told}
    else:
        error = {"code": f"batch_{fate}", "message": f"This request was {fate}."}
    line = {"id": f"r_{custom_id}", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(line).encode() + b"\n"


def _anthropic_line(custom_id: str, fate: str, said: Any) -> bytes:
    if fate == "done":
        result: dict[str, Any] = {"type": "succeeded", "message": said}
    elif fate == "errored":
        kinds = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
        told = {"type": kinds.get(said, "api_error"), "message": f"told {said}"}
        result = {"type": "errored", "error": {"type": "error", "error": told, "request_id": None}}
    else:
        result = {"type": "canceled" if fate == "cancelled" else fate}
    return json.dumps({"custom_id": custom_id, "result": result}).encode() + b"\n"


def _openai_batch(server: Vendors, batch: dict[str, Any]) -> dict[str, Any]:
    status = {"running": "in_progress"}.get(batch["status"], batch["status"])
    fates = Counter(fate for _, fate, _ in batch["results"])
    errors = None
    if status == "failed":
        told = {
            "code": "token_limit_exceeded",
            "message": server.problem,
            "line": None,
            "param": None,
        }
        errors = {"object": "list", "data": [told]}
    return {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "errors": errors,
        "input_file_id": batch["input"],
        "completion_window": "24h",
        "status": status,
        "output_file_id": batch.get("output"),
        "error_file_id": batch.get("error"),
        "created_at": int(batch["created"]),
        "request_counts": {
            "total": len(batch["requests"]),
            "completed": fates["done"],
            "failed": len(batch["results"]) - fates["done"],
        },
        "metadata": batch["metadata"],
    }


def _mistral_job(server: Vendors, batch: dict[str, Any]) -> dict[str, Any]:
    words = {
        "running": "RUNNING",
        "completed": "SUCCESS",
        "failed": "FAILED",
        "cancelling": "CANCELLATION_REQUESTED",
        "cancelled": "CANCELLED",
    }
    fates = Counter(fate for _, fate, _ in batch["results"])
    failed = batch["status"] == "failed"
    return {
        "id": batch["id"],
        "object": "batch",
        "input_files": [batch["input"]],
        "endpoint": batch["endpoint"],
        "model": batch["model"],
        "metadata": batch["metadata"],
        "errors": [{"message": server.problem, "count": 1}] if failed else [],
        "status": words[batch["status"]],
        "output_file": batch.get("output"),
        "error_file": batch.get("error"),
        "created_at": int(batch["created"]),
        "total_requests": len(batch["requests"]),
        "completed_requests": len(batch["results"]),
        "succeeded_requests": fates["done"],
        "failed_requests": len(batch["results"]) - fates["done"],
    }


def _anthropic_batch(server: Vendors, batch: dict[str, Any]) -> dict[str, Any]:
    ended = batch["status"] in ("completed", "cancelled")
    fates = Counter(fate for _, fate, _ in batch["results"])
    created = datetime.fromtimestamp(batch["created"], timezone.utc)
    stamp = created.isoformat().replace("+00:00", "Z")
    url = f"{server.url('anthropic')}/v1/messages/batches/{batch['id']}/results"
    return {
        "id": batch["id"],
        "type": "message_batch",
        "processing_status": "ended"
        if ended
        else ("canceling" if batch["status"] == "cancelling" else "in_progress"),
        "request_counts": {
            "processing": 0 if ended else len(batch["requests"]),
            "succeeded": fates["done"],
            "errored": fates["errored"],
            "canceled": fates["cancelled"],
            "expired": fates["expired"],
        },
        "created_at": stamp,
        "expires_at": stamp,
        "ended_at": stamp if ended else None,
        "cancel_initiated_at": stamp if batch.get("cancelled") else None,
        "archived_at": None,
        "results_url": url if ended else None,
    }


_TELL = {"openai": _openai_batch, "mistral": _mistral_job, "anthropic": _anthropic_batch}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Vendors

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self._body())

    def _body(self) -> bytes:
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _handle(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        _, vendor, _, *rest = parts.path.split("/")
        path = "/".join(rest)
        call = f"{self.command} {path}"
        self.server.seen.append(call)
        self.server.before(call)
        if waiting := self.server.refuse.get(call):
            self._send(waiting.pop(0), b'{"error": {"message": "not now"}}')
            return
        try:
            said = self._answer(vendor, path, parse_qs(parts.query), body)
            status, data = 200, said if isinstance(said, bytes) else json.dumps(said).encode()
        except Refused as error:
            status = error.status
            told = {"type": "invalid_request_error", "message": error.message}
            data = json.dumps({"type": "error", "error": told}).encode()
        if call in self.server.reset:
            self.server.reset.remove(call)
            self.close_connection = True
            self.connection.close()
            return
        if call in self.server.cut:
            self.server.cut.remove(call)
            self._send(status, data[: len(data) // 2], len(data))
            self.close_connection = True
            return
        self._send(status, data)

    def _send(self, status: int, data: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data) if length is None else length))
        if status == 429:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, vendor: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
        server = self.server
        batches = {"openai": "batches", "mistral": "batch/jobs", "anthropic": "messages/batches"}
        base = batches[vendor]
        if vendor == "anthropic":
            need("anthropic-version" in self.headers, "anthropic-version: header is required")
        if path in ("chat/completions", "messages"):
            return self._live(vendor, json.loads(body))
        if path == "files" and self.command == "POST":
            return self._upload(body)
        if found := re.fullmatch(r"files/([^/]+)/content", path):
            return self._file(found[1])["data"]
        if path == base and self.command == "POST":
            make = {"openai": self._openai, "mistral": self._mistral, "anthropic": self._anthropic}
            return _TELL[vendor](server, make[vendor](json.loads(body)))
        if path == base:
            return self._list(vendor, query)
        if found := re.fullmatch(rf"{base}/([^/]+)(/cancel|/results)?", path):
            batch = server.batches.get(found[1])
            if batch is None or batch["vendor"] != vendor:
                raise Refused(404, f"No batch found with id '{found[1]}'.")
            if found[2] == "/results":
                need(batch["status"] in ("completed", "cancelled"), "the batch has not ended")
                return b"".join(_anthropic_line(*each) for each in batch["results"])
            if found[2] == "/cancel":
                need(batch["status"] in ("running", "cancelling"), "the batch has ended")
                batch["cancelled"] = True
                batch["status"] = "cancelling"
            else:
                server.look(batch)
            return _TELL[vendor](server, batch)
        raise Refused(404, f"no such path: {path}")

    def _live(self, vendor: str, body: dict[str, Any]) -> Any:
        server = self.server
        said = server.say(body)
        server.live[str(body["messages"][-1]["content"])] += 1
        if isinstance(said, int):
            raise Refused(said, f"told {said}")
        return _message(said, body) if vendor == "anthropic" else _chat(said, body)

    def _upload(self, body: bytes) -> Any:
        kind = self.headers["content-type"]
        whole = message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
        fields: dict[str, Message] = {}
        for part in whole.get_payload():  # type: ignore[union-attr]
            assert isinstance(part, Message)
            fields[str(part.get_param("name", header="content-disposition"))] = part
        need(set(fields) <= {"purpose", "file", "expires_after[anchor]"}, f"fields: {set(fields)}")
        need(fields["purpose"].get_payload() == "batch", "purpose must be 'batch'")
        name = fields["file"].get_filename() or ""
        need(name.endswith(".jsonl"), "the file must be .jsonl")
        data = fields["file"].get_payload(decode=True)
        assert isinstance(data, bytes)
        file = self.server.keep(name, "batch", data)
        return {k: v for k, v in self.server.files[file].items() if k != "data"}

    def _file(self, name: str) -> dict[str, Any]:
        if name not in self.server.files:
            raise Refused(404, f"No such File object: {name}")
        return self.server.files[name]

    def _openai(self, asked: dict[str, Any]) -> dict[str, Any]:
        need(set(asked) <= OPENAI_CREATE, f"unknown fields: {set(asked) - OPENAI_CREATE}")
        need(asked.get("endpoint") == "/v1/chat/completions", "endpoint")
        need(asked.get("completion_window") == "24h", "completion_window must be '24h'")
        self._check_metadata(asked)
        requests = []
        for line in self._file(asked["input_file_id"])["data"].splitlines():
            one = json.loads(line)
            need(set(one) == {"custom_id", "method", "url", "body"}, f"line has {set(one)}")
            need(one["method"] == "POST" and one["url"] == asked["endpoint"], "method and url")
            need(isinstance(one["body"].get("model"), str), "body.model is missing")
            requests.append((one["custom_id"], one["body"]))
        self._check(requests)
        return self.server.make(
            "openai",
            requests,
            endpoint=asked["endpoint"],
            input=asked["input_file_id"],
            metadata=asked.get("metadata"),
        )

    def _mistral(self, asked: dict[str, Any]) -> dict[str, Any]:
        need(set(asked) <= MISTRAL_CREATE, f"unknown fields: {set(asked) - MISTRAL_CREATE}")
        need(asked.get("endpoint") == "/v1/chat/completions", "endpoint")
        need(bool(asked.get("model")), "model is missing")
        self._check_metadata(asked)
        (file,) = asked["input_files"]
        requests = []
        for line in self._file(file)["data"].splitlines():
            one = json.loads(line)
            need(set(one) <= {"custom_id", "body"}, f"line has {set(one)}")
            need("model" not in one["body"], "the job names the model")
            requests.append((one["custom_id"], one["body"]))
        self._check(requests)
        return self.server.make(
            "mistral",
            requests,
            endpoint=asked["endpoint"],
            input=file,
            metadata=asked.get("metadata"),
            model=asked["model"],
        )

    def _anthropic(self, asked: dict[str, Any]) -> dict[str, Any]:
        need(set(asked) == {"requests"}, f"fields: {set(asked)}")
        requests = []
        for one in asked["requests"]:
            need(set(one) == {"custom_id", "params"}, f"a request has {set(one)}")
            params = one["params"]
            need({"model", "max_tokens", "messages"} <= set(params), f"params: {set(params)}")
            need("stream" not in params, "params.stream is not allowed")
            need(bool(CUSTOM_ID.fullmatch(one["custom_id"])), "custom_id")
            requests.append((one["custom_id"], params))
        self._check(requests)
        return self.server.make("anthropic", requests)

    def _check(self, requests: list[tuple[str, dict[str, Any]]]) -> None:
        need(bool(requests), "a batch needs one request at least")
        ids = [custom_id for custom_id, _ in requests]
        need(len(set(ids)) == len(ids), "custom_id is not unique")
        for _, body in requests:
            need(bool(body.get("messages")), "messages are missing")
            need("stream" not in body, "stream is not allowed")

    def _check_metadata(self, asked: dict[str, Any]) -> None:
        metadata = asked.get("metadata") or {}
        need(len(metadata) <= 16, "metadata has too many entries")
        need(all(len(k) <= 64 and len(str(v)) <= 512 for k, v in metadata.items()), "metadata")

    def _list(self, vendor: str, query: dict[str, list[str]]) -> Any:
        own = [each for each in self.server.batches.values() if each["vendor"] == vendor]
        told = [_TELL[vendor](self.server, each) for each in reversed(own)]
        if vendor == "mistral":
            size, page = int(query["page_size"][0]), int(query["page"][0])
            return {"object": "list", "data": told[size * page :][:size], "total": len(told)}
        names = [each["id"] for each in told]
        after = query.get("after") or query.get("after_id")
        start = names.index(after[0]) + 1 if after else 0
        page_of = told[start : start + int(query["limit"][0])]
        return {
            "object": "list",
            "data": page_of,
            "first_id": page_of[0]["id"] if page_of else None,
            "last_id": page_of[-1]["id"] if page_of else None,
            "has_more": start + len(page_of) < len(told),
        }


@contextmanager
def vendors(answer: Answer = lambda prompt, before: f"<{prompt}>") -> Iterator[Vendors]:
    server = Vendors(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.ready.set()
        server.shutdown()
        thread.join()
        server.server_close()
