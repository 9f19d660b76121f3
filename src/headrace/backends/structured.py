"""A request for an answer that meets a schema, in the way that its provider and model have for it.

Only requests with a ``response_mode`` come here. Whatever the way, the answer is JSON text when it
leaves: the arguments of a forced tool call are handed on as the text that they are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache

from headrace.backends.capabilities import best_mode, names
from headrace.backends.row import Provider
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.messages import LLMMessage, TextPart, ToolSpec
from headrace.contracts.quick import changed
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, NamedTool, ResponseMode
from headrace.contracts.responses import LLMDelta
from headrace.wire import json as wire_json
from headrace.wire.openai_strict import strict_schema

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]+")
_LONGEST_NAME = 64


def in_its_way(
    ask: Callable[[LLMRequest, Marks], AsyncGenerator[LLMDelta, None]],
    request: LLMRequest,
    marks: Marks,
    provider: Provider,
    model: str | None,
) -> AsyncGenerator[LLMDelta, None]:
    """What ``ask`` answers to ``request`` put in the way that is right for it there.

    Raises LLMCapabilityError as ``mode_of`` does.
    """
    mode = marks.response_mode = mode_of(request, provider, model)
    if mode is not None:
        request = asked(request, provider, model, mode)
    pieces = ask(request, marks)
    return as_text(pieces) if mode == "tool" else pieces


def mode_of(request: LLMRequest, provider: Provider, model: str | None) -> ResponseMode | None:
    """The way in which ``request`` is asked there; ``None`` where it is asked as it stands.

    Raises LLMCapabilityError where it demands a way that the provider does not know.
    """
    wanted, modes = request.response_mode, provider.structured.modes
    if wanted is None or request.response_schema is None:
        return None
    if wanted == "auto":
        return best_mode(provider.structured, model or "")
    if wanted != "prompt" and wanted not in modes:
        raise LLMCapabilityError(
            f"{provider.name} cannot be asked in mode {wanted!r}; it knows "
            f"{', '.join(dict.fromkeys([*modes, 'prompt']))}",
            param="response_mode",
            provider=provider.name,
        )
    return wanted


def asked(
    request: LLMRequest, provider: Provider, model: str | None, mode: ResponseMode
) -> LLMRequest:
    """``request``, which has a schema, put in the way of ``mode``."""
    schema = request.response_schema
    assert schema is not None
    name = name_of(schema)
    strict = (
        _strict(wire_json.encode(schema))
        if names(provider.structured.strict, model or "")
        else None
    )
    if mode == "schema":
        described: dict[str, object] = {"name": name, "schema": strict or schema}
        if provider.structured.strict:
            described["strict"] = strict is not None
        request = changed(
            request,
            response_schema=strict or schema,
            response_format={"type": "json_schema", "json_schema": described},
        )
        if not provider.structured.told:
            return request
        return told(request, schema, request.response_instruction)
    request = changed(request, response_schema=None, response_format=None)
    if mode == "tool":
        tool = ToolSpec(
            name=name,
            description=str(schema.get("description") or "Hands over the answer."),
            input_schema=strict or schema,
            strict=True if strict is not None else None,
        )
        return changed(request, tools=(tool,), tool_choice=NamedTool(name=name))
    if mode == "json":
        request = changed(request, response_format={"type": "json_object"})
    return told(request, schema, request.response_instruction)


async def as_text(
    pieces: AsyncGenerator[LLMDelta, None],
) -> AsyncGenerator[LLMDelta, None]:
    """``pieces`` of a tool call as those of the text that its arguments are.

    Text beside the call is left out, unless no call came: then it is the answer, such as it is.
    """
    beside: list[LLMDelta] = []
    called = False
    async with aclosing(pieces):
        async for delta in pieces:
            call, ends = delta.tool_call_delta, delta.finish_reason
            called = called or call is not None
            text = delta.text_delta
            if call is not None:
                # A second call is one too many; the first is the answer.
                text = call.arguments_json_delta if call.index == 0 else None
            elif called:
                text = None
            elif text and ends is None:
                beside.append(delta)
                continue
            if ends is not None and not called:
                for each in beside:
                    yield each
            reason = "stop" if ends == "tool_calls" else ends
            yield changed(delta, tool_call_delta=None, text_delta=text, finish_reason=reason)


@lru_cache(maxsize=128)
def _strict(written: bytes) -> dict[str, object] | None:
    # Many calls ask for the same: it is read and written over here once, and never changed.
    schema = wire_json.decode(written)
    assert isinstance(schema, dict)
    return strict_schema(schema)


def name_of(schema: dict[str, object]) -> str:
    """A name for ``schema`` such as providers take: its title's letters, digits, ``_`` and ``-``."""
    title = schema.get("title")
    name = _NOT_IN_A_NAME.sub("_", title).strip("_") if isinstance(title, str) else ""
    return name[:_LONGEST_NAME] or "answer"


def told(
    request: LLMRequest, schema: Mapping[str, object], instruction: str | None = None
) -> LLMRequest:
    """``request`` with the schema told in its system turn: by ``instruction``, or in our words."""
    if instruction is None:
        written = wire_json.encode(schema).decode()
        instruction = (
            "Answer with one JSON object, and nothing else, that meets this JSON Schema:\n"
            f"{written}"
        )
    if not instruction:
        return request
    return changed(request, messages=_with_system(request.messages, instruction))


def _with_system(messages: Sequence[LLMMessage], telling: str) -> tuple[LLMMessage, ...]:
    if not messages or messages[0].role != "system":
        return (LLMMessage(role="system", content=telling), *messages)
    opening = messages[0]
    content = opening.content
    joined = (
        (f"{content}\n\n{telling}" if content else telling)
        if isinstance(content, str)
        else (*content, TextPart(text=telling))
    )
    return (changed(opening, content=joined), *messages[1:])
