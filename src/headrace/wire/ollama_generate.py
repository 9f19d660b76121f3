"""Ollama's generate: a prompt in, its continuation or the answer to it out.

https://docs.ollama.com/api/generate. A prompt with ``raw`` or ``suffix`` is continued as it stands,
which is our text completion. Without them the model's template makes a conversation of it and the
``system`` text, so that is what it is read as.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, encode
from headrace.wire.ndjson import STREAM_TYPE
from headrace.wire.ollama import answer_id, read_response, read_whole, stream_reader
from headrace.wire.ollama_answers import Durations, GenerateForm, write_answer
from headrace.wire.ollama_errors import read_error, status_of, write_error
from headrace.wire.ollama_messages import images_from_wire, with_images
from headrace.wire.ollama_settings import (
    OWN_FIELDS,
    finish_body,
    settings_from_wire,
    settings_to_wire,
)
from headrace.wire.ollama_settings import ROWS as SETTINGS
from headrace.wire.ollama_stream import StreamWriter
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    refuse_absence,
    text,
)

__all__ = [
    "OWN_FIELDS",
    "PING",
    "STREAM_TYPE",
    "answer_id",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "status_of",
    "stream_reader",
    "stream_writer",
    "write_error",
    "write_request",
    "write_response",
]

ROWS: dict[str, tuple[str, Check]] = {
    **SETTINGS,
    "prompt": ("prompt", text),
    "suffix": ("suffix", text),
    "system": ("system", text),
    "template": ("template", text),
    "context": ("context", array),
    "raw": ("raw", boolean),
    "images": ("images", images_from_wire),
}
"""Wire name to our name and the check, for every field that has a meaning of its own."""

LOSSES: Mapping[str, str] = {
    "messages": "refused: a prompt is text; a conversation is a chat's",
    "tools": "left out: there are none",
    "tool_choice": "left out: there are none",
    "parallel_tool_calls": "left out: there are none",
    "logit_bias": "refused",
    "n": "refused above 1",
    "user": "left out and told of",
    "echo": "done by us",
    "prompt.tokens": "refused: a prompt is text",
    "response_format": "a JSON Schema goes without its name; beside 'raw' or 'suffix', where the "
    "prompt goes as it stands, any is refused",
    "reasoning_effort": "'minimal' is 'low', and 'xhigh' is 'high'",
    "answer.choices": "there is one answer",
    "answer.response_id": "answers have no id",
    "answer.tool_calls": "there are none",
    "answer.refusal": "told as text",
    "answer.reasoning_parts": "reasoning goes as one text, without seals",
    "answer.stop_sequence": "the reason is 'stop', whether a stop string ended it or the model",
    "answer.raw_finish_reason": "told in Ollama's own words",
    "answer.usage": "one count for the prompt and one for the answer, with no parts",
    "answer.system_fingerprint": "answers have none",
    "answer.provider_fields": "none but durations",
}
"""What the format has no place for (see ``wire.losses``)."""

PING: bytes | None = None
"""Ollama's streams have no line that means nothing."""

# What a prompt that is continued as it stands has no place for.
_BESIDE_RAW = ("system", "images")


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field.

    One without a prompt is a wish to have the model loaded.
    """
    known, options = settings_from_wire(decode_object(body), ROWS)
    if "model" not in known:
        refuse_absence("model", "the model's name")
    if known.pop("template", ""):
        raise LLMCapabilityError(
            "'template' cannot be carried to the models of this server: each has one of its own. "
            "Send the prompt as the model is to see it, with 'raw': true.",
            param="template",
        )
    if known.pop("context", ()):
        raise LLMCapabilityError(
            "'context' cannot be carried: token ids are one server's own, and none are given out "
            "here. Send the conversation to /api/chat.",
            param="context",
        )
    stream, raw = known.pop("stream", True), known.pop("raw", False)
    if raw or known.get("suffix"):
        _make_continuation(known)
    else:
        known.pop("suffix", None)
        known["messages"] = _conversation(known)
    return Inbound(
        request=LLMRequest(**known, provider_options=options), stream=stream, include_usage=True
    )


def write_request(
    request: LLMRequest,
    *,
    model: str | None = None,
    stream: bool,
    include_usage: bool = True,
    dialect: object = None,
) -> bytes:
    """``request`` as a body for a backend that knows the request's model as ``model``."""
    if request.prompt is None:
        raise LLMInvalidRequestError("A text completion needs a prompt.", param="prompt")
    if not isinstance(request.prompt, str):
        raise LLMCapabilityError("Ollama takes a prompt as text, not as token ids.", param="prompt")
    body = settings_to_wire(request, model)
    body["prompt"] = request.prompt
    if request.suffix:
        # Only a template knows where a model wants to see what comes after.
        body["suffix"] = request.suffix
    else:
        body.setdefault("raw", True)
    return encode(finish_body(body, stream=stream))


def write_response(
    response: LLMResponse,
    *,
    response_id: str | None = None,
    model: str | None = None,
    created: float | None = None,
    system_fingerprint: str | None = None,
    durations: Durations | None = None,
) -> bytes:
    """``response`` as a body; what is handed in replaces what the response itself says."""
    return write_answer(GenerateForm(), response, model=model, created=created, durations=durations)


def stream_writer(
    *,
    response_id: str,
    model: str,
    created: float,
    include_usage: bool = False,
    system_fingerprint: str | None = None,
    now: Callable[[], float] | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer; ``now`` is as in ``wire.ollama``."""
    return StreamWriter(GenerateForm(), model=model, now=now or (lambda: created))


def _make_continuation(known: dict[str, Any]) -> None:
    """Makes a text completion of ``known``."""
    for name in _BESIDE_RAW:
        if known.pop(name, None):
            raise LLMCapabilityError(
                f"{name!r} has no place beside 'raw' or 'suffix', where the prompt goes to the "
                "model as it stands.",
                param=name,
            )
    if "prompt" not in known:
        refuse_absence("prompt", "the text to be continued")
    known["messages"] = ()


def _conversation(known: dict[str, Any]) -> tuple[LLMMessage, ...]:
    """The turns that the prompt and what stands beside it are; none without a prompt."""
    said, images = known.pop("prompt", ""), known.pop("images", ())
    system = known.pop("system", "")
    if not said and not images:
        return ()
    turn = LLMMessage(role="user", content=with_images(said, images))
    return (LLMMessage(role="system", content=system), turn) if system else (turn,)
