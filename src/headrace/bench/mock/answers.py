"""Which answer a request gets: by its path, its body, its key, and what the settings have for it."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from headrace.bench.mock import replies
from headrace.bench.mock.asked import most_tokens, prompt_tokens, read_asked, wanted_schema
from headrace.bench.mock.connection import Connection, Request
from headrace.bench.mock.exchange import NOT_JSON, Stream, Whole
from headrace.bench.mock.faces import (
    ANSWER_ID,
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    Face,
    whole,
)
from headrace.bench.mock.objects import object_for
from headrace.bench.mock.plan import Plan, make_plan, of_length
from headrace.bench.mock.settings import Fault
from headrace.bench.mock.vectors import embeddings, rerank
from headrace.contracts.errors import (
    LLMAuthError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMProviderError,
    LLMRateLimitError,
)
from headrace.wire import anthropic

if TYPE_CHECKING:
    from headrace.bench.mock.server import Mock

ANY_MODEL = "mock"
"""The name of the model where the settings name none and the request neither."""

_FACES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}
_AT_ONCE = {"/v1/embeddings": embeddings, "/v1/rerank": rerank, "/v2/rerank": rerank}
_COUNT = "/v1/messages/count_tokens"
_MODELS = "/v1/models"
_OPEN = ("/health", "/metrics", "/lateness")
"""What is told to callers without a key."""
_KNOWN = (*_FACES, _COUNT, *_AT_ONCE, _MODELS, *_OPEN)


def answer(mock: Mock, connection: Connection, request: Request) -> None:
    """Begin the answer to ``request``."""
    path = request.path.rstrip("/")
    if not path.startswith(("/v1", "/v2")) and path not in _OPEN:
        path = f"/v1{path}"
    known = path in _FACES or path in _AT_ONCE or path == _COUNT
    try:
        if request.method in ("GET", "HEAD") and not known:
            data = _look(mock, path, request)
            if request.method == "HEAD":
                data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            _send(mock, connection, path, 200, data)
        elif not known:
            raise _nothing_there(request)
        elif request.method != "POST":
            said = f"{request.method} is not answered at {path}; POST is expected"
            raise LLMInvalidRequestError(said, status=405)
        else:
            _check_key(mock, request)
            _ask(mock, connection, path, request)
    except LLMError as error:
        _refuse(mock, connection, path, error)


def _look(mock: Mock, path: str, request: Request) -> bytes:
    """What is there to be looked at."""
    if path == "/health":
        return replies.reply(200, b'{"status":"ok"}')
    if path == "/metrics":
        return replies.metrics(mock)
    if path == "/lateness":
        return replies.lateness(mock)
    _check_key(mock, request)
    theirs = b"anthropic-version" in request.headers
    names = mock.settings.model or (ANY_MODEL,)
    if path == _MODELS:
        return replies.models(names, for_anthropic=theirs)
    name = path.removeprefix(f"{_MODELS}/")
    if name == path:
        raise _nothing_there(request)
    _check_model(mock, name)
    return replies.model(name, for_anthropic=theirs)


def _ask(mock: Mock, connection: Connection, path: str, request: Request) -> None:
    number = mock.note(request)
    limits, spent = _limited(mock, path)
    if spent is not None:
        _refuse(mock, connection, path, spent, limits)
        return
    face = _FACES.get(path)
    if path == _COUNT:
        asked = read_asked(MESSAGES, request.body, counting=True)
        _check_model(mock, asked.model)
        body = anthropic.write_count(prompt_tokens(asked))
        _send(mock, connection, path, 200, replies.reply(200, body, limits))
    elif face is not None:
        _generate(mock, connection, path, request, face, number, limits)
    else:
        model, body = _AT_ONCE[path](request.body, path, mock.settings.dimensions)
        _check_model(mock, model)
        plan = _plan(mock, request, number, None)
        _give(mock, connection, path, plan, body, request.arrival, 0, limits)


def _generate(
    mock: Mock,
    connection: Connection,
    path: str,
    request: Request,
    face: Face,
    number: int,
    limits: replies.Headers,
) -> None:
    asked = read_asked(face, request.body)
    _check_model(mock, asked.model)
    most, schema = most_tokens(asked), wanted_schema(asked)
    plan = _plan(mock, request, number, most)
    words = () if schema is None else object_for(schema)
    if words:
        plan = of_length(plan, len(words), most)
    model = asked.model or ANY_MODEL
    length = prompt_tokens(asked)
    answer_id = b"%016x" % number
    if not asked.stream:
        told = -1 if plan.fault is not None and plan.fault.kind == "no_usage" else length
        body = whole(face, model, told, plan.tokens, plan.reason, words)
        body = body.replace(ANSWER_ID, answer_id)
        mock.tokens += plan.tokens
        _give(mock, connection, path, plan, body, request.arrival, plan.tokens - 1, limits)
        return
    options = asked.stream_options
    wants_usage = face.codec is anthropic or bool(options and options.include_usage)
    stream = Stream(
        mock, connection, plan, face, model, wants_usage, length, answer_id, words, limits
    )
    mock.answered[path, 200] += 1
    mock.enter(stream, request.arrival)


def _give(
    mock: Mock,
    connection: Connection,
    path: str,
    plan: Plan,
    body: bytes,
    arrival: float,
    gaps: int,
    limits: replies.Headers,
) -> None:
    """``body``, in its time."""
    if plan.fault is not None and plan.fault.kind == "not_json":
        body = NOT_JSON
    mock.answered[path, 200] += 1
    data = replies.reply(200, body, limits)
    mock.enter(Whole(mock, connection, plan, data, gaps), arrival)


def _plan(mock: Mock, request: Request, number: int, most: int | None) -> Plan:
    """What is to become of the request; an error that it is to get is raised."""
    plan = make_plan(
        mock.rules,
        number=number,
        age_s=request.arrival - mock.started,
        most=most,
        headers=request.headers,
    )
    if plan.fault is not None and plan.fault.kind == "error":
        raise _error(plan.fault)
    return plan


def _error(fault: Fault) -> LLMError:
    """The error that ``fault`` means."""
    cls = {
        401: LLMAuthError,
        404: LLMModelNotFoundError,
        429: LLMRateLimitError,
        503: LLMOverloadedError,
    }.get(fault.status, LLMProviderError if fault.status >= 500 else LLMInvalidRequestError)
    said = f"The mock was told to fail with status {fault.status}."
    return cls(said, status=fault.status, retry_after_s=fault.retry_after_s)


def _check_key(mock: Mock, request: Request) -> None:
    key = mock.settings.key
    if key is None:
        return
    given = request.headers.get(b"x-api-key")
    if given is None:
        given = request.headers.get(b"authorization", b"").removeprefix(b"Bearer ")
    if not compare_digest(given, key.encode()):
        raise LLMAuthError("The key is missing or wrong; the one set with --key is expected.")


def _check_model(mock: Mock, name: str | None) -> None:
    known = mock.settings.model
    if known and name not in known:
        said = "The request names no model" if name is None else f"There is no model {name!r}"
        raise LLMModelNotFoundError(f"{said}; known: {', '.join(known)}.", param="model")


def _limited(mock: Mock, path: str) -> tuple[replies.Headers, LLMError | None]:
    """What the rate limit says beside an answer, and the error where it is used up."""
    left, rate = mock.allowance(), mock.settings.rate_limit
    if left is None or rate is None:
        return (), None
    if left >= 1:
        mock.spend()
        return replies.limits(path, rate, left - 1), None
    wait_s = (1 - left) / rate
    said = f"More than {rate:g} requests a second; ask again in {wait_s:.3g} s."
    return replies.limits(path, rate, 0), LLMRateLimitError(said, retry_after_s=wait_s)


def _nothing_there(request: Request) -> LLMError:
    said = f"Nothing is at {request.method} {request.path}; known: {', '.join(_KNOWN)}."
    return LLMInvalidRequestError(said, status=404)


def _send(mock: Mock, connection: Connection, path: str, status: int, data: bytes) -> None:
    # A path of a caller's own making is no label.
    named = path if path in _KNOWN else "other"
    mock.answered[named, status] += 1
    connection.send(data)
    connection.finished()


def _refuse(
    mock: Mock, connection: Connection, path: str, error: LLMError, limits: replies.Headers = ()
) -> None:
    status, data = replies.refusal(path, error, limits)
    _send(mock, connection, path, status, data)
