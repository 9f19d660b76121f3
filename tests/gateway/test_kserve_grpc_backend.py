"""A gateway whose backend is asked by gRPC: its own port for that, so both ends are ours and real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.far import NO_MODEL, far
from gateway.served import Served, free_port, until

TEXT = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Once"]}
KEY = {"authorization": "Bearer right"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    common = {"provider": "kserve", "base_url": f"grpc://127.0.0.1:{port}", "max_retries": 0}
    with far("one") as (one,):
        again = {**common, "name": "again", "models": ["again"], "model": "m", "api_key": "right"}
        locked = {**again, "name": "locked", "models": ["locked"], "api_key": "wrong-0123456789"}
        nobody = {**again, "name": "nobody", "models": ["nobody"]}
        nobody["base_url"] = f"grpc://127.0.0.1:{free_port()}"
        config: dict[str, Any] = {
            **NO_MODEL,
            "server": {"grpc_port": port, "api_keys": ["right"]},
            "backends": [one.backend(), again, locked, nobody],
        }
        served = Served(tmp_path_factory.mktemp("grpc"), config)
        try:
            until(lambda: "gRPC service is at" in served.log)
            yield served
        finally:
            served.stop()


def test_tensors_go_on_to_it_and_come_back(served):
    reply = served.post(
        "/v2/models/again/infer", {"inputs": [TEXT]}, {**KEY, "x-request-id": "by-tensors"}
    )
    assert reply.status == 200, reply.body
    texts = {each["name"]: each["data"] for each in reply.json["outputs"]}
    assert texts["text_output"] == ["one m no key"]
    assert texts["finish_reason"] == ["stop"]
    assert served.line_of("by-tensors")["status"] == 200


def test_it_tells_what_its_model_takes(served):
    reply = served.get("/v2/models/again", **KEY)
    assert reply.status == 200, reply.body
    assert [each["name"] for each in reply.json["inputs"]] == ["text_input"]


def test_a_chat_is_answered_whole_and_as_a_stream(served):
    whole = served.chat(model="again", max_tokens=5, headers=KEY)
    assert whole.status == 200, whole.body
    assert whole.json["choices"][0]["message"]["content"] == "one m no key"
    assert whole.json["usage"]["total_tokens"] == 10
    body = {"model": "again", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    reply = served.post("/v1/chat/completions", body, KEY)
    events = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(each)["choices"][0]["delta"] for each in events if '"choices":[{' in each]
    assert "".join(each.get("content") or "" for each in deltas) == "one m no key"


@pytest.mark.parametrize("model", ["locked", "nobody"])
def test_what_goes_wrong_there_is_said_and_no_key_with_it(served, model):
    reply = served.post("/v2/models/" + model + "/infer", {"inputs": [TEXT]}, KEY)
    assert reply.status in (502, 503), reply.body
    words = {"locked": "refused this server's own credentials", "nobody": "UNAVAILABLE"}[model]
    assert words in reply.json["error"]
    assert "wrong-0123456789" not in reply.body.decode() + served.log
