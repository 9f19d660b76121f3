"""What the configuration says of one remote backend."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from headrace.gateway.fields import at_least, base_url, between, url
from headrace.gateway.fields import proxy as is_proxy
from headrace.net.proxy import ENVIRONMENT, masked
from headrace.wire.openai_paths import MARKED

RetryOn: TypeAlias = Literal["unavailable", "transient"]


def _groups(_: object, attribute: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in MARKED:
            near = get_close_matches(name, MARKED, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(MARKED)}"
            raise ValueError(f"there is no group {name!r} of paths; {hint}", attribute)


def _not_with_one(one: str) -> Any:
    def check(backend: Any, attribute: Any, several: tuple[str, ...]) -> None:
        if several and getattr(backend, one) is not None:
            raise ValueError(f"given beside {one}; leave one of the two out", attribute)
        if not all(each.strip() for each in several):
            raise ValueError("holds an empty one", attribute)

    return check


@frozen(kw_only=True)
class BackendConfig:
    """A remote backend that speaks OpenAI's format.

    Retries are made before the first piece of an answer only, and all of them together are at most
    the share ``retry_ratio`` of the requests (or 20 in 10 s, where that is more). The defaults are
    a gateway's: they let many through and leave most retries to the caller, who knows better.
    """

    name: str = field(metadata={"help": "our name for it"})
    provider: str = field(
        default="openai-compatible",
        metadata={"help": "a row of the provider table, or of providers above"},
    )
    base_url: str | None = field(
        default=None,
        validator=base_url,
        metadata={
            "help": "up to and including /v1, or grpc://host:port for a server of tensors; the "
            "provider's own, if left out"
        },
    )
    models: tuple[str, ...] = field(
        default=(), metadata={"help": "names it answers to, * and ? as wildcards"}
    )
    model: str | None = field(
        default=None, metadata={"help": "its own name for the model, if that is another one"}
    )
    api_key: str | None = field(
        default=None, repr=False, metadata={"help": "its key; better: api_key_env"}
    )
    api_key_env: str | None = field(
        default=None, metadata={"help": "the environment variable that holds its key"}
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        repr=False,
        validator=_not_with_one("api_key"),
        metadata={
            "help": "several keys, each with a queue and limits of its own (requests at once, waiting "
            "and a minute are of each): what one of them may not do now, the others do"
        },
    )
    api_key_envs: tuple[str, ...] = field(
        default=(),
        validator=_not_with_one("api_key_env"),
        metadata={"help": "the environment variables that hold several keys"},
    )
    key_from_environment: bool = field(
        default=True,
        metadata={
            "help": "false: where no key is given here, none is looked for under the provider's own "
            "variables"
        },
    )
    proxy: str | None = field(
        default=ENVIRONMENT,
        validator=is_proxy,
        repr=lambda value: repr(masked(value)),
        metadata={
            "help": "http://[user:password@]host:port on the way to it; environment: as "
            "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say; null: none. This machine "
            "itself is always reached without"
        },
    )
    metrics_url: str | None = field(
        default=None,
        validator=url,
        metadata={
            "help": "where its engine tells how full it is (docs/engine-metrics.md); as its "
            "provider's row has it, if left out"
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
            "help": "longest wait for a place; 429 after it. batching.timeout_ms, if left out"
        },
    )
    requests_per_minute: float | None = field(
        default=None,
        validator=at_least(1),
        metadata={"help": "further ones wait in the queue; no limit, if left out"},
    )
    tokens_per_minute: float | None = field(
        default=None,
        validator=at_least(1),
        metadata={"help": "prompts and answers together; no limit, if left out"},
    )
    max_retries: int = field(
        default=2, validator=between(0, 100), metadata={"help": "further attempts a request"}
    )
    retry_on: RetryOn = field(
        default="unavailable",
        metadata={
            "help": "unavailable: only where nobody answered; transient: whatever may pass, 429 "
            "and 500 among it"
        },
    )
    initial_retry_delay: float = field(
        default=0.25,
        validator=between(0, 3600),
        metadata={"help": "seconds before the first retry, where the server names no time"},
    )
    backoff_factor: float = field(
        default=2.0,
        validator=between(1, 100),
        metadata={"help": "each further delay is so many times the one before"},
    )
    max_retry_delay: float = field(
        default=1.0, validator=between(0, 3600), metadata={"help": "longest delay, in seconds"}
    )
    retry_jitter: float = field(
        default=0.5,
        validator=between(0, 1),
        metadata={"help": "the share of each delay that is left to chance"},
    )
    retry_ratio: float = field(
        default=0.1,
        validator=between(0, 1),
        metadata={"help": "retries of all requests together, as a share of the requests"},
    )
    breaker_failures: int = field(
        default=5,
        validator=at_least(0),
        metadata={"help": "failures in a row after which it is left alone (503); 0: never"},
    )
    breaker_open_ms: int = field(
        default=30_000,
        validator=at_least(1),
        metadata={"help": "how long it is left alone, before one request tries it again"},
    )
    connect_timeout_ms: int = field(
        default=5_000,
        validator=at_least(1),
        metadata={"help": "longest wait for a connection; 503 after it"},
    )
    first_token_timeout_ms: int = field(
        default=60_000,
        validator=at_least(1),
        metadata={"help": "longest wait for an answer's first token; 504 after it"},
    )
    passes: tuple[str, ...] = field(
        default=(),
        validator=_groups,
        metadata={
            "help": "groups of OpenAI's paths that are handed on to it as they stand, with its own "
            "key (docs/wire.md#openais-paths); whoever may use this server then sees what lies there "
            f"in its account. One or more of {', '.join(MARKED)}"
        },
    )
    asked_whole: bool | None = field(
        default=None,
        metadata={
            "help": "ask it for a whole answer where the caller wants one (server.pass_through): "
            "that costs least, but its first token is not seen, and some servers then work on for "
            "callers who have left; false: ask it for a stream and put that together. As its "
            "provider's row has it, if left out"
        },
    )
    whole_answer_timeout_ms: int | None = field(
        default=None,
        validator=at_least(1),
        metadata={
            "help": "longest wait for an answer that is asked for whole; 504 after it. Ten times "
            "first_token_timeout_ms, if left out"
        },
    )
    idle_timeout_ms: int = field(
        default=60_000, validator=at_least(1), metadata={"help": "longest gap inside an answer"}
    )
    timeout_ms: int | None = field(
        default=None,
        validator=at_least(1),
        metadata={
            "help": "longest time for a whole answer, retries included (for a stream: until its "
            "first token); 504 after it. No limit, if left out"
        },
    )
