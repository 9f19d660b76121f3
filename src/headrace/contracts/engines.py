"""Engines that we start: what is said of one, and how its server process stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from attrs import Attribute, field, fields, frozen

from headrace.contracts._checks import WrongAmount, WrongKind, as_float

ServerState: TypeAlias = Literal["stopped", "starting", "ready", "stopping", "failed"]

# It names a folder as well.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OF_A_START = {
    *("program", "port", "command", "extra_serve_flags", "extra_env", "dtype"),
    *("gpu_memory_utilization", "max_model_len", "tensor_parallel_size", "enable_reasoning"),
    *("reasoning_parser", "gpu_ids", "device", "attention", "trust_remote_code", "task", "slots"),
}


def _help(text: str) -> dict[str, object]:
    return {"help": text}


def _wrong(attribute: Attribute[Any], value: object, right: str) -> WrongAmount:
    return WrongAmount(f"{attribute.name} is {value!r}; {right}", attribute)


def _name(_: object, attribute: Attribute[Any], value: str) -> None:
    if not _NAME.fullmatch(value):
        raise _wrong(
            attribute,
            value,
            "letters, digits, '.', '_' and '-' are needed, 64 at most and no sign first",
        )


def _said(_: object, attribute: Attribute[Any], value: str | None) -> None:
    if value is not None and not value.strip():
        raise _wrong(attribute, value, "it must not be empty")


def _url(_: object, attribute: Attribute[Any], value: str | None) -> None:
    if value is not None and not re.match(r"https?://[^/\s]", value):
        raise _wrong(attribute, value, "an address such as http://127.0.0.1:8000/v1 is needed")


def _from(least: int, most: int | None = None) -> Any:
    said = f"a whole number from {least} {f'to {most}' if most else 'on'} is needed"

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongKind(f"{attribute.name} is {value!r}; {said}", attribute)
        if value < least or (most is not None and value > most):
            raise _wrong(attribute, value, said)

    return check


def _above_zero(most: float | None = None) -> Any:
    said = f"a number above 0{f', {most:g} at most,' if most else ''} is needed"

    def check(_: object, attribute: Attribute[Any], value: float | None) -> None:
        if value is None:
            return
        if not isinstance(value, float):
            raise WrongKind(f"{attribute.name} is {value!r}; {said}", attribute)
        if not 0 < value < float("inf") or (most is not None and value > most):
            raise _wrong(attribute, value, said)

    return check


def _price(_: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is None:
        return
    if not isinstance(value, float):
        raise WrongKind(f"{attribute.name} is {value!r}; a number is needed", attribute)
    if not 0 <= value < float("inf"):
        raise _wrong(attribute, value, "a number from 0 on is needed")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _words(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(word, str) for word in value):
        raise WrongKind(f"{attribute.name} is {value!r}; a list of texts is needed", attribute)


def _devices(_: object, attribute: Attribute[Any], value: Any) -> None:
    said = "a list of GPU numbers from 0 on is needed, each once"
    if not isinstance(value, tuple) or not all(type(each) is int for each in value):
        raise WrongKind(f"{attribute.name} is {value!r}; {said}", attribute)
    if any(each < 0 for each in value) or len(set(value)) < len(value):
        raise _wrong(attribute, value, said)


def _variables(_: object, attribute: Attribute[Any], value: Mapping[Any, Any]) -> None:
    # Values may be secrets: only their names are told.
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise _wrong(attribute, name, "names of environment variables are needed")
        if not isinstance(text, str):
            raise WrongKind(
                f"{attribute.name}[{name!r}] is a {type(text).__name__}; a text is needed",
                attribute,
            )


@frozen(kw_only=True)
class EngineConfig:
    """An engine by name: which program serves which model, where, and for how long."""

    name: str = field(validator=_name, metadata=_help("our name for it"))
    model: str = field(
        validator=_said,
        metadata=_help("the model: a directory, a file, or a name that the engine knows"),
    )
    backend: str = field(
        default="vllm_api",
        validator=_said,
        metadata=_help(
            "the program: vllm_api (or vllm), llama-server, max, ollama_api (or ollama), sglang, "
            "tgi, tei, ovms, command; transformers or onnx for a model's folder in a child of ours; or "
            "openai and any provider's name for what somebody else runs"
        ),
    )
    endpoint: str | None = field(
        default=None,
        validator=_url,
        metadata=_help("where it runs already, up to and including /v1: then nothing is started"),
    )
    api_key: str | None = field(
        default=None,
        repr=False,
        validator=_said,
        metadata=_help("its key; better: api_key_env"),
    )
    api_key_env: str | None = field(
        default=None,
        validator=_said,
        metadata=_help("the environment variable that holds its key"),
    )
    requests_per_minute: float | None = field(
        default=None,
        converter=as_float,
        validator=_above_zero(),
        metadata=_help("further ones wait; no limit, if left out"),
    )
    tokens_per_minute: float | None = field(
        default=None,
        converter=as_float,
        validator=_above_zero(),
        metadata=_help("prompts and answers together; no limit, if left out"),
    )
    lazy: bool = field(
        default=True,
        metadata=_help("start it when it is first used, and stop it when it is not any more"),
    )
    program: str | None = field(
        default=None,
        validator=_said,
        metadata=_help("the program's path, where it is not on PATH: /opt/vllm/bin/vllm"),
    )
    port: int | None = field(
        default=None,
        validator=_from(1, 65535),
        metadata=_help("the port; the program's usual one or a free one, if left out"),
    )
    command: tuple[str, ...] = field(
        default=(),
        converter=_as_tuple,
        validator=_words,
        metadata=_help(
            "for the backend command: the whole command line, with {model}, {port} and {host} in it"
        ),
    )
    extra_serve_flags: tuple[str, ...] = field(
        default=(),
        converter=_as_tuple,
        validator=_words,
        metadata=_help("further flags, passed on as they are"),
    )
    extra_env: Mapping[str, str] = field(
        factory=dict,
        validator=_variables,
        repr=lambda env: repr(sorted(env)),
        metadata=_help("further environment variables, for this process only"),
    )
    dtype: str | None = field(
        default=None, validator=_said, metadata=_help("the type of weights and activations")
    )
    gpu_memory_utilization: float | None = field(
        default=None,
        converter=as_float,
        validator=_above_zero(1),
        metadata=_help("the share of the GPU's memory that it may take"),
    )
    max_model_len: int | None = field(
        default=None,
        validator=_from(1),
        metadata=_help("prompt and answer together, in tokens"),
    )
    tensor_parallel_size: int | None = field(
        default=None, validator=_from(1), metadata=_help("how many GPUs share each layer")
    )
    enable_reasoning: bool | None = field(
        default=None, metadata=_help("have its reasoning told apart from its answer")
    )
    reasoning_parser: str | None = field(
        default=None,
        validator=_said,
        metadata=_help("how the engine reads the model's reasoning"),
    )
    gpu_ids: tuple[int, ...] = field(
        default=(),
        converter=_as_tuple,
        validator=_devices,
        metadata=_help("the GPUs that it sees; all, if left out"),
    )
    device: str | None = field(
        default=None,
        validator=_said,
        metadata=_help("where transformers or onnx compute: cpu, cuda or cuda:0; cpu, if left out"),
    )
    attention: str | None = field(
        default=None,
        validator=_said,
        metadata=_help("how transformers computes attention: sdpa, eager, flash_attention_2"),
    )
    trust_remote_code: bool = field(
        default=False,
        metadata=_help("transformers may run Python code that the model's folder brings along"),
    )
    task: str | None = field(
        default=None,
        validator=_said,
        metadata=_help(
            "what transformers or onnx have the model do: generate, embed, rerank or classify; as "
            "its folder says, if left out"
        ),
    )
    slots: int | None = field(
        default=None,
        validator=_from(1, 256),
        metadata=_help("how many answers transformers or onnx write at once; 16, if left out"),
    )
    startup_timeout_s: float = field(
        default=600.0,
        converter=as_float,
        validator=_above_zero(),
        metadata=_help("how long it may take until it answers, in seconds"),
    )
    idle_timeout_s: float | None = field(
        default=300.0,
        converter=as_float,
        validator=_above_zero(),
        metadata=_help("a lazy engine under the gateway is stopped when unused for so long"),
    )
    stop_timeout_s: float = field(
        default=15.0,
        converter=as_float,
        validator=_above_zero(),
        metadata=_help("how long it may take to end before it is killed, in seconds"),
    )
    input_price_usd: float | None = field(
        default=None,
        converter=as_float,
        validator=_price,
        metadata=_help(
            "US dollars for a million tokens of prompt, for clients and chains (under the gateway "
            "routes name prices); as its provider publishes, if left out"
        ),
    )
    output_price_usd: float | None = field(
        default=None,
        converter=as_float,
        validator=_price,
        metadata=_help("the same for tokens of answers; to be given together"),
    )

    def __attrs_post_init__(self) -> None:
        at = fields(type(self))
        if self.api_key is not None and self.api_key_env is not None:
            raise WrongAmount(
                "api_key_env is given beside api_key; one of them is enough", at.api_key_env
            )
        if self.backend == "command" and not self.command and self.endpoint is None:
            raise WrongAmount(
                "command is empty; the backend command needs a command line, such as "
                "[my-server, --model, '{model}', --port, '{port}']",
                at.command,
            )
        if self.command and self.backend != "command":
            raise WrongAmount(
                f"command is given, and backend is {self.backend!r}; it must be 'command' then",
                at.command,
            )
        if self.enable_reasoning is False and self.reasoning_parser is not None:
            raise WrongAmount(
                f"reasoning_parser is {self.reasoning_parser!r}, and enable_reasoning is false; "
                "leave one of them out",
                at.reasoning_parser,
            )
        gpus = len(self.gpu_ids)
        if gpus and self.tensor_parallel_size is not None and self.tensor_parallel_size > gpus:
            raise WrongAmount(
                f"tensor_parallel_size is {self.tensor_parallel_size}, and gpu_ids names {gpus}; "
                "it must be so many at most",
                at.tensor_parallel_size,
            )
        if (self.input_price_usd is None) != (self.output_price_usd is None):
            missing, given = (
                ("input", "output") if self.input_price_usd is None else ("output", "input")
            )
            raise WrongAmount(
                f"{missing}_price_usd is left out, and {given}_price_usd is given; both are needed",
                getattr(at, f"{missing}_price_usd"),
            )
        if self.endpoint is not None:
            for name in of_a_start(self):
                raise WrongAmount(
                    f"{name} is given beside endpoint, where nothing is started; leave one of them "
                    "out",
                    getattr(at, name),
                )


def of_a_start(config: EngineConfig) -> list[str]:
    """What is said of how its server is started: it means nothing where somebody else started it."""
    return [
        each.name
        for each in fields(EngineConfig)
        if each.name in _OF_A_START
        and getattr(config, each.name) != ({} if each.name == "extra_env" else each.default)
    ]


@frozen(kw_only=True)
class ServerSnapshot:
    """How an engine's server stands; ``command`` without secrets.

    ``reused`` is one that somebody else started. ``left_behind`` is one whose users were all killed
    before they could end it; the next start of any engine does. ``memory_bytes`` is what its process
    group holds, ``started`` a Unix time.
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
    left_behind: bool = False
