"""Both clients behind one set of words, with scripted answers and a clock that moves by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace import AsyncClient, Client, LLMStreamEvent, StructuredEvent
from headrace.backends.providers import PROVIDERS, Provider
from headrace.contracts.record import CallRecord
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.net.transport import HttpRequest
from headrace.stores.credentials import Credentials

KEY = "sk-the-clients-own-key-0123456789"
FACES = ("sync", "async")
ROWS = tuple(row for row in PROVIDERS.values() if row.chat_path is not None)
BASE = "https://somewhere.example/base"


def credentials(row: Provider, *, key: str | None = KEY) -> Credentials:
    """Only an environment, which has what the row asks for."""
    environment = {}
    if key is not None and row.key_env:
        environment[row.key_env[0]] = key
    if row.base_url_env:
        environment[row.base_url_env[0]] = BASE
    return Credentials(environment=environment, dotenv=None, config=None, seed=None)


class Face:
    """A client of one provider; ``sent_at`` are the instants of its requests, from 0."""

    def __init__(
        self,
        kind: str,
        row: Provider,
        answers: Sequence[ScriptedAnswer],
        *,
        model: str = "some-model",
        **settings: Any,
    ) -> None:
        self.clock = ManualClock(monotonic=0.0, auto=True)
        self.sent_at: list[float] = []
        self.records: list[CallRecord] = []
        self._answers = iter(answers)
        self.transport = ScriptedTransport(self._next, self.clock)
        if row.base_url is None and not row.base_url_env:
            settings = {"provider": row.name, "base_url": BASE, **settings}
        else:
            model = f"{row.name}/{model}"
        settings = {"credentials": credentials(row), **settings}
        given = {"clock": self.clock, "transport": self.transport, "sinks": [self.records.append]}
        self.sync = Client(model, **settings, **given) if kind == "sync" else None
        self.of_loop = AsyncClient(model, **settings, **given)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Face:
        return self

    def __exit__(self, *_: object) -> None:
        if self.sync is not None:
            self.sync.close()
        else:
            self._runner.run(self.of_loop.aclose())
        self._runner.close()

    def _next(self, _: HttpRequest) -> ScriptedAnswer:
        self.sent_at.append(self.clock.monotonic())
        answer = next(self._answers, None)
        assert answer is not None, f"no answer is left for request {len(self.sent_at)}"
        return answer

    @property
    def requests(self) -> list[HttpRequest]:
        return self.transport.requests

    def chat(self, text: str = "hello", **settings: Any) -> Any:
        if self.sync is not None:
            return self.sync.chat(text, **settings)
        return self._runner.run(self.of_loop.chat(text, **settings))

    def stream_chat(self, text: str = "hello", **settings: Any) -> list[LLMStreamEvent]:
        if self.sync is not None:
            return list(self.sync.stream_chat(text, **settings))

        async def all_of_it() -> list[LLMStreamEvent]:
            return [event async for event in self.of_loop.stream_chat(text, **settings)]

        return self._runner.run(all_of_it())

    def stream_output(self, text: str = "hello", **settings: Any) -> list[StructuredEvent[Any]]:
        if self.sync is not None:
            return list(self.sync.stream_output(text, **settings))

        async def all_of_it() -> list[StructuredEvent[Any]]:
            return [event async for event in self.of_loop.stream_output(text, **settings)]

        return self._runner.run(all_of_it())
