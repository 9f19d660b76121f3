"""What models can do, as data: a table by name, joined with what the provider's row leaves out.

Names are globs over the model's last part in small letters (``openai/GPT-4o-mini`` is asked for as
``gpt-4o-mini``); the first that fits counts. A model that no row fits is unknown, and what we do
not know we do not refuse: the provider decides. Context windows and prices are not here but in the
price data (``numbers.price``), which is newer than any table of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from functools import lru_cache

from attrs import frozen

from headrace.backends.row import Provider, Structured
from headrace.contracts.capabilities import BackendCapabilities, JSONMode, ToolCallingMode
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import AudioPart, ImagePart
from headrace.contracts.requests import LLMRequest, ResponseMode
from headrace.numbers.price import Rates, context_window, rates_of


@frozen(kw_only=True)
class ModelRow:
    """What the models under ``globs`` can do."""

    globs: tuple[str, ...]
    tools: ToolCallingMode = "native"
    json: JSONMode = "native"
    vision: bool = False
    audio: bool = False
    reasoning: bool = False
    embeddings: bool = False


@frozen(kw_only=True)
class ModelDescription:
    """All that we know of one model of one provider."""

    provider: str
    model: str
    capabilities: BackendCapabilities
    rates: Rates | None = None


@frozen(kw_only=True)
class Lack:
    """What a model has not, and the field of the request that needs it."""

    param: str
    what: str


_EMBEDDING = ModelRow(
    globs=(
        *(
            "text-embedding-*",
            "embed-*",
            "*-embed",
            "*-embed-*",
            "*embedding*",
            "all-minilm-*",
            "bge-*",
        ),
        *("gte-*", "e5-*", "multilingual-e5-*", "voyage-*"),
    ),
    tools="none",
    json="none",
    embeddings=True,
)

MODELS: tuple[ModelRow, ...] = (
    _EMBEDDING,
    # https://platform.openai.com/docs/models: JSON schemas are native from gpt-4o on.
    ModelRow(globs=("gpt-4o-audio*", "gpt-audio*"), json="prompt+validate", audio=True),
    ModelRow(globs=("gpt-4o*", "chatgpt-4o*", "gpt-4.1*", "gpt-4.5*"), vision=True),
    ModelRow(globs=("gpt-4-turbo*", "gpt-4-vision*"), json="prompt+validate", vision=True),
    ModelRow(
        globs=("gpt-3.5-turbo-instruct*", "davinci-*", "babbage-*"), tools="none", json="none"
    ),
    ModelRow(globs=("gpt-4", "gpt-4-*", "gpt-3.5*"), json="prompt+validate"),
    ModelRow(globs=("o1-mini*", "o1-preview*"), tools="none", json="none", reasoning=True),
    ModelRow(globs=("o3-mini*", "gpt-oss*"), reasoning=True),
    ModelRow(globs=("o1*", "o3*", "o4*", "gpt-5*", "gpt-6*"), vision=True, reasoning=True),
    # https://docs.anthropic.com/en/docs/about-claude/models
    ModelRow(
        globs=(
            "claude-3-5-*",
            "claude-3.5-*",
            "claude-3-haiku*",
            "claude-3-sonnet*",
            "claude-3-opus*",
        ),
        json="prompt+validate",
        vision=True,
    ),
    ModelRow(globs=("claude-*",), json="prompt+validate", vision=True, reasoning=True),
    # https://ai.google.dev/gemini-api/docs/models
    ModelRow(globs=("gemini-1.5*", "gemini-2.0*"), vision=True, audio=True),
    ModelRow(globs=("gemini-*",), vision=True, audio=True, reasoning=True),
    ModelRow(globs=("gemma-2*", "gemma-3-270m*", "gemma-3-1b*"), tools="best_effort"),
    ModelRow(globs=("gemma-3-*",), tools="best_effort", vision=True),
    # https://docs.mistral.ai/getting-started/models/models_overview/ and the models' own cards:
    # Large 3, Medium 3, Small 3.1, Ministral 3 and Magistral 1.2 see, each one's forerunners do not;
    # Medium 3.5 and Small 4 reason as well.
    ModelRow(globs=("mistral-ocr*",), tools="none", json="none", vision=True),
    ModelRow(globs=("voxtral-*transcribe*",), tools="none", json="none", audio=True),
    ModelRow(globs=("voxtral-*",), audio=True),
    ModelRow(globs=("pixtral-*", "devstral-2*", "devstral-*2512*"), vision=True),
    ModelRow(globs=("codestral*", "devstral-*", "open-mistral*", "open-mixtral*", "mixtral-*")),
    ModelRow(globs=("magistral-*2506*", "magistral-*2507*"), reasoning=True),
    ModelRow(globs=("magistral-*", "ministral-*reasoning*"), vision=True, reasoning=True),
    ModelRow(globs=("mistral-medium-2312*", "mistral-tiny*"), tools="none", json="none"),
    ModelRow(
        globs=(
            *("mistral-large-*2402*", "mistral-large-*2407*", "mistral-large-*2411*"),
            *("mistral-small-*2402*", "mistral-small-*2409*", "mistral-small-*2501*"),
            *("ministral-3b", "ministral-8b", "ministral-*2410*"),
            *("mistral-7b*", "mistral-nemo*", "mistral-saba*"),
        ),
    ),
    ModelRow(
        globs=(
            *("mistral-medium-3", "mistral-medium-3-1*", "mistral-medium-3.1*"),
            *("mistral-medium-2505*", "mistral-medium-2508*"),
            *("mistral-small-3.1*", "mistral-small-3.2*"),
            *("mistral-small-2503*", "mistral-small-2506*", "mistral-large-3*"),
            *("mistral-large-*2512*", "ministral-*"),
        ),
        vision=True,
    ),
    ModelRow(
        globs=("mistral-large*", "mistral-medium*", "mistral-small*"), vision=True, reasoning=True
    ),
    # https://docs.cohere.com/docs/models: tools from Command R on; JSON schemas for those, too.
    ModelRow(globs=("command-a-vision*", "c4ai-aya-vision*"), tools="none", vision=True),
    ModelRow(globs=("command-a-reasoning*",), reasoning=True),
    ModelRow(globs=("command-a*", "command-r*", "c4ai-command*")),
    ModelRow(
        globs=("command", "command-light*", "c4ai-aya-*"), tools="none", json="prompt+validate"
    ),
    # https://api-docs.deepseek.com/quick_start/pricing: JSON objects, but no schemas.
    ModelRow(globs=("deepseek-reasoner*", "deepseek-r1*"), json="prompt+validate", reasoning=True),
    # https://api-docs.deepseek.com/guides/thinking_mode: these think unless told otherwise.
    ModelRow(globs=("deepseek-v4*", "deepseek-flash*"), json="prompt+validate", reasoning=True),
    ModelRow(globs=("deepseek-chat*", "deepseek-v3*"), json="prompt+validate"),
    # https://docs.x.ai/docs/models
    ModelRow(globs=("grok-2-vision*", "grok-*non-reasoning*"), vision=True),
    ModelRow(globs=("grok-3-mini*", "grok-code*"), reasoning=True),
    ModelRow(globs=("grok-2*", "grok-3*")),
    ModelRow(globs=("grok-4*",), vision=True, reasoning=True),
    # https://www.llama.com/docs/model-cards-and-prompt-formats/
    ModelRow(globs=("llama-3.2-11b-vision*", "llama-3.2-90b-vision*", "llama-4-*"), vision=True),
    ModelRow(globs=("llama-2-*", "llama2*"), tools="none"),
    ModelRow(globs=("llama-3*", "meta-llama-3*", "llama3*")),
    # https://qwen.readthedocs.io/en/latest/
    ModelRow(globs=("qwen*-omni*",), vision=True, audio=True),
    ModelRow(globs=("qwen*-vl-*thinking*", "qvq-*"), vision=True, reasoning=True),
    ModelRow(globs=("qwen*-vl*",), vision=True),
    ModelRow(globs=("qwen3-*-instruct-2507*", "qwen3-coder*", "qwen2*", "qwen1.5*")),
    ModelRow(globs=("qwq-*", "qwen3-*"), reasoning=True),
    # https://huggingface.co/collections/microsoft/phi-4, https://huggingface.co/HuggingFaceTB
    ModelRow(globs=("phi-4-multimodal*",), tools="best_effort", vision=True, audio=True),
    ModelRow(globs=("phi-4-reasoning*", "phi-4-mini-reasoning*"), tools="none", reasoning=True),
    ModelRow(globs=("smollm2-*",), tools="best_effort"),
    ModelRow(globs=("smollm3-*",), reasoning=True),
)

_UNKNOWN = ModelRow(globs=("*",), tools="best_effort", json="prompt+validate")


def capabilities_of(provider: Provider, model: str) -> BackendCapabilities:
    """What ``model`` (the provider's own name for it) can do there.

    Loads the price data for providers that have prices; keep the answer.
    """
    found = _row_of(model)
    row = found or _UNKNOWN
    lacks = provider.unsupported
    json = row.json
    if json == "native" and "response_schema" in lacks:
        json = "prompt+validate"
    return BackendCapabilities(
        streaming=not row.embeddings,
        tool_calling="none" if "tools" in lacks else row.tools,
        json_mode=json,
        vision=row.vision,
        max_context_tokens=context_window(provider.prices, model),
        audio=row.audio,
        reasoning=row.reasoning and "reasoning_effort" not in lacks,
        logprobs=not row.embeddings and "logprobs" not in lacks,
        embeddings=row.embeddings and provider.embeddings_path is not None,
        known=found is not None,
    )


@lru_cache(maxsize=1024)
def best_mode(structured: Structured, model: str) -> ResponseMode:
    """The first of the ways in which ``model`` can be asked, as far as we know."""
    return next(
        (way for way in structured.modes if _can_be_asked(structured, model, way)), "prompt"
    )


def _can_be_asked(structured: Structured, model: str, mode: ResponseMode) -> bool:
    """Whether ``model`` can, as far as we know, be asked in that way for what meets a schema.

    Of a model that we do not know only the two ways are sure that need nothing of it: the
    provider's own, where the provider holds every model to a schema, and plain words.
    """
    row = _row_of(model)
    if mode == "schema":
        held = structured.models
        if held is not None:
            return names(held, model)
        return row is not None and row.json == "native"
    if mode == "tool":
        return row is not None and row.tools == "native"
    return mode == "prompt" or (row is not None and row.json != "none")


def describe_model(provider: Provider, model: str, on: date) -> ModelDescription:
    """Capabilities and the rates that hold on a day (UTC)."""
    return ModelDescription(
        provider=provider.name,
        model=model,
        capabilities=capabilities_of(provider, model),
        rates=rates_of(provider.prices, model, on),
    )


def lacking(
    request: LLMRequest,
    capabilities: BackendCapabilities,
    *,
    prompt_tokens: int | None = None,
) -> tuple[Lack, ...]:
    """What ``request`` needs and the model has not; nothing if it can be served.

    ``prompt_tokens`` is the prompt's length where it was counted. Of a model that we do not know,
    only the context window is looked at, which is data of its own.
    """
    found = list(_lacking_abilities(request, capabilities)) if capabilities.known else []
    window = capabilities.max_context_tokens
    if window is not None:
        for param, tokens in (("messages", prompt_tokens), ("max_tokens", request.max_tokens)):
            if tokens is not None and tokens > window:
                what = f"a context window of {tokens} tokens (it has {window})"
                found.append(Lack(param=param, what=what))
    return tuple(found)


def require(
    request: LLMRequest,
    capabilities: BackendCapabilities,
    *,
    model: str | None = None,
    prompt_tokens: int | None = None,
) -> None:
    """Raises LLMCapabilityError that names all that is lacking for ``request``.

    ``model`` is the one that was chosen, where that is not the request's own.
    """
    found = lacking(request, capabilities, prompt_tokens=prompt_tokens)
    if found:
        raise LLMCapabilityError(
            f"model {(model or request.model)!r} lacks {' and '.join(lack.what for lack in found)}; leave "
            "that out, or ask a model that has it",
            param=found[0].param,
        )


def _lacking_abilities(request: LLMRequest, has: BackendCapabilities) -> Iterator[Lack]:
    if request.messages and has.embeddings:
        yield Lack(param="messages", what="chat (it makes embeddings)")
    if request.tools and has.tool_calling == "none":
        yield Lack(param="tools", what="tool calling")
    if _wants_json(request) and has.json_mode == "none" and request.response_mode is None:
        yield Lack(param="response_format", what="JSON mode")
    kinds = _part_kinds(request)
    if ImagePart in kinds and not has.vision:
        yield Lack(param="messages", what="vision (there is an image in the messages)")
    if AudioPart in kinds and not has.audio:
        yield Lack(param="messages", what="audio input (there is a recording in the messages)")
    if request.logprobs and not has.logprobs:
        yield Lack(param="logprobs", what="log probabilities")
    if request.reasoning_effort not in (None, "none") and not has.reasoning:
        yield Lack(param="reasoning_effort", what="reasoning")


@lru_cache(maxsize=1024)
def names(globs: tuple[str, ...], model: str) -> bool:
    """Whether one of ``globs`` fits the model's name."""
    return any(fnmatchcase(name, glob) for name in _names_of(model) for glob in globs)


@lru_cache(maxsize=1024)
def _row_of(model: str) -> ModelRow | None:
    for name in _names_of(model):
        for row in MODELS:
            if any(fnmatchcase(name, glob) for glob in row.globs):
                return row
    return None


def _names_of(model: str) -> tuple[str, str]:
    """Without the provider's path before the name; and without a variant behind it (":free")."""
    name = model.rsplit("/", 1)[-1].lower()
    return name, name.partition(":")[0]


def _wants_json(request: LLMRequest) -> bool:
    if request.response_schema is not None:
        return True
    return (request.response_format or {}).get("type") in ("json_object", "json_schema")


def _part_kinds(request: LLMRequest) -> set[type]:
    return {
        type(part)
        for message in request.messages
        if not isinstance(message.content, str)
        for part in message.content
    }
