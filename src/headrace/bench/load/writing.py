"""Requests as ready bytes, head and body: written ahead of their time, never inside what is timed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import chain
from time import monotonic
from typing import Any

from attrs import frozen

from headrace.bench.load.scan import CODECS
from headrace.bench.load.target import PATHS, Target
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import Asked, LoadPlan
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_messages import messages_from_wire

_AHEAD = 256
_AHEAD_BYTES = 16 * 1024 * 1024
_AT_A_TIME_S = 0.0003


class Writer:
    """Writes what is asked in the words of the plan's face."""

    def __init__(self, plan: LoadPlan, target: Target, model: str | None) -> None:
        self._plan = plan
        self._model = model
        self._codec: Any = import_module(CODECS[plan.kind])
        self._options = _options(plan)
        self._stream = plan.stream and plan.kind not in ("embeddings", "rerank")
        self._head = (
            f"POST {target.base}{PATHS[plan.kind]} HTTP/1.1\r\n".encode()
            + target.head
            + b"content-length: "
        )

    def write(self, asked: Asked, history: tuple[dict[str, object], ...] = ()) -> bytes:
        """``asked`` as bytes; ``history`` are the turns before it."""
        body = self._body(asked, history)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def _body(self, asked: Asked, history: tuple[dict[str, object], ...]) -> bytes:
        kind = self._plan.kind
        if kind == "embeddings":
            from headrace.wire import openai_embeddings

            inputs = asked.inputs or ((asked.prompt,) if asked.prompt is not None else ())
            return openai_embeddings.write_request(
                EmbeddingRequest(inputs=inputs, model=self._model, provider_options=self._options)
            )
        if kind == "rerank":
            body: dict[str, object] = {"query": asked.prompt, "documents": list(asked.documents)}
            if self._model is not None:
                body["model"] = self._model
            return encode(body | self._options)
        messages = history + asked.messages
        if not messages and asked.prompt is not None:
            messages = ({"role": "user", "content": asked.prompt},)
        request = LLMRequest(
            messages=() if kind == "completions" else messages_from_wire(list(messages)),
            prompt=_prompt_of(asked, history) if kind == "completions" else None,
            model=self._model,
            max_tokens=asked.output_tokens,
            temperature=self._plan.temperature,
            provider_options=self._options,
        )
        written: bytes = self._codec.write_request(request, stream=self._stream)
        return written


def _prompt_of(asked: Asked, history: tuple[dict[str, object], ...]) -> str:
    said = [str(message.get("content") or "") for message in history + asked.messages]
    if asked.prompt is not None:
        said.append(asked.prompt)
    return "\n\n".join(said)


def _options(plan: LoadPlan) -> dict[str, object]:
    options: dict[str, object] = {}
    if plan.extra_body is not None:
        try:
            options = decode_object(plan.extra_body.encode())
        except LLMInvalidRequestError as error:
            raise LLMInvalidRequestError(
                f"extra_body is no JSON object: {error}", param="extra_body"
            ) from error
    if plan.output_exact:
        options.setdefault("ignore_eos", True)
    return options


def fetched(wanted: Iterator[Asked], most: int = 2 * _AHEAD) -> Iterator[Asked]:
    """``wanted``, made by a thread: for a workload that waits for others while it is made."""
    import queue
    import threading

    made: queue.Queue[Asked | Exception | None] = queue.Queue(most)

    def fetch() -> None:
        try:
            for each in wanted:
                made.put(each)
        except Exception as error:  # noqa: BLE001 - raised again where the next one is taken
            made.put(error)
        made.put(None)

    threading.Thread(target=fetch, name="workload", daemon=True).start()
    while (each := made.get()) is not None:
        if isinstance(each, Exception):
            raise each
        yield each


@frozen
class Ready:
    """A request that can be sent, and the turns of its conversation that come after it."""

    asked: Asked
    request: bytes
    later: tuple[Asked, ...] = ()


class Ahead:
    """Keeps some hundred requests ready; ``fill`` is to be called when there is time."""

    def __init__(
        self, wanted: Iterator[Asked], write: Callable[[Asked], bytes], most: int | None = None
    ) -> None:
        self._wanted = wanted
        self._write = write
        self._ready: deque[Ready] = deque()
        self._bytes = 0
        self.left = most  # how many openings will be asked for in all, where that is known
        self.late = 0  # how many were not ready when they were needed

    def take(self) -> Ready | None:
        """The next one; None where the workload has no more."""
        if not self._ready:
            self.late += 1
            return self._make()
        ready = self._ready.popleft()
        self._bytes -= len(ready.request)
        return ready

    def fill(self, for_s: float = _AT_A_TIME_S, most: int = _AHEAD) -> bool:
        """Write for a moment, until there are ``most``; whether there is more to write."""
        until = monotonic() + for_s
        while len(self._ready) < most and self._bytes < _AHEAD_BYTES and self.left != 0:
            ready = self._make()
            if ready is None:
                self.left = 0
                break
            self._ready.append(ready)
            self._bytes += len(ready.request)
            if monotonic() > until:
                return True
        return False

    def _make(self) -> Ready | None:
        if self.left is not None:
            if not self.left:
                return None
            self.left -= 1
        asked = self._next()
        if asked is None:
            return None
        # The turns of a conversation follow one another.
        later: list[Asked] = []
        while not asked.turn and len(later) < asked.turns - 1:
            turn = self._next()
            if turn is None:
                break
            if turn.conversation != asked.conversation:
                self._wanted = chain((turn,), self._wanted)
                break
            later.append(turn)
        return Ready(asked, self._write(asked), tuple(later))

    def _next(self) -> Asked | None:
        try:
            return next(self._wanted, None)
        except ValueError as error:  # a line of a user's file, read only now
            raise LLMInvalidRequestError(str(error)) from error
