"""KServe's calls at a gateway of several workers: whichever takes one, the answer is the same."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.far import NO_MODEL
from gateway.front import completed
from gateway.kserve_asking import adder
from gateway.served import Served
from headrace.net.scripted import ScriptedAnswer
from headrace.net.transport import HttpRequest, Url


class Answers(BaseHTTPRequestHandler):
    """Sums in KServe's form, and a text in OpenAI's."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._say(ScriptedAnswer(body=b'{"object": "list", "data": [{"id": "m"}]}'))
            return
        self._say(adder(HttpRequest(url=Url(target=self.path))))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.path == "/v1/completions":
            self._say(completed(" upon a time"))
            return
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        asked = HttpRequest(method="POST", url=Url(target=self.path), headers=headers, body=body)
        self._say(adder(asked))

    def _say(self, answer: ScriptedAnswer) -> None:
        body = b"".join(piece.data for piece in answer.pieces)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    far = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=far.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{far.server_port}"
    config = {
        **NO_MODEL,
        "server": {"workers": 2},
        "backends": [
            {"name": "sums", "provider": "kserve", "base_url": url, "models": ["adder"]},
            {"name": "texts", "base_url": f"{url}/v1", "models": ["m"]},
        ],
    }
    gateway = Served(tmp_path_factory.mktemp("kserve"), config)
    try:
        gateway.wait_until_ready()
        yield gateway
    finally:
        gateway.stop()
        far.shutdown()
        thread.join()
        far.server_close()


def sums(served, start):
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [2], "data": [start, 1]} for name in ("x", "y")
    ]
    reply = served.post("/v2/models/adder/infer", {"inputs": inputs})
    assert reply.status == 200, reply.body
    return {each["name"]: each["data"] for each in reply.json["outputs"]}["sum"]


def test_tensors_go_on_from_whichever_worker_and_are_counted_together(served):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda start: sums(served, start), range(32)))
    assert answers == [[2 * start, 2] for start in range(32)]
    counted = served.metric(
        "gen_ai_server_request_duration_seconds_count", gen_ai_operation_name="inference"
    )
    assert counted == 32


def test_a_text_is_generated_from_whichever_worker(served):
    asked = {"text_input": "Once", "max_tokens": 4}
    with ThreadPoolExecutor(4) as pool:
        asks = [asked] * 16
        replies = list(pool.map(lambda b: served.post("/v2/models/m/generate", b), asks))
    assert {reply.json["text_output"] for reply in replies} == {" upon a time"}


def test_what_is_known_of_a_model_is_told_by_whichever_worker(served):
    for _ in range(8):
        assert served.get("/v2/models/adder").json["versions"] == ["3"]
        assert served.get("/v2/models/adder/ready").status == 200
        assert served.get("/v2/health/ready").json == {"ready": True}
        names = {each["name"] for each in served.post("/v2/repository/index", {}).json}
        assert names == {"adder", "m"}


def test_a_wrong_tensor_is_refused_by_its_name_in_kserves_form(served):
    wrong = {"name": "x", "datatype": "FP32", "shape": [3], "data": [1]}
    reply = served.post("/v2/models/adder/infer", {"inputs": [wrong]})
    assert reply.status == 400
    assert set(json.loads(reply.body)) == {"error"}
    assert "x" in reply.json["error"]
