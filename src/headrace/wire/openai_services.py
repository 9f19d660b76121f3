"""OpenAI's services whose answers are not text: pictures, judgements, sound. Requests read and written.

https://platform.openai.com/docs/api-reference/images and .../moderations. Each field that the format
knows is checked and named where it is wrong; others go on as they are, for servers have their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire.json import decode_object, encode
from headrace.wire.multipart import Part, read_parts, write_parts
from headrace.wire.openai_audio import read_speech_request, write_speech_request
from headrace.wire.openai_fields import (
    Check,
    array,
    boolean,
    filled_text,
    integer,
    mapping,
    one_of,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)

MOST_PROMPT = 32_000
MOST_PICTURES = 16
_SIZE = re.compile(r"auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4}")
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_JSON = "application/json"
_FORM = "multipart/form-data"


@frozen(kw_only=True)
class ServiceRequest:
    """A caller's request that was checked.

    ``write`` gives its content type and body for a backend that knows its model by that name
    (``None``: none is named). ``streams``: the answer comes in events, or piece by piece.
    """

    model: str | None
    write: Callable[[str | None], tuple[str, bytes]]
    streams: bool = False


Read: TypeAlias = Callable[[str, bytes], ServiceRequest]
"""Takes a request's content type and body; raises LLMInvalidRequestError naming the field."""


@says({"type": "string", "minLength": 1, "maxLength": MOST_PROMPT})
def _prompt(value: Any, path: str) -> str:
    if len(filled_text(value, path)) > MOST_PROMPT:
        refuse(path, value, f"at most {MOST_PROMPT} characters")
    return str(value)


@says({"type": "string", "pattern": f"^({_SIZE.pattern})$"})
def _size(value: Any, path: str) -> str:
    if not _SIZE.fullmatch(text(value, path)):
        refuse(path, value, "'auto', or width and height as in '1024x1024'")
    return str(value)


@says({"type": "array", "minItems": 1, "maxItems": MOST_PICTURES, "items": {"type": "object"}})
def _pictures(value: Any, path: str) -> list[Any]:
    if not 1 <= len(array(value, path)) <= MOST_PICTURES:
        refuse(path, value, f"1 to {MOST_PICTURES} pictures")
    for at, each in enumerate(value):
        _picture(each, f"{path}[{at}]")
    return list(value)


@says({"type": "object"})
def _picture(value: Any, path: str) -> dict[str, Any]:
    named = [name for name in ("image_url", "file_id") if mapping(value, path).get(name)]
    if len(named) != 1:
        refuse(path, value, "an object with either 'image_url' or 'file_id'")
    filled_text(value[named[0]], f"{path}.{named[0]}")
    return dict(value)


_ABOUT_PICTURES: dict[str, Check] = {
    "model": filled_text,
    "prompt": _prompt,
    "n": integer(1, 10),
    "size": _size,
    "quality": text,
    "response_format": one_of("url", "b64_json"),
    "output_format": one_of("png", "jpeg", "webp"),
    "output_compression": integer(0, 100),
    "background": text,
    "moderation": text,
    "style": text,
    "input_fidelity": text,
    "partial_images": integer(0, 3),
    "stream": boolean,
    "user": text,
}
GENERATION_ROWS: Mapping[str, Check] = _ABOUT_PICTURES
EDIT_ROWS: Mapping[str, Check] = {**_ABOUT_PICTURES, "images": _pictures, "mask": _picture}
# A form has texts alone, so numbers and flags are read out of them.
_NUMBERS = frozenset(("n", "output_compression", "partial_images"))


def read_generation(content_type: str, body: bytes) -> ServiceRequest:
    """A request for pictures of a text."""
    return _read_json(content_type, body, GENERATION_ROWS, {"prompt": "what is to be seen"})


def read_edit(content_type: str, body: bytes) -> ServiceRequest:
    """A request for pictures made of others: a form with them, or JSON that says where they are."""
    if content_type.lower().startswith(_JSON):
        return _read_json(
            content_type,
            body,
            EDIT_ROWS,
            {"images": "the pictures to start from", "prompt": "what is to be seen"},
        )
    return _read_form(content_type, body, needs=("image", "prompt"), files=("image", "mask"))


def read_variation(content_type: str, body: bytes) -> ServiceRequest:
    """A request for pictures like another one."""
    return _read_form(content_type, body, needs=("image",), files=("image",))


@says(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": ["string", "object"]}},
        ]
    }
)
def _judged(value: Any, path: str) -> Any:
    if type(value) is str:
        return value
    if type(value) is not list:
        refuse_type(path, value, "a string, an array of strings, or an array of parts")
    if not value:
        refuse(path, value, "at least one text or part")
    for at, each in enumerate(value):
        where = f"{path}[{at}]"
        if type(each) is str:
            continue
        kind = one_of("text", "image_url")(mapping(each, where).get("type"), f"{where}.type")
        if kind == "text":
            text(each.get("text"), f"{where}.text")
        else:
            url = mapping(each.get("image_url"), f"{where}.image_url").get("url")
            filled_text(url, f"{where}.image_url.url")
    return value


MODERATION_ROWS: Mapping[str, Check] = {"input": _judged, "model": filled_text}


def read_moderation(content_type: str, body: bytes) -> ServiceRequest:
    """A request to judge texts and pictures."""
    return _read_json(content_type, body, MODERATION_ROWS, {"input": "what is to be judged"})


def read_speech(content_type: str, body: bytes) -> ServiceRequest:
    """A request to have a text read aloud."""
    inbound = read_speech_request(_json_only(content_type, body))
    request = inbound.request

    def write(model: str | None) -> tuple[str, bytes]:
        return _JSON, write_speech_request(request, model=model, events=inbound.events)

    return ServiceRequest(model=request.model, write=write, streams=True)


SERVICES: Mapping[str, Read] = {
    "audio/speech": read_speech,
    "images/generations": read_generation,
    "images/edits": read_edit,
    "images/variations": read_variation,
    "moderations": read_moderation,
}
"""Who reads a request, by the service's path."""


def _json_only(content_type: str, body: bytes) -> bytes:
    if content_type.lower().startswith(_FORM):
        raise LLMInvalidRequestError(
            f"The content type is {content_type[:100]!r}. Expected 'application/json'.",
            status=415,
            code="unsupported_media_type",
        )
    return body


def _read_json(
    content_type: str, body: bytes, rows: Mapping[str, Check], needs: Mapping[str, str]
) -> ServiceRequest:
    wire = decode_object(_json_only(content_type, body))
    for name, right in needs.items():
        if wire.get(name) is None:
            refuse_absence(name, right)
    for name, value in wire.items():
        if value is not None and name in rows:
            rows[name](value, name)
    model = wire.get("model")

    def write(theirs: str | None) -> tuple[str, bytes]:
        return _JSON, body if theirs in (None, model) else encode({**wire, "model": theirs})

    return ServiceRequest(model=model, write=write, streams=bool(wire.get("stream")))


def _read_form(
    content_type: str, body: bytes, *, needs: tuple[str, ...], files: tuple[str, ...]
) -> ServiceRequest:
    parts = read_parts(content_type, body)
    told: dict[str, object] = {}
    for part in parts:
        name = part.name.removesuffix("[]")
        is_file = part.file_name is not None
        if name in files:
            if not is_file:
                refuse(name, "a text", "a file with its name")
            if not part.data:
                refuse(name, "an empty file", "a picture")
        elif is_file:
            refuse(name[:100], "a file", "a text")
        elif name in told:
            refuse(name[:100], "twice", "it once")
        elif name in _ABOUT_PICTURES:
            told[name] = _ABOUT_PICTURES[name](_out_of(name, part.text), name)
            continue
        told[name] = part.text if not is_file else part.file_name
    for name in needs:
        if name not in told:
            refuse_absence(name, "a picture, as a file" if name in files else "what is to be seen")
    pictures = sum(part.name.removesuffix("[]") == "image" for part in parts)
    if pictures > MOST_PICTURES:
        refuse("image", f"{pictures} pictures", f"at most {MOST_PICTURES}")
    model = told.get("model")

    def write(theirs: str | None) -> tuple[str, bytes]:
        kept = parts
        if theirs not in (None, model):
            assert theirs is not None
            kept = (
                *(part for part in parts if part.name != "model"),
                Part("model", theirs.encode()),
            )
        return write_parts(kept)

    return ServiceRequest(
        model=model if isinstance(model, str) else None,
        write=write,
        streams=bool(told.get("stream")),
    )


def _out_of(name: str, value: str) -> object:
    if name in _NUMBERS and _WHOLE.fullmatch(value):
        return int(value)
    if name == "stream":
        return {"true": True, "True": True, "false": False, "False": False}.get(value, value)
    return value
