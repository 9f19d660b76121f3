"""The KServe face between callers and backends of several formats, without a socket."""

from __future__ import annotations

import json

import pytest

from gateway.front import Front, completed, embedded, run, said
from gateway.kserve_asking import adder, ask
from headrace.contracts.inference import InferRequest, Tensor
from headrace.net.scripted import ScriptedAnswer
from headrace.wire import kserve

KSERVE = {"provider": "kserve", "base_url": "http://sums", "max_retries": 0}
X = Tensor(name="x", datatype="FP32", shape=(2,), data=[1.0, 2.0])
Y = Tensor(name="y", datatype="FP32", shape=(2,), data=[0.5, 0.25])
BOTH = InferRequest(inputs=(X, Y))
TEXT = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Once"]}
PATH = "/v2/models/m/infer"


def sums() -> Front:
    backend = {"name": "sums", "models": ["adder", "halver"], **KSERVE}
    return Front({"backends": [backend]}, {"sums": adder})


UPON = completed(" upon")


def texts(answer: ScriptedAnswer = UPON) -> Front:
    return Front(
        {"backends": [{"name": "a", "base_url": "http://a/v1", "models": ["m"]}]}, {"a": answer}
    )


def in_binary(request: InferRequest) -> tuple[bytes, dict[str, str]]:
    body, length = kserve.write_infer(request)
    return body, {kserve.HEADER_LENGTH.replace("-", "_"): str(length)}


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_go_on_to_a_backend_of_their_kind(binary):
    async def main() -> None:
        front = sums()
        body, length = kserve.write_infer(BOTH, binary=binary)
        headers = {} if length is None else {"inference_header_content_length": str(length)}
        got = await ask(front.application, "POST", "/v2/models/adder/infer", body, **headers)
        assert got.status == 200, got.body
        assert (b"inference-header-content-length" in got.headers) is binary
        assert list(got.result.tensor("sum").data) == [1.5, 2.25]
        assert (got.result.model_id, got.result.version) == ("adder", "3")
        assert got.headers[b"x-request-id"]

    run(main)


def test_outputs_come_as_they_were_asked_for():
    async def main() -> None:
        front = sums()
        inputs = [
            {"name": t.name, "datatype": "FP32", "shape": [2], "data": list(t.data)} for t in (X, Y)
        ]
        body = {
            "id": "42",
            "inputs": inputs,
            "outputs": [{"name": "sum", "parameters": {"binary_data": True}}],
            "parameters": {"own": 1},
        }
        got = await ask(front.application, "POST", "/v2/models/adder/infer", body)
        (only,) = got.result.outputs
        assert (only.name, list(only.data)) == ("sum", [1.5, 2.25])
        assert got.result.request_id == "42"
        assert got.result.parameters == {"seen": ["own"]}

    run(main)


def test_such_a_call_leaves_a_record_of_its_own_kind():
    async def main() -> None:
        front = sums()
        body, headers = in_binary(BOTH)
        await ask(front.application, "POST", "/v2/models/adder/infer", body, **headers)
        metrics = (await ask(front.application, "GET", "/metrics")).body.decode()
        (line,) = [
            each
            for each in metrics.splitlines()
            if each.startswith("gen_ai_server_request_duration_seconds_count")
            and 'gen_ai_operation_name="inference"' in each
        ]
        assert line.endswith(" 1")

    run(main)


def test_what_a_model_of_such_a_backend_takes_its_backend_tells():
    async def main() -> None:
        front = sums()
        got = await ask(front.application, "GET", "/v2/models/adder")
        assert [each["name"] for each in got.json["inputs"]] == ["x", "y"]
        assert (got.json["platform"], got.json["versions"]) == ("script", ["3"])

    run(main)


def test_an_error_of_the_backend_is_told_in_kserves_form():
    async def main() -> None:
        front = sums()
        body, headers = in_binary(BOTH)
        got = await ask(front.application, "POST", "/v2/models/halver/infer", body, **headers)
        assert got.status == 404
        assert got.error == "Model with requested name is not found"

    run(main)


def test_a_text_model_continues_texts():
    async def main() -> None:
        front = texts()
        body = {"inputs": [TEXT], "parameters": {"max_tokens": 4, "temperature": 0, "stop": "."}}
        got = await ask(front.application, "POST", PATH, body)
        assert got.status == 200, got.body
        text = got.result.tensor("text_output")
        assert (text.data, text.shape) == ((b" upon",), (1,))
        assert got.result.tensor("finish_reason").data == (b"stop",)
        (_, asked), *_ = front.asked
        assert (asked["prompt"], asked["max_tokens"], asked["stop"]) == ("Once", 4, ["."])

    run(main)


def test_settings_may_come_as_tensors_and_several_texts_lie_as_the_prompts_did():
    async def main() -> None:
        front = texts()
        two = {**TEXT, "shape": [2, 1], "data": ["Once", "Twice"]}
        more = [
            {"name": "max_tokens", "datatype": "INT32", "shape": [1, 1], "data": [5]},
            {"name": "temperature", "datatype": "FP32", "shape": [1], "data": [0.7]},
            {"name": "stop_words", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
        ]
        got = await ask(front.application, "POST", PATH, {"inputs": [two, *more]})
        assert got.result.tensor("text_output").shape == (2, 1)
        assert {asked["prompt"] for _, asked in front.asked} == {"Once", "Twice"}
        for _, asked in front.asked:
            assert (asked["max_tokens"], asked["temperature"]) == (5, 0.7)
            assert asked["stop"] == ["a", "b"]

    run(main)


def test_an_embedding_model_gives_a_row_for_each_text():
    async def main() -> None:
        front = texts(embedded([0.5, 0.25]))
        text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
        asked = {"inputs": [text], "outputs": [{"name": "embedding"}]}
        got = await ask(front.application, "POST", PATH, asked)
        (vectors,) = got.result.outputs
        assert (vectors.name, vectors.datatype, vectors.shape) == ("embedding", "FP32", (1, 2))
        assert list(vectors.data) == [0.5, 0.25]

    run(main)


def test_generate_answers_whole():
    async def main() -> None:
        front = texts()
        got = await ask(front.application, "POST", "/v2/models/m/generate", {"text_input": "Once"})
        assert got.json["text_output"] == " upon"
        assert (got.json["model_name"], got.json["finish_reason"]) == ("m", "stop")
        assert got.headers[b"content-type"] == b"application/json"

    run(main)


def test_generate_stream_answers_in_events():
    async def main() -> None:
        front = texts()
        path = "/v2/models/m/versions/1/generate_stream"
        got = await ask(front.application, "POST", path, {"text_input": "Once", "stream": True})
        assert got.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        events = [json.loads(each[6:]) for each in got.body.split(b"\n\n") if each]
        assert "".join(each["text_output"] for each in events) == " upon"
        assert events[-1]["finish_reason"] == "stop"

    run(main)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/v2/models/n/infer", {"inputs": [TEXT]}, 404, "there is no model 'n'"),
        ("GET", "/v2/models/n", None, 404, "there is no model 'n'"),
        ("GET", "/v2/models/n/ready", None, 404, "there is no model 'n'"),
        ("POST", "/v2/models/m/versions/7/infer", {"inputs": [TEXT]}, 404, "no version '7'"),
        ("GET", "/v2/models/m/versions/7", None, 404, "no version '7'"),
        ("POST", "/v2/models/m/versions/7/generate", {"text_input": "x"}, 404, "no version '7'"),
        (
            "POST",
            PATH,
            {"inputs": [{**TEXT, "name": "prompt"}]},
            400,
            "takes a BYTES tensor 'text_input'",
        ),
        ("POST", PATH, {"inputs": [{**TEXT, "datatype": "INT8", "data": [1]}]}, 400, "'BYTES'"),
        (
            "POST",
            PATH,
            {"inputs": [TEXT], "parameters": {"max_tokens": "a"}},
            400,
            "parameters.max_tokens",
        ),
        ("POST", PATH, {"inputs": [TEXT], "parameters": {"stream": True}}, 400, "/generate_stream"),
        (
            "POST",
            PATH,
            {"inputs": [TEXT], "outputs": [{"name": "logits"}]},
            400,
            "one of 'text_output'",
        ),
        (
            "POST",
            "/v2/models/m/generate",
            {"text_input": "x", "stream": True},
            400,
            "/generate_stream",
        ),
        ("POST", "/v2/models/m/generate", {}, 400, "'text_input'"),
        ("PUT", PATH, {}, 405, "does not take PUT"),
        ("GET", "/v2/nothing", None, 404, "nothing at '/v2/nothing'"),
    ],
)
def test_what_is_wrong_is_said_in_one_text(method, path, body, status, words):
    async def main() -> None:
        got = await ask(texts().application, method, path, b"" if body is None else body)
        assert got.status == status
        assert words in got.error

    run(main)


def test_a_setting_that_does_nothing_is_listed_as_dropped():
    async def main() -> None:
        asked = {"inputs": [TEXT], "parameters": {"priority": 1}}
        got = await ask(texts().application, "POST", PATH, asked)
        assert got.headers[b"x-headrace-dropped"] == b"priority"

    run(main)


def test_health_needs_no_key_and_all_else_does():
    async def main() -> None:
        front = Front(
            {
                "server": {"api_keys": ["right"]},
                "backends": [{"name": "a", "base_url": "http://a/v1"}],
            },
            {"a": said("x")},
        )
        assert (await ask(front.application, "GET", "/v2/health/live")).json == {"live": True}
        assert (await ask(front.application, "GET", "/v2/health/ready")).status in (200, 503)
        refused = await ask(front.application, "GET", "/v2")
        assert refused.status == 401
        assert "API key" in refused.error
        for headers in ({"authorization": "Bearer right"}, {"x_api_key": "right"}):
            got = await ask(front.application, "GET", "/v2", **headers)
            assert got.json["name"] == "headrace"
            assert "binary_tensor_data" in got.json["extensions"]

    run(main)


def test_the_index_lists_every_model():
    async def main() -> None:
        got = await ask(sums().application, "POST", "/v2/repository/index", b"{}")
        assert [each["name"] for each in got.json] == ["adder"]

    run(main)


def test_every_path_stands_in_the_openapi_document():
    async def main() -> None:
        front = texts()
        document = (await ask(front.application, "GET", "/openapi.json")).json
        described = {path for path in document["paths"] if path.startswith("/v2")}
        answered = {
            route.path.replace("{model:path}", "{model}")
            for route in front.application.inner.routes
            if route.path.startswith("/v2") and "/versions/" not in route.path
        }
        assert described == answered
        assert document["components"]["schemas"]["KServeInferRequest"]["required"] == ["inputs"]

    run(main)
