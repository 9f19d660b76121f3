"""Hugging Face's Text Generation Inference: a prompt in, its continuation out, each way.

https://huggingface.co/docs/text-generation-inference/reference/api_reference (``/generate``,
``/generate_stream``, and ``/``, which is either). Conversations go to the same server in OpenAI's
format. The model's name is no field of TGI's, which serves one; it passes over what it does not know,
so we write it for those that serve several.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest
from headrace.wire import hf_errors
from headrace.wire import inbound as inbounds
from headrace.wire.hf_errors import read_error, status_of
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    integer,
    mapping,
    member,
    number,
    refuse,
    refuse_absence,
    says,
    text,
)
from headrace.wire.openai_params import read_settings
from headrace.wire.openai_tools import check_schema
from headrace.wire.sse import PING, STREAM_TYPE
from headrace.wire.tgi_answers import (
    StreamReader,
    StreamWriter,
    read_response,
    read_whole,
    usage_from_headers,
    write_response,
)

__all__ = [
    "PING",
    "STREAM_TYPE",
    "Inbound",
    "answer_id",
    "read_error",
    "read_request",
    "read_response",
    "read_whole",
    "status_of",
    "stream_reader",
    "stream_writer",
    "usage_from_headers",
    "write_error",
    "write_request",
    "write_response",
]

_INT32 = 2**31 - 1
_GRAMMARS = ("json", "json_object", "json_schema", "regex")


@says({"type": "array", "items": {"type": "string"}})
def _stop(value: Any, path: str) -> tuple[str, ...]:
    return tuple(text(each, f"{path}[{i}]") for i, each in enumerate(array(value, path)))


@says(
    {
        "type": "object",
        "required": ["type", "value"],
        "properties": {"type": {"enum": list(_GRAMMARS)}, "value": {}},
    }
)
def _grammar(value: Any, path: str) -> dict[str, Any]:
    kind = member(mapping(value, path), "type", path, text, "such as 'json'")
    if kind not in _GRAMMARS:
        refuse(f"{path}.type", kind, "one of " + ", ".join(map(repr, _GRAMMARS)))
    inside = f"{path}.value"
    if kind == "regex":
        member(value, "value", path, text, "a regular expression")
        return {"regex": dict(value)}
    given = value.get("value")
    if kind == "json_schema":
        given, inside = mapping(given, inside).get("schema"), f"{inside}.schema"
    elif isinstance(given, str):  # TGI takes a schema as JSON text too
        given = decode_object(given.encode("utf-8", "surrogatepass"))
    if given is None:
        refuse_absence(inside, "a JSON Schema")
    check_schema(mapping(given, inside), inside)
    return {"schema": given}


def _above(low: float, high: float) -> Check:
    """A check for a number above ``low``, up to ``high``."""
    within = number(low, high)

    @says({"type": "number", "exclusiveMinimum": low, "maximum": high})
    def check(value: Any, path: str) -> float:
        if within(value, path) == low:
            refuse(path, value, f"a number above {low:g}")
        return float(value)

    return check


ROWS: dict[str, tuple[str, Check]] = {
    "max_new_tokens": ("max_tokens", integer(1, _INT32)),
    "temperature": ("temperature", _above(0, 100)),
    "top_k": ("top_k", integer(1, _INT32)),
    "top_p": ("top_p", _above(0, 1)),
    "repetition_penalty": ("repetition_penalty", _above(0, 1000)),
    "frequency_penalty": ("frequency_penalty", number(-2, 2)),
    "seed": ("seed", integer(0, 2**64 - 1)),
    "stop": ("stop", _stop),
    "return_full_text": ("echo", boolean),
    "details": ("details", boolean),
    "do_sample": ("do_sample", boolean),
    "grammar": ("grammar", _grammar),
    "top_n_tokens": ("top_logprobs", integer(0, 20)),
    "best_of": ("best_of", integer(1, 128)),
    "typical_p": ("typical_p", _above(0, 1)),
    "truncate": ("truncate", integer(1, _INT32)),
    "decoder_input_details": ("decoder_input_details", boolean),
    "watermark": ("watermark", boolean),
    "adapter_id": ("adapter_id", text),
}
"""Wire name to our name and the check, for every parameter."""

_AS_OPTIONS = (
    "best_of",
    "typical_p",
    "truncate",
    "decoder_input_details",
    "watermark",
    "adapter_id",
)
# The values under which one of them asks for nothing.
_NEUTRAL: Mapping[str, object] = {
    "best_of": 1,
    "typical_p": 1.0,
    "decoder_input_details": False,
    "watermark": False,
}
_SAMPLING = ("temperature", "top_k", "top_p", "typical_p")

ONLY_THERE = frozenset({"truncate", "decoder_input_details", "watermark", "adapter_id", "grammar"})
"""Options that change the answer and that no other format has a place for."""

OWN_FIELDS: frozenset[str] = frozenset()
"""There are no fields about accounts, which another format could do without."""

LOSSES: Mapping[str, str] = {
    "messages": "refused: a prompt is text; conversations go there in OpenAI's format",
    "tools": "refused: conversations have them",
    "tool_choice": "refused: conversations have them",
    "parallel_tool_calls": "refused: conversations have them",
    "response_format": "a JSON Schema goes without its name; 'json_object' is refused",
    "suffix": "refused",
    "min_p": "refused",
    "presence_penalty": "refused",
    "logit_bias": "refused",
    "n": "refused above 1",
    "reasoning_effort": "refused",
    "logprobs": "every answer has them, and they are kept where they were asked for",
    "user": "left out: there is none",
    "answer.model": "answers do not name it",
    "answer.response_id": "answers have none",
    "answer.created": "answers have no date",
    "answer.finish_reason": "told in one of three words: length, eos_token, stop_sequence",
    "answer.stop_sequence": "the text ends with it, and which it was is not said",
    "answer.tool_calls": "there are none",
    "answer.reasoning": "there is none",
    "answer.reasoning_parts": "there is none",
    "answer.refusal": "there is none",
    "answer.usage": "the prompt's tokens and the answer's, not their parts",
    "answer.logprobs": "the alternatives to a token are told, but not their bytes",
    "answer.choices": "there is one answer",
    "answer.system_fingerprint": "answers have none",
    "answer.provider_fields": "answers have no fields of others",
}
"""What the format has no place for (see ``wire.losses``)."""


@frozen(kw_only=True)
class Inbound(inbounds.Inbound):
    """A caller's request, whether its answer shall tell of tokens, reason and seed, and what is to
    stand before its text."""

    details: bool = False
    before: str = ""


def read_request(body: bytes) -> Inbound:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    wire = decode_object(body)
    return read_fields(wire)


def read_fields(wire: Mapping[str, Any]) -> Inbound:
    """The request in a body that was decoded already."""
    if wire.get("inputs") is None:
        refuse_absence("inputs", "the text to go on from")
    prompt, model, stream = text(wire["inputs"], "inputs"), wire.get("model"), wire.get("stream")
    if not prompt:
        refuse("inputs", prompt, "a text that is not empty")
    given = wire.get("parameters")
    inside = {} if given is None else mapping(given, "parameters")
    try:
        known, options = read_settings(dict(inside), ROWS)
    except LLMInvalidRequestError as error:
        raise _within(error) from error
    grammar = known.pop("grammar", {})
    if "regex" in grammar:
        options["grammar"] = grammar["regex"]
    details, sampled = known.pop("details", False), known.pop("do_sample", None)
    for name in _AS_OPTIONS:
        if name in known and known[name] != _NEUTRAL.get(name):
            options[name] = known[name]
        known.pop(name, None)
    if sampled is None:  # TGI samples where nothing at all is said, and else only where asked to
        sampled = given is None
    if not sampled and known.get("temperature", 1.0) == 1.0:
        chosen = {**known, **options}
        if not any(name in chosen for name in _SAMPLING[1:]):
            known["temperature"] = 0.0
    if known.get("top_logprobs"):
        known["logprobs"] = True
    stream = stream is not None and boolean(stream, "stream")
    if stream and options.get("best_of"):
        refuse("parameters.best_of", options["best_of"], "1 in a stream")
    unknown = sorted(wire.keys() - {"inputs", "parameters", "model", "stream"})
    return Inbound(
        request=LLMRequest(
            messages=(),
            prompt=prompt,
            model=None if model is None else text(model, "model"),
            response_schema=grammar.get("schema"),
            provider_options=options,
            **known,
        ),
        stream=stream,
        include_usage=True,
        details=details,
        dropped=tuple(name[:100] for name in unknown if wire[name] is not None),
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
    _refuse_unplaced(request)
    parameters: dict[str, Any] = {"details": True}
    for wire_name, value in (
        ("max_new_tokens", request.max_tokens),
        ("frequency_penalty", request.frequency_penalty),
        ("repetition_penalty", request.repetition_penalty),
        ("seed", request.seed),
        ("return_full_text", request.echo),
        ("top_n_tokens", request.top_logprobs or None),
        ("top_p", None if request.top_p == 1 else request.top_p),
        ("top_k", request.top_k if (request.top_k or 0) > 0 else None),
    ):
        if value is not None:
            parameters[wire_name] = value
    if request.temperature is not None:
        # It takes no temperature of 0, which is not to sample.
        parameters["do_sample"] = request.temperature > 0
        if request.temperature > 0:
            parameters["temperature"] = request.temperature
    if request.stop:
        parameters["stop"] = request.stop
    if request.response_schema is not None:
        parameters["grammar"] = {"type": "json", "value": request.response_schema}
    parameters.update(request.provider_options)
    body: dict[str, Any] = {"inputs": request.prompt, "parameters": parameters}
    name = request.model if model is None else model
    if name is not None:
        body["model"] = name
    if stream:
        body["stream"] = True
    return encode(body)


def write_error(error: LLMError) -> bytes:
    """``error`` as a body of TGI's form."""
    return hf_errors.write_error(error, hf_errors.TGI)


def answer_id(given: str | None, fresh: str) -> str:
    """The id of an answer: the backend's, else ``fresh``; no answer shows it."""
    return given or fresh


def stream_reader(keep: Collection[str] = ()) -> StreamReader:
    """Reads the bytes of one streamed answer; ``logprobs`` in ``keep`` asks for these."""
    return StreamReader(keep)


def stream_writer(
    *,
    response_id: str = "",
    model: str = "",
    created: int = 0,
    include_usage: bool = True,
    system_fingerprint: str | None = None,
    details: bool = True,
    before: str = "",
    seed: int | None = None,
) -> StreamWriter:
    """Writes the bytes of one streamed answer; ``before`` is the prompt, where that is to stand
    before the text, and ``seed`` the one that was asked for."""
    return StreamWriter(details=details, before=before, seed=seed)


def _within(error: LLMInvalidRequestError) -> LLMInvalidRequestError:
    """``error`` about a parameter, whose path begins with what the parameters stand in."""
    param = error.param or ""
    path = f"parameters.{param}"
    message = error.message.replace(f"'{param}", f"'{path}", 1)
    return type(error)(message, param=path, code=error.code)


def _refuse_unplaced(request: LLMRequest) -> None:
    if request.prompt is None:
        raise LLMInvalidRequestError("TGI's /generate takes a prompt.", param="prompt")
    if not isinstance(request.prompt, str):
        raise LLMCapabilityError(
            "TGI takes a prompt as text; it does not take token ids", param="prompt"
        )
    kind = (request.response_format or {}).get("type", "text")
    lacking = {
        "response_format": kind != "text" and request.response_schema is None,
        "suffix": bool(request.suffix),
        "n": (request.n or 1) > 1,
        "min_p": bool(request.min_p),
        "presence_penalty": bool(request.presence_penalty),
        "logit_bias": bool(request.logit_bias),
        "tools": bool(request.tools),
        "reasoning_effort": request.reasoning_effort not in (None, "none"),
    }
    for name, is_lacking in lacking.items():
        if is_lacking:
            raise LLMCapabilityError(
                f"TGI's /generate has no place for {name!r}; leave it out", param=name
            )
