"""Engines that we start: what is said of one, and how its server process stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen

ServerState: TypeAlias = Literal["stopped", "starting", "ready", "stopping", "failed"]


def _help(text: str) -> dict[str, object]:
    return {"help": text}


@frozen(kw_only=True)
class EngineConfig:
    """An engine by name: which program serves which model, where, and for how long."""

    name: str = field(metadata=_help("our name for it"))
    model: str = field(
        metadata=_help("the model: a directory, a file, or a name that the engine knows")
    )
    backend: str = field(
        default="vllm_api",
        metadata=_help(
            "the program: vllm_api (or vllm), llama-server, max, ollama_api (or ollama), sglang, "
            "tgi, tei, ovms, command; or openai and any provider's name for what somebody else runs"
        ),
    )
    endpoint: str | None = field(
        default=None,
        metadata=_help("where it runs already, up to and including /v1: then nothing is started"),
    )
    api_key: str | None = field(
        default=None, repr=False, metadata=_help("its key; better: api_key_env")
    )
    api_key_env: str | None = field(
        default=None, metadata=_help("the environment variable that holds its key")
    )
    lazy: bool = field(
        default=True,
        metadata=_help("start it when it is first used, and stop it when it is not any more"),
    )
    port: int | None = field(
        default=None, metadata=_help("the port; the program's usual one or a free one, if left out")
    )
    command: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "for the backend command: the whole command line, with {model}, {port} and {host} in it"
        ),
    )
    extra_serve_flags: tuple[str, ...] = field(
        default=(), metadata=_help("further flags, passed on as they are")
    )
    extra_env: Mapping[str, str] = field(
        factory=dict,
        repr=lambda env: repr(sorted(env)),
        metadata=_help("further environment variables, for this process only"),
    )
    dtype: str | None = field(default=None, metadata=_help("the type of weights and activations"))
    gpu_memory_utilization: float | None = field(
        default=None, metadata=_help("the share of the GPU's memory that it may take")
    )
    max_model_len: int | None = field(
        default=None, metadata=_help("prompt and answer together, in tokens")
    )
    tensor_parallel_size: int | None = field(
        default=None, metadata=_help("how many GPUs share each layer")
    )
    enable_reasoning: bool | None = field(
        default=None, metadata=_help("have its reasoning told apart from its answer")
    )
    reasoning_parser: str | None = field(
        default=None, metadata=_help("how the engine reads the model's reasoning")
    )
    gpu_ids: tuple[int, ...] = field(
        default=(), metadata=_help("the GPUs that it sees; all, if left out")
    )
    startup_timeout_s: float = field(
        default=600.0, metadata=_help("how long it may take until it answers, in seconds")
    )
    idle_timeout_s: float | None = field(
        default=300.0,
        metadata=_help("a lazy engine under the gateway is stopped when unused for so long"),
    )
    stop_timeout_s: float = field(
        default=15.0, metadata=_help("how long it may take to end before it is killed, in seconds")
    )


@frozen(kw_only=True)
class ServerSnapshot:
    """How an engine's server stands; ``command`` without secrets.

    ``reused`` is one that somebody else started. ``memory_bytes`` is what its process group holds,
    ``started`` a Unix time.
    """

    name: str
    model: str
    backend: str
    state: ServerState = "stopped"
    url: str | None = None
    port: int | None = None
    pid: int | None = None
    command: tuple[str, ...] = ()
    started: float | None = None
    uptime_s: float | None = None
    restarts: int = 0
    memory_bytes: int | None = None
    reused: bool = False
    log: str | None = None
    error: str | None = None
