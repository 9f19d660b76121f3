"""What a request's body asks for, as far as a mock needs to know; wrong types are refused by name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import DecodeError, Raw, Struct, ValidationError, json

from headrace.bench.mock.faces import MESSAGES, RESPONSES, Face
from headrace.contracts.errors import LLMInvalidRequestError

_MISSING = Raw(b"")


class StreamOptions(Struct, gc=False):
    """How a stream of OpenAI's formats is wanted."""

    include_usage: bool | None = None


class Asked(Struct, gc=False):
    """The fields of all faces together."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    messages: Raw = _MISSING
    prompt: Raw = _MISSING
    input: Raw = _MISSING
    system: Raw = _MISSING
    instructions: Raw = _MISSING
    response_format: Raw = _MISSING
    text: Raw = _MISSING
    output_config: Raw = _MISSING


_decode = json.Decoder(Asked).decode


def read_asked(face: Face, body: bytes, *, counting: bool = False) -> Asked:
    """What ``body`` asks for; LLMInvalidRequestError says what is wrong with it.

    One that is for ``counting`` needs no limit.
    """
    try:
        asked = _decode(body)
    except ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        param = path.rstrip("`") or None
        where = f"'{param}': " if param else "The body: "
        raise LLMInvalidRequestError(f"{where}{said}.", param=param) from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LLMInvalidRequestError(f"The body is not JSON: {error}.") from error
    if not bytes(getattr(asked, face.prompt)) and face is not RESPONSES:
        raise _wrong(face.prompt, "is required")
    if face is MESSAGES and asked.max_tokens is None and not counting:
        raise _wrong("max_tokens", "is required")
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n"):
        value = getattr(asked, name)
        if value is not None and value < 1:
            raise _wrong(name, f"is {value}; at least 1 is expected")
    if asked.n is not None and asked.n > 1:
        raise _wrong("n", f"is {asked.n}; this mock gives 1 answer to a request")
    if bytes(asked.prompt).startswith(b"["):
        _refuse_several(json.decode(asked.prompt))
    return asked


def most_tokens(asked: Asked) -> int | None:
    """How long an answer may be, where the request says so."""
    given = (asked.max_completion_tokens, asked.max_tokens, asked.max_output_tokens)
    return min((each for each in given if each is not None), default=None)


def prompt_tokens(asked: Asked) -> int:
    """About how long the prompt is: a token for every four bytes in which it was written."""
    parts = (asked.messages, asked.prompt, asked.input, asked.system, asked.instructions)
    return max(1, sum(len(bytes(part)) for part in parts) // 4)


def wanted_schema(asked: Asked) -> bytes | None:
    """The schema that the answer is to meet, where the request has one."""
    for said in (asked.response_format, asked.text, asked.output_config):
        if bytes(said):
            return _schema_in(bytes(said))
    return None


@lru_cache(maxsize=256)
def _schema_in(said: bytes) -> bytes | None:
    """Of OpenAI's ``response_format`` and ``text``, and of Anthropic's ``output_config``."""
    node = json.decode(said)
    node = node.get("format", node) if isinstance(node, dict) else {}
    if not isinstance(node, dict) or node.get("type") != "json_schema":
        return None
    node = node.get("json_schema", node)
    schema = node.get("schema") if isinstance(node, dict) else None
    if not isinstance(schema, dict):
        raise _wrong("schema", f"is {schema!r}; an object is expected")
    return json.encode(schema)


def _refuse_several(prompt: Any) -> None:
    """Refuse more than one text, or more than one list of token ids."""
    if len(prompt) > 1 and not isinstance(prompt[0], int):
        raise _wrong("prompt", f"is {len(prompt)} prompts; this mock answers 1 in a request")


def _wrong(name: str, said: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"'{name}' {said}.", param=name)
