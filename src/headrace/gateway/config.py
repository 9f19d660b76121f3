"""The gateway's configuration: read once, from YAML and environment, into frozen objects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import evolve, field, fields, fields_dict, frozen, resolve_types

from headrace.backends.local.folders.rows import engine_for, name_of
from headrace.backends.providers import fill_rows, providers
from headrace.backends.row import OPENAIS, Provider
from headrace.contracts._yaml import read_yaml
from headrace.contracts.convert import from_plain
from headrace.contracts.engine_entries import entries, plain_entry
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.audio_config import AudioConfig
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.batches_config import BatchesConfig
from headrace.gateway.engines_config import EngineEntry, check_engines, plain_engines
from headrace.gateway.fields import at_least, between
from headrace.gateway.route_config import RouteConfig, check_routes
from headrace.stores.models import PRESETS

LogFormat: TypeAlias = Literal["auto", "json", "text"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_HASHED = "sha256:"
_PREFIX = "HEADRACE_"
# Short names for what is set most; any field is HEADRACE_<SECTION>__<FIELD>.
_SHORT_NAMES = {
    "HEADRACE_HOST": ("server", "host"),
    "HEADRACE_PORT": ("server", "port"),
    "HEADRACE_WORKERS": ("server", "workers"),
    "HEADRACE_API_KEYS": ("server", "api_keys"),
    "HEADRACE_MODEL": ("engine", "model"),
    "HEADRACE_THREADS": ("engine", "threads"),
    "HEADRACE_LOG_LEVEL": ("logging", "level"),
    "HEADRACE_LOG_FORMAT": ("logging", "format"),
}
# Read elsewhere, by those who need them.
_OTHERS = {
    "HEADRACE_CACHE",
    "HEADRACE_CONFIG",
    "HEADRACE_STATE",
    "HEADRACE_API_KEY",
    "HEADRACE_ADMIN_KEY",
    "HEADRACE_URL",
    "HEADRACE_PRIVATE_HOSTS",
    "HEADRACE_S3_ANONYMOUS",
}


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
        default=8000, validator=between(0, 65535), metadata={"help": "port; 0 picks a free one"}
    )
    grpc_port: int | None = field(
        default=None,
        validator=between(0, 65535),
        metadata={
            "help": "port of KServe's gRPC service, at the same address; 0 picks a free one. None, if "
            "left out. Needs the extra grpc"
        },
    )
    workers: int = field(
        default=1,
        validator=between(1, 256),
        metadata={
            "help": "processes that share the port and answer for remote backends by themselves; "
            "1: the server itself"
        },
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        converter=_hashed,
        validator=_no_empty_key,
        repr=False,
        metadata={"help": "keys that callers must show as a bearer token; none: no key asked for"},
    )
    admin_keys: tuple[str, ...] = field(
        default=(),
        converter=_hashed,
        validator=_no_empty_key,
        repr=False,
        metadata={
            "help": "keys with which endpoints can be made, changed and removed at /endpoints; none: "
            "there is no such thing. Kept and written as api_keys"
        },
    )
    allow_anonymous: bool = field(
        default=False, metadata={"help": "listen beyond loopback although no key is set"}
    )
    max_body_bytes: int = field(
        default=32 << 20,
        validator=at_least(1024),
        metadata={"help": "largest request body; 413 above it"},
    )
    max_connections: int = field(
        default=4096,
        validator=at_least(1),
        metadata={"help": "connections at once, of each worker; 503 above it"},
    )
    body_timeout_ms: int = field(
        default=30_000,
        validator=at_least(1),
        metadata={"help": "longest wait for a request's body; 408 after it"},
    )
    max_header_bytes: int = field(
        default=64 << 10,
        validator=at_least(1024),
        metadata={"help": "largest request line and headers together; 431 above it"},
    )
    header_timeout_ms: int = field(
        default=10_000,
        validator=at_least(1),
        metadata={"help": "longest wait for a request's headers; 408 after it"},
    )
    pass_through: bool = field(
        default=True,
        metadata={
            "help": "answer on the fast way where nothing speaks against it, without translating "
            "where the backend speaks the caller's format; false: translate all, the general way"
        },
    )
    drain_timeout_ms: int = field(
        default=30_000,
        validator=at_least(0),
        metadata={"help": "how long requests in flight may run on after SIGTERM"},
    )
    page: bool = field(
        default=True, metadata={"help": "false: no page at / and no snapshots to watch"}
    )
    max_watchers: int = field(
        default=32,
        validator=at_least(1),
        metadata={"help": "pages and dashboards that watch at once; 429 above it"},
    )


@frozen(kw_only=True)
class EngineConfig:
    """The model in the box, or another GGUF file, run by llama.cpp in a child process.

    Where many ask at once, OpenVINO in another child takes over what is free text.
    """

    model: str = field(
        default="smollm2-135m-instruct",
        metadata={
            "help": "a known model's name, the path or URI of a GGUF file, or a folder with a "
            "model's config.json, which transformers or onnx compute (engines says more of them)"
        },
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
        default=0, validator=at_least(0), metadata={"help": "CPU threads; 0: one a physical core"}
    )
    kv_tokens: int = field(
        default=16384,
        validator=at_least(256),
        metadata={"help": "tokens in the cache that all running requests share, in each engine"},
    )
    openvino: bool = field(
        default=True, metadata={"help": "false: llama.cpp alone, however many ask at once"}
    )
    openvino_from: int = field(
        default=2,
        validator=at_least(1),
        metadata={"help": "requests at once from which on OpenVINO answers"},
    )
    stuck_after_ms: int = field(
        default=60_000,
        validator=at_least(0),
        metadata={"help": "an engine of which so long nothing comes is started again; 0: never"},
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
        metadata={"help": "a known embedding model's name, or the path or URI of a GGUF file"},
    )
    name: str | None = field(
        default=None, metadata={"help": "the name it answers to; its own, if left out"}
    )
    aliases: tuple[str, ...] = field(
        default=(), metadata={"help": "further names, * and ? as wildcards, that reach this model"}
    )
    threads: int = field(
        default=0, validator=at_least(0), metadata={"help": "CPU threads; 0: one a physical core"}
    )
    max_input_tokens: int = field(
        default=0,
        validator=at_least(0),
        metadata={"help": "longest input, in tokens; 400 above it. 0: as the model was made for"},
    )
    at_start: bool = field(
        default=False,
        metadata={"help": "true: fetch and start it with the server, behind the chat model"},
    )
    rank_by_similarity: bool = field(
        default=False,
        metadata={
            "help": "true: it answers requests to rank documents too, by how alike their vectors are "
            "to the query's; worse than a model made for ranking"
        },
    )


@frozen(kw_only=True)
class BatchingConfig:
    """How many requests run at once, how many wait, and how long."""

    max_batch_size: int = field(
        default=32, validator=between(1, 256), metadata={"help": "requests that run at once"}
    )
    max_queue_size: int = field(
        default=512,
        validator=at_least(0),
        metadata={"help": "requests that may wait; 429 for the next"},
    )
    timeout_ms: int = field(
        default=30_000,
        validator=at_least(1),
        metadata={"help": "longest wait for a place; 429 after it"},
    )
    max_wait_time_ms: int = field(
        default=10,
        validator=at_least(0),
        metadata={
            "help": "longest wait of a request for embeddings for others to be computed with"
        },
    )


@frozen(kw_only=True)
class InferenceConfig:
    """What is used where a request does not say; a model's own preset goes before these."""

    max_tokens: int = field(
        default=2048, validator=at_least(1), metadata={"help": "longest answer, in tokens"}
    )
    temperature: float = field(
        default=0.7, validator=between(0, 2), metadata={"help": "sampling temperature"}
    )
    context_length: int = field(
        default=8192,
        validator=at_least(16),
        metadata={"help": "prompt and answer together, in tokens; never more than the model's own"},
    )
    system_prompt: str | None = field(
        default=None,
        metadata={
            "help": "system turn for conversations that have none; the preset's, if left out"
        },
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
class RecordsConfig:
    """Where the record of every call goes, besides the metrics; never a key.

    The file is readable by its owner only. When it is full it becomes ``<file>.1``, that becomes
    ``<file>.2`` and so on, and the oldest is removed. OpenTelemetry needs the extra ``otel``; where
    its spans and metrics go is set by its own variables (docs/records.md).
    """

    file: str | None = field(
        default=None, metadata={"help": "append a JSON line a call to this file; ~ is your home"}
    )
    content: bool = field(default=False, metadata={"help": "prompts and answers too, in the file"})
    max_bytes: int = field(
        default=100 << 20,
        validator=at_least(0),
        metadata={"help": "size at which a new file is begun; 0: never"},
    )
    keep: int = field(
        default=3, validator=between(0, 1000), metadata={"help": "full files that are kept"}
    )
    log: bool = field(
        default=False, metadata={"help": "one log line a call, by the logger headrace.calls"}
    )
    opentelemetry: bool = field(
        default=False,
        metadata={"help": "a span and measurements a call; a caller's traceparent is its parent"},
    )


@frozen(kw_only=True)
class ResponsesConfig:
    """What is kept of answers in the Responses format, in memory, for their callers to go on from.

    The answers used last are kept. A request may say ``store: false``; then nothing of it is.
    """

    max_stored: int = field(
        default=1000, validator=at_least(0), metadata={"help": "answers kept; 0 keeps none"}
    )
    max_stored_bytes: int = field(
        default=64 << 20,
        validator=at_least(0),
        metadata={"help": "bytes that they and their questions may take"},
    )
    keep_ms: int = field(
        default=24 * 3600 * 1000,
        validator=at_least(1),
        metadata={"help": "how long one is kept that nobody asks for"},
    )
    max_background: int = field(
        default=64,
        validator=at_least(0),
        metadata={"help": "answers in the background at once; 429 for the next"},
    )


@frozen(kw_only=True)
class ProfilesConfig:
    """Profiles of models on this machine, asked for at ``/v1/profiles``.

    Whoever may ask can have this machine read models and inputs below ``roots`` and be busy for a
    long time, so it is off unless enabled. Each profile is a process of its own.
    """

    enabled: bool = field(
        default=False, metadata={"help": "true: profiles can be asked for at /v1/profiles"}
    )
    roots: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "folders that models and inputs must lie under; none: the working directory and "
            "the model cache"
        },
    )
    folder: str = field(
        default="tmp/profiles",
        metadata={"help": "where runs lie, each in a folder of its own; ~ is your home"},
    )
    keep: int = field(
        default=20,
        validator=between(1, 10_000),
        metadata={"help": "runs that have ended and are kept; older ones are removed"},
    )
    max_queued: int = field(
        default=20, validator=at_least(0), metadata={"help": "runs that may wait; 429 for the next"}
    )
    stop_timeout_ms: int = field(
        default=10_000,
        validator=at_least(0),
        metadata={
            "help": "how long a cancelled run may take to write what it has; then it is killed"
        },
    )
    allow_remote_code: bool = field(
        default=False,
        metadata={"help": "true: a caller may have Python code run that comes with a model"},
    )


@frozen(kw_only=True)
class Config:
    """All of it; each section may be left out, and each field of it."""

    server: ServerConfig = field(factory=ServerConfig)
    engine: EngineConfig = field(factory=EngineConfig)
    embeddings: EmbeddingsConfig = field(factory=EmbeddingsConfig)
    audio: AudioConfig = field(factory=AudioConfig)
    batching: BatchingConfig = field(factory=BatchingConfig)
    inference: InferenceConfig = field(factory=InferenceConfig)
    logging: LoggingConfig = field(factory=LoggingConfig)
    records: RecordsConfig = field(factory=RecordsConfig)
    responses: ResponsesConfig = field(factory=ResponsesConfig)
    profiles: ProfilesConfig = field(factory=ProfilesConfig)
    batches: BatchesConfig = field(factory=BatchesConfig)
    providers: tuple[Provider, ...] = field(default=())
    backends: tuple[BackendConfig, ...] = field(default=())
    engines: tuple[EngineEntry, ...] = field(default=())
    routes: tuple[RouteConfig, ...] = field(default=())


_LISTS = {"providers", "backends", "engines", "routes"}


def read_text(path: Path) -> str:
    """What stands in the file at ``path``; raises LLMInvalidRequestError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise LLMInvalidRequestError(
            f"configuration file {str(path)!r} cannot be read: {unreadable}"
        ) from unreadable


def load(
    path: Path | None = None,
    *,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[tuple[str, str], object] | None = None,
) -> Config:
    """The file at ``path``, over it the environment, over that ``overrides`` (section, field).

    ``text`` is what stands in the file, where that was read already.

    Raises LLMInvalidRequestError that names the file or variable, the field and what would be right.
    """
    environment = os.environ if environment is None else environment
    tree: dict[str, Any] = {}
    source = "configuration"
    if path is not None:
        source = str(path)
        try:
            loaded = read_yaml(read_text(path) if text is None else text)
        except LLMInvalidRequestError as error:
            raise LLMInvalidRequestError(f"{source}: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise LLMInvalidRequestError(
                f"{source}: the configuration is a {type(loaded).__name__}, must be a mapping of "
                f"sections ({', '.join(item.name for item in fields(Config))})"
            )
        # A section whose every line is commented out is null to YAML, and empty to its writer.
        tree = {name: part for name, part in (loaded or {}).items() if part is not None}
    settings = {**_from_environment(environment), **(overrides or {})}
    for (section, name), value in settings.items():
        branch = tree.get(section) or {}
        if isinstance(branch, dict):
            tree[section] = {**branch, name: value}
    try:
        if "providers" in tree:
            tree["providers"] = fill_rows(tree["providers"], "$.providers")
        if "engines" in tree:
            found = entries(tree["engines"], "$.engines")
            tree["engines"] = [plain_entry(entry, where) for where, entry in found]
        if "engines" in tree:
            tree["engines"] = plain_engines(tree["engines"])
        config = _with_folder(from_plain(tree, Config))
        check_names(config)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{source}: {error}", param=error.param) from error
    return config


def _with_folder(config: Config) -> Config:
    """``config``; where its model is a folder, with an engine that takes one in llama.cpp's place."""
    own = config.engine
    folder = Path(own.model).expanduser().absolute()
    is_known = own.model.lower() in PRESETS
    if not own.enabled or is_known or not (folder / "config.json").is_file():
        return config
    entry = EngineEntry(
        name=own.name or name_of(folder),
        backend=engine_for(folder).name,
        model=str(folder),
        models=(own.name or name_of(folder), *own.aliases),
        lazy=False,
    )
    engines = (entry, *config.engines)
    return evolve(config, engine=evolve(own, enabled=False), engines=engines)


def row_of(config: Config, name: str) -> Provider | None:
    """The provider of that name: one of the configuration's own, or one that is known anyway."""
    own = next((row for row in config.providers if row.name == name), None)
    return own or providers().get(name)


def check_names(config: Config) -> None:
    """What the types cannot say: new providers' names are new, and every name in use is known."""
    known = providers()
    for i, row in enumerate(config.providers):
        if row.name in known:
            raise LLMInvalidRequestError(
                f"there is a provider {row.name!r} already; choose another name, and take over what "
                f"it says with like: {row.name} @ $.providers[{i}].name",
                param=f"providers[{i}].name",
            )
    named = sorted({*known, *(row.name for row in config.providers)})
    for i, backend in enumerate(config.backends):
        if backend.provider not in named:
            near = get_close_matches(backend.provider, named, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise LLMInvalidRequestError(
                f"unknown provider {backend.provider!r}; {hint}known: {', '.join(named)} "
                f"@ $.backends[{i}].provider",
                param=f"backends[{i}].provider",
            )
    _check_passes(config)
    own: tuple[EngineConfig | EmbeddingsConfig, ...] = (config.engine, config.embeddings)
    in_the_box = [each.name or _file_name(each.model) for each in own if each.enabled]
    check_engines(config.engines, [*(each.name for each in config.backends), *in_the_box])
    ours = [*in_the_box, *(engine.name for engine in config.engines)]
    check_routes(config.routes, config.backends, ours)


def _check_passes(config: Config) -> None:
    """A group of paths is handed on to one backend, which has to have such paths."""
    taken: dict[str, str] = {}
    for i, backend in enumerate(config.backends):
        row = row_of(config, backend.provider)
        if backend.passes and row is not None and row.format not in OPENAIS:
            raise LLMInvalidRequestError(
                f"{backend.name!r} ({row.name}) speaks {row.format}'s format and has none of OpenAI's "
                f"other paths; leave 'passes' out @ $.backends[{i}].passes",
                param=f"backends[{i}].passes",
            )
        for group in backend.passes:
            if group in taken:
                raise LLMInvalidRequestError(
                    f"{group!r} is handed on to {taken[group]!r} already; one backend can have it "
                    f"@ $.backends[{i}].passes",
                    param=f"backends[{i}].passes",
                )
            taken[group] = backend.name


def _file_name(model: str) -> str:
    """What a model that is known by ``model``, or lies there, calls itself."""
    preset = PRESETS.get(model.lower())
    return Path(model).stem if preset is None else preset.name


def _from_environment(environment: Mapping[str, str]) -> dict[tuple[str, str], object]:
    found: dict[tuple[str, str], object] = {}
    known = variables()
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _OTHERS:
            continue
        place = known.get(variable)
        if place is None:
            near = get_close_matches(variable, [*known, *_OTHERS], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise LLMInvalidRequestError(f"unknown environment variable {variable}{hint}")
        if text == "":
            continue
        found[place] = _read(variable, text, place)
    return found


def variables() -> dict[str, tuple[str, str]]:
    """Every environment variable we read, short names first, with its section and field."""
    names = dict(_SHORT_NAMES)
    for section in fields(resolve_types(Config)):
        kind = section.type
        if section.name in _LISTS or kind is None:
            continue
        for item in fields(kind):
            names[f"{_PREFIX}{section.name}__{item.name}".upper()] = (section.name, item.name)
    return names


def _read(variable: str, text: str, place: tuple[str, str]) -> object:
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
    if kind == int | None:
        kind = int
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise LLMInvalidRequestError(f"{variable} is {text!r}, must be {wanted}") from None
    return text
