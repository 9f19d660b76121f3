"""One look at the target before the load: whether it is there, lets us in, and what it serves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from time import monotonic

from attrs import frozen

from headrace.bench.load.framing import Framed
from headrace.bench.load.inbox import Inbox
from headrace.bench.load.line import Line, Place
from headrace.bench.load.scan import redirected
from headrace.bench.load.target import Target, addresses_of
from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMError,
    LLMInvalidRequestError,
    LLMTimeoutError,
    LLMUnavailableError,
)
from headrace.contracts.load import LoadPlan

_WITHIN_S = 10.0
_MOST_BYTES = 16 * 1024 * 1024


@frozen
class Sight:
    """Where the target is, the model to ask for, the models that it lists (none: it did not say)."""

    place: Place
    model: str | None
    models: tuple[str, ...]
    notes: tuple[str, ...]


class _Whole(Framed):
    """An answer whose body is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""

    def head_came(self) -> None: ...

    def body_came(self, piece: bytes) -> None:
        self.body += piece
        if len(self.body) > _MOST_BYTES:
            raise LLMBadResponseError(f"an answer of more than {_MOST_BYTES} bytes")

    def body_ended(self) -> None: ...


class _Once:
    """The owner of one line for one request."""

    def __init__(self, request: bytes) -> None:
        self.read_lags: list[float] = []
        loop = asyncio.get_running_loop()
        self.inbox = Inbox(loop)
        self.over: asyncio.Future[None] = loop.create_future()
        self.answer = _Whole()
        self._request = request

    def connected(self, line: Line) -> None:
        line.send(self._request, self.answer)

    def not_connected(self, line: Line, error: LLMError) -> None:
        self.answer.fail(error)
        self._end()

    def sent(self, line: Line) -> None: ...

    def answered(self, line: Line) -> None:
        self._end()

    def lost(self, line: Line) -> None:
        self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def look(
    plan: LoadPlan,
    target: Target,
    place_at: Callable[..., Place],
    stopped: Callable[[], bool],
) -> Sight | None:
    """What is found; None where ``stopped`` said so first."""
    last: LLMError | None = None
    for family, address in addresses_of(target):
        place = place_at(family, address)
        try:
            answer = await _fetch(place, target, stopped)
        except LLMUnavailableError as error:
            last = error
            continue
        return None if answer is None else _read(plan, target, place, answer)
    assert last is not None
    raise LLMUnavailableError(
        f"{last.message}; nothing answers at {plan.url}: start the server, or look at the URL"
    ) from last


async def _fetch(place: Place, target: Target, stopped: Callable[[], bool]) -> _Whole | None:
    request = f"GET {target.base}/models HTTP/1.1\r\n".encode() + target.head + b"\r\n"
    once = _Once(request)
    line = Line(asyncio.get_running_loop(), place, once)
    until = monotonic() + _WITHIN_S
    line.connect(_WITHIN_S)
    try:
        while not once.over.done():
            await asyncio.wait((once.over,), timeout=0.05)
            if stopped():
                return None
            if monotonic() > until and not once.over.done():
                raise LLMTimeoutError(
                    f"{target.peer} took the connection but gave no answer to GET "
                    f"{target.base}/models within {_WITHIN_S:g} s"
                )
    finally:
        line.close()
    if once.answer.failure is not None:
        raise once.answer.failure
    return once.answer


def _read(plan: LoadPlan, target: Target, place: Place, answer: _Whole) -> Sight:
    from headrace.wire import anthropic_errors, anthropic_models, openai_errors, openai_models

    anthropic = plan.kind == "messages"
    status = answer.status or 0
    if status in (401, 403):
        read = (anthropic_errors if anthropic else openai_errors).read_error
        said = read(status, answer.body, answer.headers).message
        raise _wrong_key(target, said, status)
    if plan.model is None and 300 <= status < 400:
        raise redirected(status, answer.headers)
    models: tuple[str, ...] = ()
    if status == 200:
        # Some servers list their models in the one form, whatever the face is that is asked.
        forms = (anthropic_models, openai_models) if anthropic else (openai_models,)
        for form in forms:
            try:
                models = tuple(each.model_id for each in form.read_models(answer.body))
                break
            except LLMBadResponseError:
                continue
    if plan.model is not None:
        return Sight(place, plan.model, models, ())
    if not models:
        what = f"answered {status}" if status != 200 else "lists none"
        raise LLMInvalidRequestError(
            f"model is not set, and {target.peer} does not say what it serves "
            f"(GET {target.base}/models {what}); name a model with --model",
            param="model",
        )
    notes: tuple[str, ...] = ()
    if len(models) > 1:
        notes = (f"no model was named: took {models[0]!r}, the first of {len(models)}",)
    return Sight(place, models[0], models, notes)


def _wrong_key(target: Target, said: str, status: int) -> LLMAuthError:
    how = "is refused" if target.has_key else "is not set"
    return LLMAuthError(
        f"{target.peer} wants another key ({said}): {target.key_env} {how}; set it, or name "
        "another variable with --key-env",
        status=status,
    )


def explained(
    error: LLMError, target: Target, model: str | None, models: tuple[str, ...]
) -> LLMError:
    """``error``, which would not become better by going on, with what to do about it."""
    if isinstance(error, LLMAuthError) and error.status in (401, 403):
        return _wrong_key(target, error.message, error.status)
    words = error.message
    said = {word.rstrip(".,:;") for word in re.findall(r"[\w./:@-]+", words)}
    if error.status == 404 and not said.isdisjoint(models):
        words += "; name one with --model"
    elif model is not None and error.status == 404 and models and model not in models:
        words += f"; model is {model!r}, and the target lists: {', '.join(models[:8])}"
        if len(models) > 8:
            words += f" and {len(models) - 8} more"
    elif error.status in (404, 405):
        words += f"; asked was {target.peer}{target.base}: look at --kind, --model and the URL"
    return type(error)(words, status=error.status, code=error.code)
