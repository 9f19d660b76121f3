"""Answers that are written at once: errors in each face's form, models, health, metrics, lateness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from headrace.bench.mock.connection import head
from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMError
from headrace.wire import anthropic, anthropic_models, openai_chat, openai_models
from headrace.wire.json import encode

if TYPE_CHECKING:
    from headrace.bench.mock.server import Mock

JSON = b"application/json"
_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_CREATED = 1767225600

Headers = tuple[tuple[bytes, bytes], ...]


def reply(status: int, body: bytes, headers: Headers = (), content_type: bytes = JSON) -> bytes:
    """A whole answer, head and body."""
    return head(status, content_type, len(body), headers) + body


def codec_of(path: str) -> ModuleType:
    """The format in which the callers of ``path`` are told what went wrong."""
    return anthropic if path.startswith(("/v1/messages", "/messages")) else openai_chat


def refusal(path: str, error: LLMError, headers: Headers = ()) -> tuple[int, bytes]:
    """``error`` in the form of the face at ``path``: its status, and the whole answer."""
    codec = codec_of(path)
    if error.retry_after_s is not None:
        # The standard's header knows whole seconds only; OpenAI's clients read the other one first.
        headers = (
            *headers,
            (b"retry-after", b"%d" % math.ceil(error.retry_after_s)),
            (b"retry-after-ms", b"%d" % math.ceil(error.retry_after_s * 1000)),
        )
    status = error.status
    return status, reply(status, codec.write_error(error), headers)


def limits(path: str, rate: float, left: float) -> Headers:
    """The headers by which a face tells its rate limit; ``left`` is how many requests it lets in."""
    if codec_of(path) is anthropic:
        prefix, names = b"anthropic-ratelimit-requests-", (b"limit", b"remaining")
    else:
        prefix, names = b"x-ratelimit-", (b"limit-requests", b"remaining-requests")
    values = (math.ceil(rate), math.floor(left))
    return tuple((prefix + name, b"%d" % value) for name, value in zip(names, values, strict=True))


def models(names: Iterable[str], *, for_anthropic: bool) -> bytes:
    """The list of models."""
    found = [ModelInfo(model_id=name, created=_CREATED, owned_by="headrace") for name in names]
    write = anthropic_models.write_models if for_anthropic else openai_models.write_models
    return reply(200, write(found))


def model(name: str, *, for_anthropic: bool) -> bytes:
    """One model."""
    found = ModelInfo(model_id=name, created=_CREATED, owned_by="headrace")
    write = anthropic_models.write_model if for_anthropic else openai_models.write_model
    return reply(200, write(found))


def lateness(mock: Mock) -> bytes:
    """How late the mock wrote, as JSON: the figures in ms, and the histogram in seconds."""
    return reply(200, encode({**late_ms(mock), "histogram_s": mock.lateness.to_plain()}))


def late_ms(mock: Mock) -> dict[str, float | int | None]:
    """How late the mock wrote, in milliseconds."""
    histogram = mock.lateness
    p50, p99 = histogram.quantiles((0.5, 0.99))
    return {
        "count": histogram.count,
        "p50_ms": _ms(p50),
        "p99_ms": _ms(p99),
        "max_ms": _ms(histogram.maximum),
    }


def metrics(mock: Mock) -> bytes:
    """The counts in Prometheus' text format."""
    return reply(200, "\n".join([*_metrics(mock), ""]).encode(), content_type=_METRICS_TYPE)


def _metrics(mock: Mock) -> Iterator[str]:
    name = "headrace_mock_requests_total"
    yield f"# HELP {name} Answers by path and status."
    yield f"# TYPE {name} counter"
    for (path, status), count in sorted(mock.answered.items()):
        yield f'{name}{{path="{path}",status="{status}"}} {count}'
    running = 'model_name="mock"'
    for name, kind, said, value in (
        ("headrace_mock_callers_gone_total", "counter", "Callers that left early.", mock.gone),
        ("vllm:generation_tokens_total", "counter", "Tokens written.", mock.tokens),
        ("vllm:num_requests_running", "gauge", "Requests being served.", mock.active),
        ("vllm:num_requests_waiting", "gauge", "Requests without a slot.", mock.waiting),
    ):
        yield f"# HELP {name} {said}"
        yield f"# TYPE {name} {kind}"
        labels = f"{{{running}}}" if name.startswith("vllm:") else ""
        yield f"{name}{labels} {value}"
    name = "headrace_mock_lateness_seconds"
    yield f"# HELP {name} From when something was due to when it was written."
    yield f"# TYPE {name} summary"
    for q, late in zip((0.5, 0.9, 0.99), mock.lateness.quantiles((0.5, 0.9, 0.99)), strict=True):
        yield f'{name}{{quantile="{q}"}} {"NaN" if late is None else late}'
    yield f"{name}_sum {mock.lateness.total}"
    yield f"{name}_count {mock.lateness.count}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
