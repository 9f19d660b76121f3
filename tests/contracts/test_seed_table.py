"""The contracts that callers were promised, as a table, against the ones we have."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

import attrs
import pytest

from headrace.contracts import (
    capabilities,
    errors,
    messages,
    protocols,
    record,
    requests,
    responses,
    snapshot,
)
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus
from headrace.contracts.messages import LLMMessage, LLMToolResult, ToolCall, ToolSpec
from headrace.contracts.protocols import LLMClient, LLMProviderAdapter
from headrace.contracts.requests import LLMChatParams, LLMRequest, TaskProfile
from headrace.contracts.responses import (
    EmbeddingResult,
    LLMDelta,
    LLMResponse,
    LLMStreamEvent,
    Provenance,
    ToolCallDelta,
    Usage,
)

REQUIRED = object()
EMPTY_DICT = object()

LITERALS = {
    (messages, "LLMRole"): ("system", "user", "assistant", "tool"),
    (responses, "LLMStreamEventKind"): ("delta", "completed"),
    (capabilities, "ToolCallingMode"): ("native", "best_effort", "none"),
    (capabilities, "JSONMode"): ("native", "prompt+validate", "none"),
    (requests, "TaskPriority"): ("latency", "quality", "cost", "balanced"),
}

# class -> field -> (types it takes, default)
CLASSES: dict[type, dict[str, tuple[Any, object]]] = {
    LLMMessage: {
        "role": (messages.LLMRole, REQUIRED),
        "content": (str, REQUIRED),
        "name": (str | None, None),
        "tool_call_id": (str | None, None),
        "tool_name": (str | None, None),
    },
    LLMChatParams: {
        "temperature": (float | None, None),
        "max_tokens": (int | None, None),
        "response_schema": (dict[str, object] | None, None),
        "provider_options": (dict[str, object], EMPTY_DICT),
    },
    ToolSpec: {
        "name": (str, REQUIRED),
        "description": (str, ""),
        "input_schema": (dict[str, object], EMPTY_DICT),
        "strict": (bool | None, None),
    },
    ToolCall: {
        "name": (str, REQUIRED),
        "arguments_json": (str, REQUIRED),
        "call_id": (str, REQUIRED),
    },
    LLMToolResult: {
        "call_id": (str, REQUIRED),
        "output_json": (str, REQUIRED),
        "error": (str | None, None),
    },
    Usage: {
        "prompt_tokens": (int | None, None),
        "completion_tokens": (int | None, None),
        "total_tokens": (int | None, None),
    },
    TaskProfile: {
        "priority": (requests.TaskPriority, "balanced"),
        "max_cost_usd": (float | None, None),
        "max_latency_ms": (int | None, None),
        "tags": (tuple[str, ...], ()),
    },
    LLMRequest: {
        "messages": (Sequence[LLMMessage], REQUIRED),
        "model": (str | None, None),
        "temperature": (float | None, None),
        "max_tokens": (int | None, None),
        "tools": (Sequence[ToolSpec], ()),
        "response_schema": (dict[str, object] | None, None),
        "response_format": (dict[str, object] | None, None),
        "metadata": (dict[str, object], EMPTY_DICT),
        "provider_options": (dict[str, object], EMPTY_DICT),
        "task_profile": (TaskProfile | None, None),
    },
    Provenance: {
        "backend_name": (str, REQUIRED),
        "backend_kind": (str, REQUIRED),
        "model_id": (str, REQUIRED),
        "base_url": (str | None, REQUIRED),
        "started_at": (str, REQUIRED),
        "completed_at": (str, REQUIRED),
        "config_hash": (str, REQUIRED),
    },
    LLMResponse: {
        "text": (str, REQUIRED),
        "model": (str | None, None),
        "provider": (str | None, None),
        "finish_reason": (str | None, None),
        "usage": (Usage | dict[str, int] | None, None),
        "latency_ms": (int | None, None),
        "raw_output": (dict[str, object] | None, None),
        "tool_calls": (tuple[ToolCall, ...], ()),
        "raw": (dict[str, object] | None, None),
        "provenance": (Provenance | None, None),
    },
    LLMStreamEvent: {
        "kind": (responses.LLMStreamEventKind, REQUIRED),
        "delta_text": (str | None, None),
        "response": (LLMResponse | None, None),
    },
    ToolCallDelta: {
        "call_id": (str | None, None),
        "name": (str | None, None),
        "arguments_json_delta": (str | None, None),
    },
    LLMDelta: {
        "text_delta": (str | None, None),
        "tool_call_delta": (ToolCallDelta | None, None),
        "usage_delta": (Usage | None, None),
    },
    EmbeddingResult: {
        "vectors": (Sequence[Sequence[float]], REQUIRED),
        "model_id": (str | None, None),
        "usage": (Usage | None, None),
    },
    BackendCapabilities: {
        "streaming": (bool, REQUIRED),
        "tool_calling": (capabilities.ToolCallingMode, REQUIRED),
        "json_mode": (capabilities.JSONMode, REQUIRED),
        "vision": (bool, REQUIRED),
        "max_context_tokens": (int | None, REQUIRED),
    },
    BackendStatus: {
        "ok": (bool, REQUIRED),
        "message": (str | None, None),
        "details": (Mapping[str, object] | None, None),
        "checked_at": (str | None, None),
    },
}
FIELDS = [(c, name, tp, default) for c, fs in CLASSES.items() for name, (tp, default) in fs.items()]

P, K = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
CHAT = {
    "messages": (P, Sequence[LLMMessage]),
    "model": (K, str),
    "params": (K, LLMChatParams),
}
ASK = {"request": (P, LLMRequest)}
EXIT = {
    "exc_type": (P, type[BaseException] | None),
    "exc": (P, BaseException | None),
    "tb": (P, TracebackType | None),
}
METHODS: list[tuple[type, str, dict[str, tuple[Any, Any]], Any]] = [
    (LLMClient, "chat", CHAT, LLMResponse),
    (LLMClient, "stream_chat", CHAT, Iterator[LLMStreamEvent]),
    (LLMClient, "generate", ASK, LLMResponse),
    (LLMClient, "stream", ASK, Iterator[LLMDelta]),
    (LLMClient, "close", {}, type(None)),
    (LLMClient, "__enter__", {}, Self),
    (LLMClient, "__exit__", EXIT, bool | None),
    (LLMClient, "default_model", {}, str),
    (LLMClient, "capabilities", {}, BackendCapabilities),
    (LLMClient, "config_snapshot", {}, Mapping[str, object]),
    (LLMClient, "server_snapshot", {}, Mapping[str, object] | None),
    (LLMClient, "describe", {}, Mapping[str, object]),
    (LLMProviderAdapter, "chat", CHAT, LLMResponse),
    (LLMProviderAdapter, "stream_chat", CHAT, Iterator[LLMStreamEvent]),
]

MODULES = (capabilities, errors, messages, protocols, record, requests, responses, snapshot)
CONTRACTS = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and attrs.has(value) and value.__module__ == module.__name__
    },
    key=lambda cls: cls.__name__,
)


def members(tp: Any) -> set[Any]:
    return set(get_args(tp)) if get_origin(tp) in (Union, UnionType) else {tp}


@pytest.mark.parametrize(("home", "words"), LITERALS.items())
def test_a_literal_has_its_words(home, words):
    module, name = home
    assert getattr(module, name) == Literal[words]


@pytest.mark.parametrize(("cls", "name", "tp", "default"), FIELDS)
def test_a_promised_field_is_there(cls, name, tp, default):
    field = attrs.fields_dict(cls)[name]
    # Ours may take more (a message's content also takes parts), never less.
    assert members(tp) <= members(get_type_hints(cls)[name])
    if default is REQUIRED:
        assert field.default is attrs.NOTHING
    elif default is EMPTY_DICT:
        assert field.default == attrs.Factory(dict)
    else:
        assert field.default == default
        assert type(field.default) is type(default)


@pytest.mark.parametrize("cls", CLASSES)
def test_what_we_added_to_a_promised_class_is_optional(cls):
    added = [f for f in attrs.fields(cls) if f.name not in CLASSES[cls]]
    assert [f.name for f in added if f.default is attrs.NOTHING] == []


@pytest.mark.parametrize(("cls", "name", "parameters", "returns"), METHODS)
def test_a_promised_method_has_its_signature(cls, name, parameters, returns):
    method = vars(cls)[name]
    hints = get_type_hints(method)
    found = list(inspect.signature(method).parameters.values())[1:]
    assert {p.name: (p.kind, hints[p.name]) for p in found} == parameters
    assert [p.name for p in found] == list(parameters)
    assert [p.name for p in found if p.default is not inspect.Parameter.empty] == []
    assert hints["return"] == returns


def test_an_adapter_names_its_provider():
    assert get_type_hints(LLMProviderAdapter)["provider_name"] is str


def test_now_is_told_in_utc():
    assert isinstance(vars(Provenance)["now_iso"], staticmethod)
    assert Provenance.now_iso().endswith("+00:00")


def test_every_module_was_searched_for_contracts():
    assert {LLMRequest, LLMMessage, Usage, record.CallRecord, snapshot.Snapshot} <= set(CONTRACTS)


@pytest.mark.parametrize("cls", CONTRACTS)
def test_a_contract_is_frozen_unless_it_belongs_to_a_running_call(cls):
    made = object.__new__(cls)
    name = attrs.fields(cls)[0].name
    if cls is record.Marks:
        setattr(made, name, None)
    else:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(made, name, None)


@pytest.mark.parametrize("cls", CONTRACTS)
def test_a_contract_is_slotted(cls):
    assert not hasattr(object.__new__(cls), "__dict__")


@pytest.mark.parametrize("cls", CONTRACTS)
def test_a_contract_takes_keywords_only(cls):
    kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
    assert kinds == {K}
