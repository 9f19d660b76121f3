"""KServe's REST calls to a gateway in memory, and backends of its kind that answer from a script."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from attrs import frozen

from headrace.contracts.inference import InferResult, Tensor
from headrace.net.scripted import ScriptedAnswer
from headrace.net.transport import HttpRequest
from headrace.wire import kserve


@frozen
class Got:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one text of an error in KServe's form."""
        assert set(self.json) == {"error"}, self.json
        return str(self.json["error"])

    @property
    def result(self) -> InferResult:
        length = self.headers.get(kserve.HEADER_LENGTH.encode())
        return kserve.read_result(self.body, None if length is None else length.decode())


async def ask(
    application: Any, method: str, path: str, body: bytes | object = b"", **headers: str
) -> Got:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inbox = [{"type": "http.request", "body": raw}]
    sent: list[Any] = []

    async def receive() -> Any:
        if inbox:
            return inbox.pop()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }
    await application(scope, receive, send)
    whole = b"".join(each.get("body", b"") for each in sent)
    return Got(sent[0]["status"], dict(sent[0]["headers"]), whole)


def adder(request: HttpRequest) -> ScriptedAnswer:
    """A backend whose model ``adder`` gives the sum of x and y, in KServe's form."""
    path = request.url.target
    if path == "/v2/health/ready":
        return ScriptedAnswer()
    if path == "/v2/models/adder":
        info = {"datatype": "FP32", "shape": [-1]}
        body = {
            "name": "adder",
            "versions": ["3"],
            "platform": "script",
            "inputs": [{"name": "x", **info}, {"name": "y", **info}],
            "outputs": [{"name": "sum", **info}],
        }
        return ScriptedAnswer(body=json.dumps(body).encode())
    told = dict(request.headers)
    assert isinstance(request.body, bytes)
    inbound = kserve.read_infer(request.body, told.get(kserve.HEADER_LENGTH))
    if path != "/v2/models/adder/infer":
        return ScriptedAnswer(
            status=404, body=b'{"error": "Model with requested name is not found"}'
        )
    x, y = inbound.request.inputs
    data = [a + b for a, b in zip(x.data, y.data, strict=True)]
    result = InferResult(
        outputs=(
            Tensor(name="sum", datatype="FP32", shape=x.shape, data=data),
            Tensor(name="count", datatype="INT64", shape=(1,), data=[len(data)]),
        ),
        model_id="adder",
        version="3",
        parameters={"seen": sorted(inbound.request.parameters)},
    )
    body, length = kserve.write_result(result, inbound)
    headers = () if length is None else ((kserve.HEADER_LENGTH, str(length)),)
    return ScriptedAnswer(body=body, headers=headers)
