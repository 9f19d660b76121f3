"""Models that are no language models through both clients, and texts and vectors by tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from client.faces import FACES, Face
from gateway.kserve_asking import adder
from headrace import (
    Client,
    Inference,
    InferResult,
    LLMCapabilityError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMUnavailableError,
    Tensor,
    tensor_of,
)
from headrace.backends.providers import PROVIDERS, Provider, register_provider
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import HttpRequest
from headrace.wire import kserve

X, Y = tensor_of("x", [1.0, 2.0]), tensor_of("y", [0.5, 0.25])
every_face = pytest.mark.parametrize("face", FACES)
TWICE = {"outputs": [2, None], "errors": [{"index": 1, "message": "no number"}], "model": "m"}


class Asked(Face):
    """A client of one provider that infers."""

    def infer(self, inputs: Any, **settings: Any) -> InferResult:
        if self.sync is not None:
            return self.sync.infer(inputs, **settings)
        return self._runner.run(self.of_loop.infer(inputs, **settings))


def client_of(
    script: Callable[[HttpRequest], ScriptedAnswer], model: str, **settings: Any
) -> tuple[Client, ScriptedTransport]:
    clock = ManualClock(auto=True)
    transport = ScriptedTransport(script, clock)
    return Client(model, clock=clock, transport=transport, **settings), transport


@pytest.mark.parametrize("name", ["kserve", "triton", "ovms"])
def test_tensors_are_asked_of_whoever_speaks_kserve(name):
    records: list[Any] = []
    client, transport = client_of(adder, f"{name}/adder", sinks=[records.append])
    with client:
        result = client.infer([X, Y], outputs=("sum",))
    assert list(result.tensor("sum").data) == [1.5, 2.25]
    with pytest.raises(LLMInvalidRequestError, match="there are: 'sum', 'count'"):
        result.tensor("total")
    (request,) = transport.requests
    assert request.url.target == "/v2/models/adder/infer"
    binary = kserve.HEADER_LENGTH in dict(request.headers)
    assert binary is PROVIDERS[name].inference.binary
    (record,) = records
    assert (record.operation, record.provider, record.status) == ("inference", name, 200)


def test_a_version_stands_in_the_address():
    client, transport = client_of(adder, "kserve/adder")
    with client, pytest.raises(LLMModelNotFoundError):
        client.infer([X, Y], version="7/8")
    assert transport.requests[0].url.target == "/v2/models/adder/versions/7%2F8/infer"


@every_face
def test_a_backend_that_cannot_be_reached_is_asked_again(face):
    answers = [ScriptedAnswer(fault="refuse"), ScriptedAnswer(body=b'{"outputs": []}')]
    with Asked(face, PROVIDERS["kserve"], answers, model="m") as client:
        assert client.infer([X]).outputs == ()
        (record,) = client.records
    assert [each.error_kind for each in record.attempts] == [LLMUnavailableError.__name__, None]


@every_face
def test_a_value_is_asked_about_and_several_with_their_problems(face):
    answers = [
        ScriptedAnswer(body=json.dumps({"output": {"label": "cat"}, "model": "m"}).encode()),
        ScriptedAnswer(body=json.dumps(TWICE).encode()),
    ]
    with Asked(face, PROVIDERS["inference"], answers, model="m") as client:
        one = client.infer("a picture", parameters={"top": 1})
        many = client.infer([1, "a"], batch=True)
        first, second = (json.loads(each.body) for each in client.requests)
        assert client.requests[0].url.target.endswith("/models/m/infer")
    assert (one.outputs, one.model_id) == (({"label": "cat"},), "m")
    assert first == {"input": "a picture", "parameters": {"top": 1}}
    assert second == {"inputs": [1, "a"]}
    assert many.outputs == (2, None)
    assert [(each.index, each.message) for each in many.problems] == [(1, "no number")]


@pytest.mark.parametrize(
    ("row", "inputs", "settings", "words"),
    [
        ("inference", [X], {}, "takes plain values"),
        ("inference", 1, {"outputs": ("y",)}, "'outputs'"),
        ("inference", 1, {"version": "1"}, "'version'"),
        ("inference", [], {"batch": True}, "at least one"),
        ("kserve", "text", {}, "must be a named tensor"),
        ("kserve", [tensor_of("h", [1.0], "FP16")], {}, "binary data only"),
        ("openai", [X], {"metadata": {"api_key": "k"}}, "asked by no tensors or values"),
    ],
)
def test_what_a_backend_does_not_take_is_refused_before_it_is_asked(row, inputs, settings, words):
    with Asked("async", PROVIDERS[row], [], model="m") as client:
        with pytest.raises(LLMInvalidRequestError, match=words):
            client.infer(inputs, **settings)
        assert client.requests == []


def text_server(request: HttpRequest) -> ScriptedAnswer:
    """Says what it was asked, by tensors."""
    assert isinstance(request.body, bytes)
    inbound = kserve.read_infer(request.body, dict(request.headers).get(kserve.HEADER_LENGTH))
    (text,) = inbound.request.inputs
    if text.name == "sentence":
        rows = [[float(len(each)), 1.0] for each in text.data]
        outputs: tuple[Tensor, ...] = (tensor_of("pooled", rows),)
    else:
        told = {"text": text.data[0].decode(), "parameters": inbound.request.parameters}
        outputs = (
            tensor_of("text_output", [json.dumps(told)]),
            tensor_of("finish_reason", ["length"]),
            tensor_of("num_input_tokens", [3], "UINT32"),
            tensor_of("num_output_tokens", [2], "UINT32"),
        )
    body, length = kserve.write_result(InferResult(outputs=outputs, model_id="m"), inbound)
    assert length is None
    return ScriptedAnswer(body=body, headers=(("content-type", "application/json"),))


def test_a_chat_by_tensors_is_the_text_of_its_one_turn():
    client, _ = client_of(text_server, "kserve/m")
    with client:
        answer = client.chat("Once", max_tokens=7, stop=("a",))
        *_, last = client.stream_chat("Once")
    told = json.loads(answer.text)
    assert told == {"text": "Once", "parameters": {"max_tokens": 7, "stop": "a"}}
    assert (answer.finish_reason, answer.usage.total_tokens) == ("length", 5)
    assert json.loads(last.response.text)["text"] == "Once"


def test_a_longer_conversation_wants_a_template():
    from headrace import LLMMessage

    turns = [
        LLMMessage(role="system", content="Be brief."),
        LLMMessage(role="user", content="Hello"),
        LLMMessage(role="assistant", content="Hi"),
        LLMMessage(role="user", content="Who?"),
    ]
    client, _ = client_of(text_server, "kserve/m")
    with client, pytest.raises(LLMCapabilityError, match="prompt_template") as caught:
        client.chat(turns)
    assert caught.value.param == "messages"
    row = evolve(PROVIDERS["kserve"], name="templated", prompt_template="chatml")
    with registered(row):
        client, _ = client_of(text_server, "templated/m")
        with client:
            text = json.loads(client.chat(turns).text)["text"]
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("setting", ["tools", "response_schema", "logprobs", "n", "logit_bias"])
def test_what_a_text_cannot_carry_is_refused_by_its_name(setting):
    from headrace import ToolSpec

    values = {"tools": (ToolSpec(name="a"),), "response_schema": {"type": "object"}, "n": 2}
    client, transport = client_of(text_server, "kserve/m")
    with client, pytest.raises(LLMCapabilityError) as caught:
        client.chat(
            "Once", **{setting: values.get(setting, {"1": 1.0} if "bias" in setting else True)}
        )
    assert caught.value.param == setting
    assert transport.requests == []


def test_vectors_come_by_tensors_where_the_row_names_them():
    own = Inference(embed_input="sentence", embed_output="pooled")
    with registered(evolve(PROVIDERS["kserve"], name="vectors", inference=own)):
        client, _ = client_of(text_server, "vectors/m")
        with client:
            result = client.embed(["a", "abc"])
    assert [list(each) for each in result.vectors] == [[1.0, 1.0], [3.0, 1.0]]


class registered:
    """A row that is known within the block."""

    def __init__(self, row: Provider) -> None:
        self.row = row

    def __enter__(self) -> None:
        register_provider(self.row)

    def __exit__(self, *_: object) -> None:
        del PROVIDERS[self.row.name]
