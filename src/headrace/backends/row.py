"""What a provider's row says. All of it is data, so a row can be written in YAML as well."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from headrace.contracts.requests import ResponseMode
from headrace.wire.openai_params import COMMON, Dialect

BatchApiForm: TypeAlias = Literal["openai", "anthropic", "mistral"]
InferenceForm: TypeAlias = Literal["kserve", "tensorflow", "values"]


@frozen(kw_only=True)
class Format:
    """The modules that read and write one wire format; what it does not have is ``None``.

    They are named, and loaded by the first who needs one: most programs speak one format. The paths
    of one that is ``at_root`` begin at the server's root: where a base ends in ``/v1``, as the same
    server's does for OpenAI's format, they are asked without that.
    """

    chat: str
    models: str
    completions: str | None = None
    embeddings: str | None = None
    at_root: bool = False
    rerank: str | None = None
    classify: str | None = None


FORMATS: dict[str, Format] = {
    "openai": Format(
        chat="headrace.wire.openai_chat",
        completions="headrace.wire.openai_completions",
        models="headrace.wire.openai_models",
        embeddings="headrace.wire.openai_embeddings",
        rerank="headrace.wire.rerank",
    ),
    "anthropic": Format(chat="headrace.wire.anthropic", models="headrace.wire.anthropic_models"),
    "gemini": Format(
        chat="headrace.wire.gemini",
        models="headrace.wire.gemini_models",
        embeddings="headrace.wire.gemini_embeddings",
    ),
    "ollama": Format(
        chat="headrace.wire.ollama",
        completions="headrace.wire.ollama_generate",
        models="headrace.wire.ollama_models",
        embeddings="headrace.wire.ollama_embed",
        at_root=True,
    ),
    "openai-responses": Format(
        chat="headrace.wire.openai_responses",
        completions="headrace.wire.openai_completions",
        models="headrace.wire.openai_models",
        embeddings="headrace.wire.openai_embeddings",
    ),
    "cohere": Format(
        chat="headrace.wire.openai_chat",
        models="headrace.wire.cohere_models",
        embeddings="headrace.wire.openai_embeddings",
        rerank="headrace.wire.rerank_cohere",
    ),
    # TGI has conversations in OpenAI's format alone.
    "tgi": Format(
        chat="headrace.wire.tgi",
        completions="headrace.wire.tgi",
        models="headrace.wire.openai_models",
    ),
    "tei": Format(
        chat="headrace.wire.tei",
        models="headrace.wire.hf_info",
        embeddings="headrace.wire.tei",
        rerank="headrace.wire.tei_rerank",
        classify="headrace.wire.tei_predict",
    ),
    "kserve": Format(
        chat="headrace.wire.kserve_generate",
        completions="headrace.wire.kserve_generate",
        models="headrace.wire.kserve",
    ),
    "tensorflow": Format(chat="headrace.wire.kserve_generate", models="headrace.wire.tensorflow"),
    "opea": Format(chat="headrace.wire.opea", models="headrace.wire.openai_models"),
    # By values: what it says of texts and errors is the same.
    "inference": Format(chat="headrace.wire.kserve_generate", models="headrace.wire.openai_models"),
}

_INFERENCE: dict[InferenceForm, str] = {
    "kserve": "headrace.wire.kserve",
    "tensorflow": "headrace.wire.tensorflow",
    "values": "headrace.wire.inference",
}


OPENAIS = frozenset({"openai", "openai-responses"})
"""The formats of servers that have OpenAI's other paths, where they have any."""


SERVICES = frozenset(
    (
        *("audio/transcriptions", "audio/translations", "audio/speech", "moderations"),
        *("images/generations", "images/edits", "images/variations"),
    )
)
"""What servers of OpenAI's format may have beside their models' answers, by the paths."""


@lru_cache
def codec(module: str) -> ModuleType:
    """The wire module of that name."""
    return import_module(module)


def _known_format(_: object, __: object, name: str) -> None:
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; known: {', '.join(sorted(FORMATS))}")


def _plain_name(_: object, __: object, name: str) -> None:
    if not name or "/" in name or name != name.strip().lower():
        raise ValueError(f"{name!r} is no provider's name: small letters, no '/' and no spaces")


def _without_final_slash(url: str | None) -> str | None:
    return url.rstrip("/") if url else None


def _from_root(_: object, attribute: Any, path: str | None) -> None:
    if path is not None and not path.startswith("/"):
        raise ValueError(f"{attribute.name} is {path!r}, must begin with '/'")


def _in_order(names: frozenset[str] | None) -> str:
    """The same text every time, unlike a set's own."""
    return "None" if names is None else repr(sorted(names))


def _names_only(headers: Mapping[str, str]) -> str:
    """Headers may hold keys."""
    return repr(sorted(headers))


def _known_batch(_: object, __: object, form: str | None) -> None:
    if form is not None and form not in get_args(BatchApiForm):
        known = ", ".join(get_args(BatchApiForm))
        raise ValueError(f"batch is {form!r}, must be one of {known}, or nothing")


def _known_services(_: object, __: object, services: frozenset[str] | None) -> None:
    strange = sorted((services or frozenset()) - SERVICES)
    if strange:
        known = ", ".join(sorted(SERVICES))
        raise ValueError(f"there is no service {strange[0]!r}, must be some of {known}")


def _ways(_: object, __: object, modes: tuple[ResponseMode, ...]) -> None:
    known = ("schema", "tool", "json", "prompt")
    if not modes or not set(modes) <= set(known):
        raise ValueError(f"modes are {list(modes)!r}, must be some of {', '.join(known)}")


@frozen(kw_only=True)
class Structured:
    """How a provider is asked for answers that meet a JSON Schema.

    ``modes`` are the ways that it knows, best first (see ResponseMode). ``models`` are globs of the
    models that it holds to a schema by itself; ``None`` leaves that to the table of models.
    ``strict`` are globs of those that it holds to one only within OpenAI's strict rules, and
    otherwise lets answer as they see fit. ``told`` says that the schema has to be told in words
    too: an engine that only bars wrong tokens does not show it to the model.
    """

    modes: tuple[ResponseMode, ...] = field(
        default=("schema", "tool", "json", "prompt"), validator=_ways
    )
    models: tuple[str, ...] | None = None
    strict: tuple[str, ...] = ()
    told: bool = False


def _known_inference(_: object, __: object, form: str) -> None:
    if form not in _INFERENCE:
        known = ", ".join(_INFERENCE)
        raise ValueError(f"inference.form is {form!r}, must be one of {known}")


@frozen(kw_only=True)
class Inference:
    """How a model that is no language model is asked: by named tensors, or by plain values.

    ``path`` and ``metadata_path`` are from the server's root (the base without /v1, /v2 or /v3);
    ``{model}`` and ``{version}`` in them stand for those, and what is in brackets is left out where
    no version is named. ``binary`` says that the server takes tensors as raw bytes; otherwise all is
    JSON.

    A model that continues texts takes them as the tensor ``text_input`` and gives ``text_output``;
    one that makes vectors takes texts as ``embed_input`` and gives them as ``embed_output``. Where
    they are ``None``, the server's models are not asked for that by tensors. With ``values`` a text
    is a value, and needs no name: ``text_input`` only says that it may be one.
    """

    form: InferenceForm = field(default="kserve", validator=_known_inference)
    path: str = field(default="/v2/models/{model}[/versions/{version}]/infer", validator=_from_root)
    metadata_path: str | None = field(
        default="/v2/models/{model}[/versions/{version}]", validator=_from_root
    )
    statistics_path: str | None = field(default=None, validator=_from_root)
    binary: bool = False
    text_input: str | None = None
    text_output: str = "text_output"
    embed_input: str | None = None
    embed_output: str = "embedding"

    @property
    def codec(self) -> ModuleType:
        """Reads and writes requests and answers."""
        return codec(_INFERENCE[self.form])


@frozen(kw_only=True)
class Provider:
    """A backend's wire format, place and quirks.

    ``base_url`` ends where the format's paths begin (``/chat/...``); ``base_url_env`` are variables
    that name another. A path is ``None`` where there is no such service, and ``{model}`` in it
    stands for the model's name; ``count_path`` counts a prompt's tokens. A streamed chat is asked for at
    ``stream_path``, where that is another than ``chat_path``, and a streamed text completion at
    ``completions_stream_path``. ``query`` goes behind every path, ``headers`` with every request.
    ``models_method`` is how the list of models is asked for. ``ready_path``, from the server's root,
    answers with 200 while it is ready; without one, it is where it lists its models.

    ``metrics_path`` is where it tells how it is, from the server's root (the base without /v1), on
    ``metrics_port`` where that is another one; ``None`` where it tells nobody.

    ``key_env`` are the variables that may hold its key, best first; the key is shown as
    ``key_scheme`` and the key in the header ``key_header``. ``needs_key`` says that it answers
    nobody without one.

    ``unsupported`` names settings of ours that it cannot carry out: a request with one is refused.
    ``options`` are the further body fields that it knows; where that is ``None``, any field is
    passed on and it decides itself. ``ignored`` are settings and fields that it takes and does
    nothing with: they are left out and told of as dropped. ``defaults`` are body fields that go
    with every request that does not set them itself.

    ``stream_usage`` says that it has to be asked for the usage of a stream, in ``stream_options``;
    where false it tells unasked and may refuse the question. ``prices`` is its name in the price
    data, ``None`` where nobody publishes a price.

    ``echoes`` says that it puts the prompt before a text completion where asked to; for others we
    do. ``stop_in_text`` says that the text of a completion ends with the stop string that ended it,
    which we take away. ``logprobs_alone`` says that it gives log probabilities without alternatives too; of others
    we ask one alternative and leave it out.

    ``asked_whole`` says that it is asked for a whole answer where the caller wants one, which
    costs less than its pieces. Where false it is asked for a stream even then: some (llama.cpp among
    them) do not notice that the caller of a plain request has left and work on for nobody. Where
    ``streams_logprobs_with_tools`` is false, a request for both is asked whole in any case.

    ``prompt_template`` is how a conversation becomes one text for a server that has text completions
    alone: ``plain``, by which a single turn of the user is that text and any more are refused, the
    name of a template (``chatml``, ``llama-3.3``), or a Jinja file's path. ``inference`` is how its
    models are asked by tensors or values.

    ``structured`` is how it is asked for answers that meet a schema. ``batch`` is the form of its
    batch API, ``None`` where it has none. ``services`` are those of OpenAI's API that it has beside
    its models, by their paths; where that is ``None``, it is asked for any and decides itself.
    """

    name: str = field(validator=_plain_name)
    format: str = field(default="openai", validator=_known_format)
    base_url: str | None = field(default=None, converter=_without_final_slash)
    base_url_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    needs_key: bool = False
    key_header: str = "authorization"
    key_scheme: str = "Bearer "
    headers: Mapping[str, str] = field(factory=dict, repr=_names_only, metadata={"secret": True})
    query: Mapping[str, str] = field(factory=dict)
    chat_path: str | None = field(default="/chat/completions", validator=_from_root)
    stream_path: str | None = field(default=None, validator=_from_root)
    completions_path: str | None = field(default="/completions", validator=_from_root)
    completions_stream_path: str | None = field(default=None, validator=_from_root)
    embeddings_path: str | None = field(default="/embeddings", validator=_from_root)
    rerank_path: str | None = field(default=None, validator=_from_root)
    classify_path: str | None = field(default=None, validator=_from_root)
    models_path: str = field(default="/models", validator=_from_root)
    models_method: Literal["GET", "POST"] = "GET"
    ready_path: str | None = field(default=None, validator=_from_root)
    count_path: str | None = field(default=None, validator=_from_root)
    metrics_path: str | None = field(default=None, validator=_from_root)
    metrics_port: int | None = None
    dialect: Dialect = COMMON
    unsupported: frozenset[str] = field(default=frozenset(), repr=_in_order)
    options: frozenset[str] | None = field(default=None, repr=_in_order)
    ignored: frozenset[str] = field(default=frozenset(), repr=_in_order)
    defaults: Mapping[str, object] = field(factory=dict)
    stream_usage: bool = True
    prices: str | None = None
    echoes: bool = True
    asked_whole: bool = True
    streams_logprobs_with_tools: bool = True
    stop_in_text: bool = False
    logprobs_alone: bool = True
    structured: Structured = field(factory=Structured)
    batch: BatchApiForm | None = field(default=None, validator=_known_batch)
    services: frozenset[str] | None = field(default=None, repr=_in_order, validator=_known_services)
    prompt_template: str | None = None
    inference: Inference | None = None

    def has_service(self, service: str) -> bool:
        """Whether it may be asked for that of OpenAI's services."""
        if self.services is not None:
            return service in self.services
        return self.format in OPENAIS

    @property
    def chat(self) -> ModuleType:
        """Reads and writes chat completions."""
        return codec(FORMATS[self.format].chat)

    @property
    def completions(self) -> ModuleType | None:
        """Reads and writes text completions; ``None`` where the format has none."""
        name = FORMATS[self.format].completions
        return None if name is None else codec(name)

    @property
    def models(self) -> ModuleType:
        """Reads the list of models."""
        return codec(FORMATS[self.format].models)

    @property
    def embeddings(self) -> ModuleType | None:
        """Reads and writes embeddings; ``None`` where the format has none."""
        name = FORMATS[self.format].embeddings
        return None if name is None else codec(name)

    @property
    def rerank(self) -> ModuleType | None:
        """Reads and writes rankings; ``None`` where the format has none."""
        name = FORMATS[self.format].rerank
        return None if name is None else codec(name)

    @property
    def classify(self) -> ModuleType | None:
        """Reads and writes classes; ``None`` where the format has none."""
        name = FORMATS[self.format].classify
        return None if name is None else codec(name)
