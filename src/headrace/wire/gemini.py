"""Gemini's generateContent: requests, answers and streams, each way.

https://ai.google.dev/api/generate-content. The model's name and whether to stream stand in the
address, so a body says neither. A field that we do not know goes into ``provider_options`` and from
there into a backend's body, as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest
from headrace.wire.gemini_chunks import (
    read_response,
    read_whole,
    without_thoughts,
    write_response,
)
from headrace.wire.gemini_config import OWN, config_from_wire, config_to_wire
from headrace.wire.gemini_contents import (
    contents_from_wire,
    conversation_to_wire,
    joined,
    system_from_wire,
)
from headrace.wire.gemini_errors import read_error, status_of, write_error
from headrace.wire.gemini_names import renamed
from headrace.wire.gemini_seals import OWN_SEALS
from headrace.wire.gemini_stream import PING, stream_reader, stream_writer
from headrace.wire.gemini_tools import (
    chosen,
    tools_from_wire,
    tools_to_wire,
)
from headrace.wire.gemini_tools import (
    config_from_wire as tool_config_from_wire,
)
from headrace.wire.gemini_tools import (
    config_to_wire as tool_config_to_wire,
)
from headrace.wire.gemini_unplaced import unplaced
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, decode_reply, encode
from headrace.wire.openai_fields import Check, filled_text, refuse, refuse_absence
from headrace.wire.openai_params import read_settings
from headrace.wire.sse import STREAM_TYPE

__all__ = [
    "OWN_SEALS",
    "PING",
    "STREAM_TYPE",
    "answer_id",
    "joined",
    "read_count",
    "read_count_request",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "status_of",
    "stream_reader",
    "stream_writer",
    "without_thoughts",
    "write_count",
    "write_count_request",
    "write_error",
    "write_request",
    "write_response",
]

ROWS: dict[str, tuple[str, Check]] = {
    "contents": ("messages", contents_from_wire),
    "systemInstruction": ("system", system_from_wire),
    "tools": ("tools", tools_from_wire),
    "toolConfig": ("tool_config", tool_config_from_wire),
    "generationConfig": ("config", config_from_wire),
    "model": ("model", filled_text),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

OWN_FIELDS = OWN | {"labels", "safetySettings", "serviceTier", "store"}
"""Fields for Google's own services and models: a backend of another format has nothing to do for
them, and answers without."""

_TOP = frozenset(ROWS) | OWN_FIELDS | {"cachedContent", "continuationToken"}
_COUNTED = frozenset({"contents", "generateContentRequest", "model"})
_MODELS = "models/"

LOSSES: Mapping[str, str] = {
    "model": "stands in the address",
    "messages.name": "turns have no names",
    "messages.refusal": "told as text, where the turn has no other",
    "messages.reasoning_parts": "seals of other providers cannot be read there",
    "messages.role.later": "a system turn within the conversation is told as a user's",
    "messages.content.detail": "images have no such setting",
    "messages.content.cache": "there are no marks: prompts are cached without",
    "messages.content.filename": "files have no names",
    "messages.order": "parts of an assistant's turn are sorted: thoughts, text, calls",
    "messages.system": "system turns at the beginning become one",
    "tools.cache": "there are no marks: prompts are cached without",
    "tools.strict.mixed": "one strict function makes all of them so; a forced call always is",
    "parallel_tool_calls": "left out: there is no such setting",
    "min_p": "refused",
    "repetition_penalty": "refused",
    "logit_bias": "refused",
    "user": "left out: there is no such field",
    "prompt": "refused: there are no text completions",
    "suffix": "left out: there are no text completions",
    "echo": "left out: there are no text completions",
    "response_format": "a JSON Schema goes without its name",
    "reasoning_effort.max": "the same as 'xhigh'",
    "answer.refusal": "told as text, with the finish reason SAFETY",
    "answer.raw_finish_reason": "told in Gemini's own words",
    "answer.stop_sequence": "which one it was is not told",
    "answer.created": "answers have no date",
    "answer.system_fingerprint": "answers have none",
    "answer.provider_fields": "answers have no fields of others",
    "answer.citations": "we have no place for them; the text stands without",
    "answer.code_execution": "we have no place for it; the text stands without",
    "answer.usage": "what a cache took in counts as not cached",
    "answer.logprobs.token_bytes": "tokens are told as text",
}
"""What the format, or our reading of it, has no place for (see ``wire.losses``)."""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    return _inbound(renamed(decode_object(body), "", _TOP))


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: object = None,
) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    return encode(_body(request, model))


def read_count_request(body: bytes) -> Inbound:
    """The request in a caller's ``body`` that asks for the prompt's length alone."""
    wire = renamed(decode_object(body), "", _COUNTED)
    beyond = sorted(wire.keys() - _COUNTED)
    if beyond:
        right = f"one of {', '.join(sorted(_COUNTED))}"
        refuse(beyond[0][:100], wire[beyond[0]], right)
    whole = wire.get("generateContentRequest")
    if whole is None:
        return _inbound(wire)
    if wire.get("contents") is not None:
        refuse("contents", wire["contents"], "one of it and 'generateContentRequest'")
    return _inbound(renamed(whole, "generateContentRequest", _TOP))


def write_count_request(request: LLMRequest, *, model: str | None = None) -> bytes:
    """The body that asks a backend for the length of the prompt of ``request``."""
    name = request.model if model is None else model
    body = _body(request, model)
    return encode({"generateContentRequest": {"model": f"{_MODELS}{name}", **body}})


def read_count(body: bytes) -> int:
    """The number of tokens in a backend's answer."""
    wire = decode_reply(body)
    count = wire.get("totalTokens") if isinstance(wire, dict) else None
    if type(count) is not int:
        raise LLMBadResponseError("The backend's count has no number 'totalTokens'.")
    return count


def write_count(tokens: int) -> bytes:
    """The answer that says how many ``tokens`` a prompt has."""
    return encode({"totalTokens": tokens})


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer: the backend's, else one made of ``fresh``."""
    return given or fresh


def _inbound(wire: dict[str, Any]) -> Inbound:
    known, options = read_settings(wire, ROWS)
    if "messages" not in known:
        refuse_absence("contents", "an array of contents")
    system = known.pop("system", None)
    if system is not None:
        known["messages"] = (system, *known["messages"])
    if "tool_config" in known:
        mode, names = known.pop("tool_config")
        known["tools"], known["tool_choice"] = chosen(known.get("tools", ()), mode, names)
    config = known.pop("config", {})
    options |= config.pop("options", {})
    thoughts = config.pop("thoughts", False)
    if "model" in known:
        known["model"] = known["model"].removeprefix(_MODELS)
    return Inbound(
        request=LLMRequest(**known, **config, provider_options=options),
        include_usage=True,
        tells_reasoning=thoughts,
        dropped=unplaced(wire),
    )


def _body(request: LLMRequest, model: str | None) -> dict[str, Any]:
    if not request.messages:
        raise LLMInvalidRequestError("A chat request needs at least one message.", param="messages")
    name = request.model if model is None else model
    body: dict[str, Any] = conversation_to_wire(request.messages, name)
    if request.tools:
        body["tools"] = tools_to_wire(request.tools)
    choice = tool_config_to_wire(request.tool_choice, request.tools)
    if choice is not None:
        body["toolConfig"] = choice
    config = config_to_wire(request, name)
    for option, value in request.provider_options.items():
        if option in OWN:
            config[option] = _over(config.get(option), value)
        elif option == "generationConfig" and isinstance(value, dict):
            config |= {each: _over(config.get(each), said) for each, said in value.items()}
        elif option == "tools" and isinstance(value, list):
            # Google's own tools beside the functions.
            body["tools"] = [*body.get("tools", []), *value]
        else:
            body[option] = _over(body.get(option), value)
    if config:
        body["generationConfig"] = config
    return body


def _over(ours: Any, theirs: Any) -> Any:
    """``theirs`` over what we would say; of a budget and a level of thought only one may be said."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return theirs
    kept = {
        k: v for k, v in ours.items() if not (k == "thinkingLevel" and "thinkingBudget" in theirs)
    }
    return {**kept, **theirs}
