"""What the configuration says of one engine that the gateway starts."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from headrace.backends.managed.opening import check_engine
from headrace.contracts.engine_entries import entries, plain_entry
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.fields import at_least


@frozen(kw_only=True)
class EngineEntry(EngineConfig):
    """A server that the gateway starts, watches and stops; routes name it as they name a backend.

    A lazy one is started by the first request for it, which waits, and stopped when nobody has
    asked it for ``idle_timeout_s``. One that dies is started again. What somebody else runs is told
    more of as one of ``backends``.
    """

    models: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "names it answers to, * and ? as wildcards; its name and its model's, if left out"
        },
    )
    max_concurrent_requests: int = field(
        default=256, validator=at_least(1), metadata={"help": "requests to it at once"}
    )
    queue_size: int | None = field(
        default=None,
        validator=at_least(0),
        metadata={
            "help": "requests that may wait for it; 429 for the next. batching.max_queue_size, "
            "if left out"
        },
    )
    queue_timeout_ms: int | None = field(
        default=None,
        validator=at_least(1),
        metadata={
            "help": "longest wait for a place; 429 after it. batching.timeout_ms, if left out. Its "
            "start is waited for by itself, for startup_timeout_s"
        },
    )
    first_token_timeout_ms: int = field(
        default=600_000,
        validator=at_least(1),
        metadata={"help": "longest wait for an answer to begin, once it runs; 504 after it"},
    )


def check_engines(engines: Sequence[EngineEntry], taken: Sequence[str]) -> None:
    """Raise LLMInvalidRequestError, naming the field, for what no engine can be, or a name that
    another one has or one of ``taken``."""
    names = list(taken)
    for i, engine in enumerate(engines):
        try:
            check_engine(engine)
        except LLMInvalidRequestError as wrong:
            place = f"engines[{i}]" + (f".{wrong.param}" if wrong.param else "")
            raise LLMInvalidRequestError(f"{wrong} @ $.{place}", param=place) from wrong
        if engine.input_price_usd is not None:
            raise LLMInvalidRequestError(
                f"an engine under the gateway has no prices of its own; name them where a route names "
                f"it as one of its backends @ $.engines[{i}].input_price_usd",
                param=f"engines[{i}].input_price_usd",
            )
        if engine.name in names:
            raise LLMInvalidRequestError(
                f"{engine.name!r} is the name of another backend or engine; choose another "
                f"@ $.engines[{i}].name",
                param=f"engines[{i}].name",
            )
        names.append(engine.name)


def plain_engines(listed: object) -> list[dict[str, object]]:
    """The engines as ``from_plain`` wants them, in whichever form and words they are ``listed``."""
    return [plain_entry(entry, where) for where, entry in entries(listed, "$.engines")]
