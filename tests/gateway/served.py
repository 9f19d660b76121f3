"""A real ``headrace serve`` process, as an operator starts it, and plain HTTP to talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 60.0
"""How long anything may take before we call it stuck; a busy machine is slow, not wrong."""

MODEL = "smollm2-135m-instruct"
_ANNOUNCED = re.compile(r"chat:\s+http://(\S+):(\d+)/v1")


@frozen(kw_only=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's form; fails where the answer has another one."""
        body = self.json
        assert set(body) == {"error"}, body
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        assert body["error"]["message"]
        return body["error"]


def until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """What ``what`` gives once that is true; an assertion fails if it never is."""
    end = time.monotonic() + patience_s
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"not within {patience_s:g} s: {what}"
        time.sleep(0.02)


def command(*arguments: str) -> list[str]:
    """The command line that runs ``headrace`` of this environment."""
    start = "from headrace.cli.main import main; main()"
    return [sys.executable, "-c", start, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of headrace's but the cache, and with ``more``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    if cache := os.environ.get("HEADRACE_CACHE"):
        kept["HEADRACE_CACHE"] = cache
    return {**kept, **more}


def run_headrace(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``headrace`` to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Served:
    """One running gateway."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object] | None = None,
        arguments: Sequence[str] = (),
        **variables: str,
    ) -> None:
        # On a busy machine two threads of one engine wait for one another more than they compute.
        # And OpenVINO, which takes seconds to load, is for the tests that are about it.
        # A folder of batches is one gateway's at a time, and several run side by side.
        usual = {
            "HEADRACE_THREADS": "1",
            "HEADRACE_ENGINE__OPENVINO": "false",
            "HEADRACE_BATCHES__FOLDER": str(folder / "batches"),
        }
        self.log_path = folder / "gateway.log"
        path = folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(dict(config or {})))
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command("serve", str(path), "--port", "0", *arguments),
                env=environment(HEADRACE_LOG_FORMAT="json", **{**usual, **variables}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            found = until(self._announced)
        except BaseException:
            self.stop()
            raise
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}"

    def _announced(self) -> re.Match[str] | None:
        assert self.process.poll() is None, f"it did not start: {self.log}"
        return _ANNOUNCED.search(self.log)

    def wait_until_ready(self) -> None:
        until(lambda: self.get("/ready").status == 200)

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.log_path.read_text()

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """The log lines proper, parsed."""
        whole = self.log.rpartition("\n")[0].splitlines()  # the last may be half written
        return [json.loads(line) for line in whole if line.startswith("{")]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The line about one request, which is written a moment after its answer."""
        return until(
            lambda: next(
                (
                    line
                    for line in self.log_lines
                    if line.get("request_id") == request_id and "status" in line
                ),
                None,
            )
        )

    def stop(self) -> int:
        """End it as an operator would, by force if that does not work; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Reply:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, dict(headers))
            return read_reply(connection)

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: object, headers: Mapping[str, str] = {}) -> Reply:
        """``body`` as it is where it is bytes, else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, raw, {"content-type": "application/json", **headers})

    def chat(self, text: str = "Say hello.", **settings: object) -> Reply:
        headers = settings.pop("headers", {})
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, **settings}
        return self.post("/v1/chat/completions", body, headers)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for sample in self.samples()
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def samples(self) -> list[Any]:
        text = self.get("/metrics", **self._metrics_headers).body.decode()
        return [s for family in text_string_to_metric_families(text) for s in family.samples]

    _metrics_headers: Mapping[str, str] = {}

    def show_key(self, key: str) -> None:
        """Read the metrics with this API key from now on."""
        self._metrics_headers = {"authorization": f"Bearer {key}"}

    def quiet(self) -> bool:
        """Whether no request runs or waits."""
        running = self.metric("vllm:num_requests_running")
        return running + self.metric("vllm:num_requests_waiting") == 0

    @contextlib.contextmanager
    def streaming(
        self, path: str = "/v1/chat/completions", **settings: object
    ) -> Iterator[http.client.HTTPResponse]:
        """A streamed answer that has begun; leaving the block closes its connection."""
        body = {"stream": True, "max_tokens": 4, **settings}
        if path.endswith("chat/completions"):
            body.setdefault("messages", [{"role": "user", "content": "Tell a long story."}])
        with contextlib.closing(self.connect()) as connection:
            headers = {"content-type": "application/json", **self._metrics_headers}
            connection.request("POST", path, json.dumps(body), headers)
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                assert response.readline().startswith(b"data: ")
                yield response

    def engine_pid(self, engine: str = "llamacpp") -> int:
        """The process id of the engine that answers everything, or of ``openvino``."""
        return until(
            lambda: next((p for p in children(self.process.pid) if engine in program(p)), None)
        )


def read_reply(connection: http.client.HTTPConnection) -> Reply:
    """The answer to what was sent on ``connection``."""
    with connection.getresponse() as response:
        headers = {key.lower(): value for key, value in response.getheaders()}
        return Reply(status=response.status, headers=headers, body=response.read())


def raw_exchange(served: Served, sent: bytes) -> Reply:
    """Send bytes as they are; the first answer that comes back."""
    with socket.create_connection((served.host, served.port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        with contextlib.closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            headers = {key.lower(): value for key, value in response.getheaders()}
            return Reply(status=response.status, headers=headers, body=response.read())


def children(pid: int) -> list[int]:
    """The child processes of ``pid``, by what /proc says."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == pid and after_name[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def program(pid: int) -> str:
    """The command line of ``pid``; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs; one that is dead and not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def free_port() -> int:
    """A loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
