"""What is asked: a request with its sampling controls, tools and routing hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.messages import LLMMessage, ToolSpec
from headrace.contracts.quick import quick_init

TaskPriority: TypeAlias = Literal["latency", "quality", "cost", "balanced"]
Priority: TypeAlias = Literal["high", "normal", "low", "idle"]
"""``idle`` runs where nobody else waits, never passes anybody, and waits for as long as that takes."""

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ResponseMode: TypeAlias = Literal["auto", "schema", "tool", "json", "prompt"]
"""How a model is asked for an answer that meets a schema.

``schema``: the provider holds it to the schema; ``tool``: a call of one tool, which it must make;
``json``: the provider's JSON mode, and the schema told in words; ``prompt``: told in words alone.
``auto`` is the best of them that provider and model have.
"""


@frozen(kw_only=True)
class NamedTool:
    """A tool choice that forces one tool."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


@frozen(kw_only=True)
class LLMChatParams:
    """Generation controls of ``chat`` and ``stream_chat``; ``None`` leaves the backend's default.

    ``provider_options`` go into the provider's request body as they are; ``priority`` stays with us
    and orders those that wait for the same backend.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    response_schema: dict[str, object] | None = None
    provider_options: dict[str, object] = field(factory=dict)
    tools: Sequence[ToolSpec] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    priority: Priority = "normal"


@frozen(kw_only=True)
class TaskProfile:
    """Hints for choosing a backend; ``max_cost_usd`` and ``max_latency_ms`` are hard limits."""

    priority: TaskPriority = "balanced"
    max_cost_usd: float | None = None
    max_latency_ms: int | None = None
    tags: tuple[str, ...] = ()


@quick_init
@frozen(kw_only=True)
class LLMRequest:
    """One request for generation, in no provider's words.

    A chat request has ``messages``; a text completion has ``prompt`` (text or token ids) and no
    messages. ``max_tokens`` bounds the output, ``logit_bias`` maps token ids (as text, the way
    JSON keys are) to additive biases, ``logprobs`` asks for log probabilities and ``top_logprobs``
    for that many alternatives a token. ``response_schema`` is a JSON Schema that the answer must
    meet; ``response_format`` is a provider's own hint. ``response_mode`` lets a provider without
    schemas of its own be asked in another way (see ResponseMode); ``None`` is its own way or none.
    Where the schema has to be told in words, ``response_instruction`` are these words: ours, if it is
    ``None``, and nothing is told if it is empty.
    ``provider_options`` go into the provider's body as they are. ``metadata`` stays with us (tracing; ``api_key`` for this call alone), and so
    does ``priority``: it orders those that wait for the same backend.
    """

    messages: Sequence[LLMMessage]
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tools: Sequence[ToolSpec] = ()
    response_schema: dict[str, object] | None = None
    response_format: dict[str, object] | None = None
    metadata: dict[str, object] = field(factory=dict, repr=False)
    provider_options: dict[str, object] = field(factory=dict)
    task_profile: TaskProfile | None = None
    prompt: str | tuple[int, ...] | None = None
    suffix: str | None = None
    echo: bool | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    user: str | None = None
    request_id: str | None = None
    priority: Priority = "normal"
    response_mode: ResponseMode | None = None
    response_instruction: str | None = None


@frozen(kw_only=True)
class EmbeddingRequest:
    """Texts (or token ids of the model's own) to be turned into one vector each.

    ``dimensions`` asks for shorter vectors, where the model was trained for that. The other fields
    mean what they mean in LLMRequest.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    model: str | None = None
    dimensions: int | None = None
    user: str | None = None
    metadata: dict[str, object] = field(factory=dict, repr=False)
    provider_options: dict[str, object] = field(factory=dict)
    request_id: str | None = None
