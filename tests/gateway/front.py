"""A gateway in memory, in front of backends that answer from a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.contracts.convert import from_plain
from headrace.gateway.build import assemble, stand
from headrace.gateway.config import Config
from headrace.net.clock import World
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import HttpRequest

ASK = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
JSON = (("content-type", "application/json"),)
NO_ENGINE = {"engine": {"enabled": False}, "embeddings": {"enabled": False}}


def said(text: str, *, after_s: float = 0.0) -> ScriptedAnswer:
    """A whole answer in OpenAI's form, as a plain request gets it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    body = {"id": "r", "model": "m", "choices": [{**choice, "finish_reason": "stop"}]}
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode(), after_s=after_s)


def completed(text: str) -> ScriptedAnswer:
    """The same of a text completion."""
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    body = {"id": "r", "model": "m", "choices": [choice]}
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode())


def anthropic_said(text: str) -> ScriptedAnswer:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode())


def embedded(vector: list[float]) -> ScriptedAnswer:
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1}}
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode())


class Front:
    """A gateway in memory; each backend answers by its name from ``script``."""

    def __init__(self, config: dict[str, Any], script: dict[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.script = script
        self.clock = ManualClock(auto=True)
        backends = [
            {"name": name, "base_url": f"http://{name}/v1", "max_retries": 0}
            for name in script
            if name not in {each["name"] for each in config.get("backends", [])}
        ]
        self.backends = [*config.get("backends", []), *backends]
        self.world = World(transport=ScriptedTransport(self._answer, self.clock), clock=self.clock)
        self.assembly = assemble(self._config(config), None, self.world)
        self.gateway = self.assembly.gateway
        self.application = self.gateway.application()

    def _config(self, told: dict[str, Any]) -> Config:
        return from_plain({**NO_ENGINE, **told, "backends": self.backends}, Config)

    def reload(self, told: dict[str, Any]) -> None:
        """Answer by another configuration of the same backends."""
        before = self.gateway.standing
        self.gateway.standing = stand(self._config(told), self.assembly.own, self.world, before)

    def _answer(self, request: HttpRequest) -> ScriptedAnswer:
        name = request.url.host
        self.asked.append((name, json.loads(request.body or b"{}")))
        given = self.script[name]
        return given(request) if callable(given) else given

    async def ask(
        self, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        inbox = [{"type": "http.request", "body": json.dumps(body).encode()}]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if inbox:
                return inbox.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "path": path,
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
        }
        await self.application(scope, receive, send)
        whole = b"".join(each.get("body", b"") for each in sent)
        return sent[0]["status"], dict(sent[0]["headers"]), whole

    async def text(self, model: str = "m", **more: object) -> str:
        status, _, body = await self.ask("/v1/chat/completions", {"model": model, **ASK, **more})
        assert status == 200, body
        return json.loads(body)["choices"][0]["message"]["content"]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())
