"""TGI's and TEI's ``/tokenize``, and TEI's ``/decode``: what is asked, and what is answered.

TGI takes one text and answers with its tokens; TEI takes several, and answers with a list for each.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from headrace.wire.json import decode_object, encode
from headrace.wire.openai_fields import (
    Check,
    boolean,
    integer,
    refuse,
    refuse_absence,
    refuse_type,
    says,
    text,
)
from headrace.wire.openai_params import read_settings
from headrace.wire.tei import MOST_INPUTS

_token_id = integer(0, 2**31 - 1)
_ids_schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}


@says(
    {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
)
def _texts(value: Any, path: str) -> tuple[tuple[str, ...], bool]:
    if type(value) is str:
        return (value,), False
    if type(value) is not list:
        refuse_type(path, value, "a string or an array of strings")
    if not 1 <= len(value) <= MOST_INPUTS:
        refuse(path, value, f"1 to {MOST_INPUTS} texts")
    return tuple(text(each, f"{path}[{i}]") for i, each in enumerate(value)), True


@says({"anyOf": [_ids_schema, {"type": "array", "minItems": 1, "items": _ids_schema}]})
def _ids(value: Any, path: str) -> tuple[tuple[int, ...], ...]:
    if type(value) is not list:
        refuse_type(path, value, "an array of token ids, or of such arrays")
    if len(value) > MOST_INPUTS:
        refuse(path, value, f"at most {MOST_INPUTS} entries")
    if value and type(value[0]) is list:
        return tuple(_one(each, f"{path}[{i}]") for i, each in enumerate(value))
    return (_one(value, path),)


def _one(value: Any, path: str) -> tuple[int, ...]:
    if type(value) is not list:
        refuse_type(path, value, "an array of token ids")
    return tuple(_token_id(each, f"{path}[{i}]") for i, each in enumerate(value))


TOKENIZE_ROWS: dict[str, tuple[str, Check]] = {
    "inputs": ("inputs", _texts),
    "add_special_tokens": ("special", boolean),
    "model": ("model", text),
}
DECODE_ROWS: dict[str, tuple[str, Check]] = {
    "ids": ("ids", _ids),
    "skip_special_tokens": ("skips", boolean),
    "model": ("model", text),
}


@frozen(kw_only=True)
class Tokenize:
    """Texts whose tokens are asked for; ``is_batch``: they came as an array."""

    texts: tuple[str, ...]
    is_batch: bool
    special: bool = True
    model: str | None = None


@frozen(kw_only=True)
class Decode:
    """Tokens whose texts are asked for."""

    ids: tuple[tuple[int, ...], ...]
    skips: bool = True
    model: str | None = None


@frozen(kw_only=True)
class Token:
    """A token; ``start`` and ``stop`` are its place in the text, in characters, where that is known."""

    token_id: int
    text: str
    special: bool = False
    start: int | None = None
    stop: int | None = None


def read_tokenize(body: bytes) -> Tokenize:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    known, unknown = read_settings(decode_object(body), TOKENIZE_ROWS)
    _refuse_prompt_name(unknown)
    if "inputs" not in known:
        refuse_absence("inputs", "a string or an array of strings")
    texts, is_batch = known.pop("inputs")
    return Tokenize(texts=texts, is_batch=is_batch, **known)


def read_decode(body: bytes) -> Decode:
    """The request in a caller's ``body``, or LLMInvalidRequestError naming the field."""
    known, _ = read_settings(decode_object(body), DECODE_ROWS)
    if "ids" not in known:
        refuse_absence("ids", "an array of token ids, or of such arrays")
    return Decode(**known)


def write_tokens(texts: Sequence[Sequence[Token]], *, nested: bool) -> bytes:
    """The tokens of each of ``texts``; of the first alone, as TGI tells them, unless ``nested``."""
    if nested:
        return encode(
            [[_to_wire(each) | {"special": each.special} for each in one] for one in texts]
        )
    return encode([_to_wire(each) for each in texts[0]])


def placed(
    text: str, plain: Sequence[tuple[int, bytes]], whole: Sequence[tuple[int, bytes]]
) -> list[Token]:
    """The tokens of ``text``: ``plain`` are its own, ``whole`` these and the marks around them.

    Where the tokens do not say the text letter by letter (small letters for capitals, say), nobody
    knows their places.
    """
    before = _place_of([number for number, _ in plain], [number for number, _ in whole])
    is_spelt = b"".join(said for _, said in plain) == text.encode("utf-8", "surrogatepass")
    # Fed with one token after the other: a character that is spread over several is there with the last.
    characters, begin = getincrementaldecoder("utf-8")("ignore"), 0
    tokens = []
    for place, (number, said) in enumerate(whole):
        special = not before <= place < before + len(plain)
        start = stop = None
        if is_spelt and not special:
            start = begin
            begin = stop = begin + len(characters.decode(said))
        words = said.decode("utf-8", "replace")
        tokens.append(Token(token_id=number, text=words, special=special, start=start, stop=stop))
    return tokens


def _place_of(some: list[int], all_: list[int]) -> int:
    """Where ``some`` stand among ``all_``."""
    for place in range(len(all_) - len(some) + 1):
        if all_[place : place + len(some)] == some:
            return place
    return 0


def _to_wire(token: Token) -> dict[str, object]:
    wire: dict[str, object] = {"id": token.token_id, "text": token.text}
    if token.start is not None:
        wire |= {"start": token.start, "stop": token.stop}
    return wire


def _refuse_prompt_name(unknown: dict[str, Any]) -> None:
    if unknown.get("prompt_name") is not None:
        refuse("prompt_name", unknown["prompt_name"], "null: there are no named prompts here")
