"""The gateway's configuration: read once, from YAML and environment, into frozen objects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts._yaml import read_yaml
from headrace.contracts.convert import from_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.net.transport import parse_url

LogFormat: TypeAlias = Literal["auto", "json", "text"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_HASHED = "sha256:"
_PREFIX = "HEADRACE_"
# Short names for what is set most; any field is HEADRACE_<SECTION>__<FIELD>.
_SHORT_NAMES = {
    "HEADRACE_HOST": ("server", "host"),
    "HEADRACE_PORT": ("server", "port"),
    "HEADRACE_API_KEYS": ("server", "api_keys"),
    "HEADRACE_MODEL": ("engine", "model"),
    "HEADRACE_THREADS": ("engine", "threads"),
    "HEADRACE_LOG_LEVEL": ("logging", "level"),
    "HEADRACE_LOG_FORMAT": ("logging", "format"),
}
# Read elsewhere, by those who need them.
_OTHERS = {"HEADRACE_CACHE", "HEADRACE_CONFIG", "HEADRACE_API_KEY", "HEADRACE_URL"}


def _at_least(least: float) -> Any:
    def check(_: object, attribute: Any, value: float) -> None:
        if value < least:
            raise ValueError(f"{value}, must be at least {least:g}", attribute)

    return check


def _between(least: float, most: float) -> Any:
    def check(_: object, attribute: Any, value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"{value}, must be {least:g} to {most:g}", attribute)

    return check


def _url(_: object, attribute: Any, value: str | None) -> None:
    if value is not None:
        try:
            parse_url(value)
        except LLMInvalidRequestError as error:
            raise ValueError(str(error), attribute) from error


def _hashed(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        key if key.startswith(_HASHED) else _HASHED + hashlib.sha256(key.encode()).hexdigest()
        for key in keys
    )


def _no_empty_key(_: object, attribute: Any, keys: tuple[str, ...]) -> None:
    if _HASHED + hashlib.sha256(b"").hexdigest() in keys:
        raise ValueError(f"{attribute.name} holds an empty key")


@frozen(kw_only=True)
class ServerConfig:
    """Where the gateway listens and what it lets in.

    ``api_keys`` are kept as SHA-256 hashes only; write them as they are or as ``sha256:<hex>``.
    Listening anywhere but on loopback needs a key, or ``allow_anonymous``.
    """

    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: int = field(
        default=8000, validator=_between(0, 65535), metadata={"help": "port; 0 picks a free one"}
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        converter=_hashed,
        validator=_no_empty_key,
        repr=False,
        metadata={"help": "keys that callers must show as a bearer token; none: no key asked for"},
    )
    allow_anonymous: bool = field(
        default=False, metadata={"help": "listen beyond loopback although no key is set"}
    )
    max_body_bytes: int = field(
        default=32 << 20,
        validator=_at_least(1024),
        metadata={"help": "largest request body; 413 above it"},
    )
    max_connections: int = field(
        default=4096, validator=_at_least(1), metadata={"help": "connections at once; 503 above it"}
    )
    body_timeout_ms: int = field(
        default=30_000,
        validator=_at_least(1),
        metadata={"help": "longest wait for a request's body; 408 after it"},
    )
    drain_timeout_ms: int = field(
        default=30_000,
        validator=_at_least(0),
        metadata={"help": "how long requests in flight may run on after SIGTERM"},
    )


@frozen(kw_only=True)
class EngineConfig:
    """The model in the box, or another GGUF file, run by llama.cpp in a child process.

    Where many ask at once, OpenVINO in another child takes over what is free text.
    """

    model: str = field(
        default="smollm2-135m-instruct",
        metadata={"help": "a known model's name, or the path of a GGUF file"},
    )
    name: str | None = field(
        default=None, metadata={"help": "the name it answers to; its own, if left out"}
    )
    aliases: tuple[str, ...] = field(
        default=(), metadata={"help": "further names, * and ? as wildcards, that reach this model"}
    )
    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": "llama-3.3, chatml, or the path of a Jinja file; the model's own, if left out"
        },
    )
    threads: int = field(
        default=0, validator=_at_least(0), metadata={"help": "CPU threads; 0: one a physical core"}
    )
    kv_tokens: int = field(
        default=16384,
        validator=_at_least(256),
        metadata={"help": "tokens in the cache that all running requests share, in each engine"},
    )
    openvino: bool = field(
        default=True, metadata={"help": "false: llama.cpp alone, however many ask at once"}
    )
    openvino_from: int = field(
        default=4,
        validator=_at_least(1),
        metadata={"help": "requests at once from which on OpenVINO answers"},
    )
    enabled: bool = field(default=True, metadata={"help": "false: no chat model of our own"})


@frozen(kw_only=True)
class EmbeddingsConfig:
    """The embedding model in the box, or another GGUF file.

    It is fetched and started by the first request for embeddings, which waits for it: whoever asks
    for none downloads and runs none.
    """

    enabled: bool = field(default=True, metadata={"help": "false: no embedding model of our own"})
    model: str = field(
        default="all-minilm-l6-v2",
        metadata={"help": "a known embedding model's name, or the path of a GGUF file"},
    )
    name: str | None = field(
        default=None, metadata={"help": "the name it answers to; its own, if left out"}
    )
    aliases: tuple[str, ...] = field(
        default=(), metadata={"help": "further names, * and ? as wildcards, that reach this model"}
    )
    threads: int = field(
        default=0, validator=_at_least(0), metadata={"help": "CPU threads; 0: one a physical core"}
    )
    max_input_tokens: int = field(
        default=0,
        validator=_at_least(0),
        metadata={"help": "longest input, in tokens; 400 above it. 0: as the model was made for"},
    )
    at_start: bool = field(
        default=False,
        metadata={"help": "true: fetch and start it with the server, behind the chat model"},
    )


@frozen(kw_only=True)
class BatchingConfig:
    """How many requests run at once, how many wait, and how long."""

    max_batch_size: int = field(
        default=32, validator=_between(1, 256), metadata={"help": "requests that run at once"}
    )
    max_queue_size: int = field(
        default=512,
        validator=_at_least(0),
        metadata={"help": "requests that may wait; 429 for the next"},
    )
    timeout_ms: int = field(
        default=30_000,
        validator=_at_least(1),
        metadata={"help": "longest wait for a place; 429 after it"},
    )
    max_wait_time_ms: int = field(
        default=10,
        validator=_at_least(0),
        metadata={
            "help": "longest wait of a request for embeddings for others to be computed with"
        },
    )


@frozen(kw_only=True)
class InferenceConfig:
    """What is used where a request does not say; a model's own preset goes before these."""

    max_tokens: int = field(
        default=2048, validator=_at_least(1), metadata={"help": "longest answer, in tokens"}
    )
    temperature: float = field(
        default=0.7, validator=_between(0, 2), metadata={"help": "sampling temperature"}
    )
    context_length: int = field(
        default=8192,
        validator=_at_least(16),
        metadata={"help": "prompt and answer together, in tokens; never more than the model's own"},
    )
    system_prompt: str | None = field(
        default=None,
        metadata={
            "help": "system turn for conversations that have none; the preset's, if left out"
        },
    )


@frozen(kw_only=True)
class BackendConfig:
    """A remote backend that speaks OpenAI's format."""

    name: str = field(metadata={"help": "our name for it"})
    provider: str = field(
        default="openai-compatible", metadata={"help": "a row of the provider table"}
    )
    base_url: str | None = field(
        default=None,
        validator=_url,
        metadata={"help": "up to and including /v1; the provider's own, if left out"},
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
    max_concurrency: int = field(
        default=256, validator=_at_least(1), metadata={"help": "requests to it at once"}
    )
    connect_timeout_ms: int = field(
        default=5_000,
        validator=_at_least(1),
        metadata={"help": "longest wait for a connection; 503 after it"},
    )
    first_token_timeout_ms: int = field(
        default=60_000,
        validator=_at_least(1),
        metadata={"help": "longest wait for an answer to begin; 504 after it"},
    )
    idle_timeout_ms: int = field(
        default=60_000, validator=_at_least(1), metadata={"help": "longest gap inside an answer"}
    )


@frozen(kw_only=True)
class LoggingConfig:
    """What is logged; never a key, a prompt or an answer."""

    level: LogLevel = field(default="info", metadata={"help": "debug, info, warning or error"})
    format: LogFormat = field(
        default="auto", metadata={"help": "json, text, or auto: text on a terminal, json elsewhere"}
    )
    requests: bool = field(default=True, metadata={"help": "one line for each request"})


@frozen(kw_only=True)
class Config:
    """All of it; each section may be left out, and each field of it."""

    server: ServerConfig = field(factory=ServerConfig)
    engine: EngineConfig = field(factory=EngineConfig)
    embeddings: EmbeddingsConfig = field(factory=EmbeddingsConfig)
    batching: BatchingConfig = field(factory=BatchingConfig)
    inference: InferenceConfig = field(factory=InferenceConfig)
    logging: LoggingConfig = field(factory=LoggingConfig)
    backends: tuple[BackendConfig, ...] = field(default=())


def load(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[tuple[str, str], object] | None = None,
) -> Config:
    """The file at ``path``, over it the environment, over that ``overrides`` (section, field).

    Raises LLMInvalidRequestError that names the file or variable, the field and what would be right.
    """
    environment = os.environ if environment is None else environment
    tree: dict[str, Any] = {}
    source = "configuration"
    if path is not None:
        source = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as unreadable:
            raise LLMInvalidRequestError(
                f"configuration file {source!r} cannot be read: {unreadable}"
            ) from unreadable
        try:
            loaded = read_yaml(text)
        except LLMInvalidRequestError as error:
            raise LLMInvalidRequestError(f"{source}: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise LLMInvalidRequestError(
                f"{source}: the configuration is a {type(loaded).__name__}, must be a mapping of "
                "sections (server, engine, embeddings, batching, inference, logging, backends)"
            )
        # A section whose every line is commented out is null to YAML, and empty to its writer.
        tree = {name: part for name, part in (loaded or {}).items() if part is not None}
    settings = {**_from_environment(environment), **(overrides or {})}
    for (section, name), value in settings.items():
        branch = tree.get(section) or {}
        if isinstance(branch, dict):
            tree[section] = {**branch, name: value}
    try:
        return from_plain(tree, Config)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{source}: {error}", param=error.param) from error


def _from_environment(environment: Mapping[str, str]) -> dict[tuple[str, str], object]:
    from difflib import get_close_matches

    found: dict[tuple[str, str], object] = {}
    fields = variables()
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _OTHERS:
            continue
        place = fields.get(variable)
        if place is None:
            near = get_close_matches(variable, [*fields, *_OTHERS], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise LLMInvalidRequestError(f"unknown environment variable {variable}{hint}")
        if text == "":
            continue
        found[place] = _read(variable, text, place)
    return found


def variables() -> dict[str, tuple[str, str]]:
    """Every environment variable we read, short names first, with its section and field."""
    from attrs import fields, resolve_types

    names = dict(_SHORT_NAMES)
    for section in fields(resolve_types(Config)):
        kind = section.type
        if section.name == "backends" or kind is None:
            continue
        for item in fields(kind):
            names[f"{_PREFIX}{section.name}__{item.name}".upper()] = (section.name, item.name)
    return names


def _read(variable: str, text: str, place: tuple[str, str]) -> object:
    from attrs import fields, fields_dict, resolve_types

    section = fields_dict(resolve_types(Config))[place[0]].type
    assert section is not None
    kind = getattr(fields(resolve_types(section)), place[1]).type
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise LLMInvalidRequestError(f"{variable} is {text!r}, must be true or false")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise LLMInvalidRequestError(f"{variable} is {text!r}, must be {wanted}") from None
    return text
