"""How many tokens a text or a conversation has, as well as can be known on this side of the wire.

An engine of our own counts with the model's own tokenizer. For OpenAI's models there is tiktoken
(extra ``tokens``), whose tables are downloaded at first use: that is done only when asked for, so
that nothing hangs where there is no network. What is left is an estimate, and says so.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

from headrace.contracts.messages import ImagePart, LLMMessage, TextPart
from headrace.contracts.requests import LLMRequest

if TYPE_CHECKING:
    from tiktoken import Encoding

_PAGE = "https://openaipublic.blob.core.windows.net/encodings"
# Each encoding's table and what it must hash to, as tiktoken has them (tiktoken_ext.openai_public).
_TABLES: Mapping[str, tuple[str, str]] = {
    "cl100k_base": (
        f"{_PAGE}/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        f"{_PAGE}/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "o200k_harmony": (
        f"{_PAGE}/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}
# What OpenAI's template puts around a message, and behind the last one
# (https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken).
_MESSAGE_TOKENS, _NAME_TOKENS, _PRIMING_TOKENS = 3, 1, 3
# https://platform.openai.com/docs/guides/images-vision: low detail, and high detail of 1024 x 1024.
_IMAGE_TOKENS: Mapping[str, int] = {"low": 85, "high": 765, "auto": 765}
_OTHER_PART_TOKENS = 1000
# English and code have three to five letters a token; of other scripts a letter is about one.
_LETTERS_A_TOKEN = 4


@frozen(kw_only=True)
class TokenCount:
    """A number of tokens; ``exact`` if the model itself sees so many. ``source`` says who counted."""

    tokens: int
    exact: bool
    source: str


@runtime_checkable
class CountsTokens(Protocol):
    """A backend with the model's own tokenizer."""

    @property
    def name(self) -> str: ...

    async def count_tokens(self, request: LLMRequest) -> int: ...


async def count_tokens(
    counted: str | Sequence[LLMMessage] | LLMRequest,
    model: str | None = None,
    *,
    backend: object = None,
    download: bool = False,
) -> TokenCount:
    """The tokens of a text, of messages or of a whole request for ``model``.

    ``backend`` counts itself where it can. ``download`` allows fetching a table of OpenAI's that
    is not on this machine yet; it blocks while it does.
    """
    if isinstance(backend, CountsTokens):
        request = _as_request(counted)
        # The engine puts its own mark before a text, as it does before a prompt.
        return TokenCount(
            tokens=await backend.count_tokens(request), exact=True, source=backend.name
        )
    return count_here(counted, model, download=download)


def count_here(
    counted: str | Sequence[LLMMessage] | LLMRequest,
    model: str | None = None,
    *,
    download: bool = False,
    environment: Mapping[str, str] | None = None,
) -> TokenCount:
    """As ``count_tokens`` where no engine can be asked; plain text alone can be counted exactly."""
    request = _as_request(counted)
    name = model or request.model or ""
    if isinstance(request.prompt, tuple):
        return TokenCount(tokens=len(request.prompt), exact=True, source="token ids")
    encoding = _encoding_for(name, os.environ if environment is None else environment, download)
    if request.prompt is not None:
        if encoding is None:
            return TokenCount(tokens=_estimate(request.prompt), exact=False, source="estimate")
        tokens = len(encoding.encode_ordinary(request.prompt))
        return TokenCount(tokens=tokens, exact=True, source=f"tiktoken {encoding.name}")
    source = "estimate" if encoding is None else f"tiktoken {encoding.name}, estimated frame"
    return TokenCount(tokens=_of_conversation(request, encoding), exact=False, source=source)


def _as_request(counted: str | Sequence[LLMMessage] | LLMRequest) -> LLMRequest:
    if isinstance(counted, LLMRequest):
        return counted
    if isinstance(counted, str):
        return LLMRequest(messages=(), prompt=counted)
    return LLMRequest(messages=tuple(counted))


def _of_conversation(request: LLMRequest, encoding: Encoding | None) -> int:
    def of(text: str) -> int:
        return _estimate(text) if encoding is None else len(encoding.encode_ordinary(text))

    tokens = _PRIMING_TOKENS
    for message in request.messages:
        tokens += _MESSAGE_TOKENS + of(message.role)
        if message.name is not None:
            tokens += _NAME_TOKENS + of(message.name)
        for part in (
            (TextPart(text=message.content),)
            if isinstance(message.content, str)
            else message.content
        ):
            if isinstance(part, TextPart):
                tokens += of(part.text)
            elif isinstance(part, ImagePart):
                tokens += _IMAGE_TOKENS[part.detail or "auto"]
            else:
                tokens += _OTHER_PART_TOKENS
        for call in message.tool_calls:
            tokens += _MESSAGE_TOKENS + of(call.name) + of(call.arguments_json)
    for tool in request.tools:
        tokens += _MESSAGE_TOKENS + of(tool.name) + of(tool.description)
        tokens += of(str(tool.input_schema))
    return tokens


def _estimate(text: str) -> int:
    """About how many tokens ``text`` has: ASCII / 4 + one for every other letter, rounded up."""
    ascii_letters = len(text.encode("ascii", "ignore"))
    return ceil(ascii_letters / _LETTERS_A_TOKEN) + len(text) - ascii_letters


def _encoding_for(model: str, environment: Mapping[str, str], download: bool) -> Encoding | None:
    """tiktoken's encoding for ``model``, if it is installed, knows it, and has the table here."""
    try:
        from tiktoken.model import encoding_name_for_model
    except ImportError:
        return None
    try:
        name = encoding_name_for_model(model.rsplit("/", 1)[-1])
    except KeyError:
        return None
    if not download and not _is_here(name, environment):
        return None
    return _loaded(name)


@lru_cache(maxsize=8)
def _loaded(name: str) -> Encoding:
    from tiktoken import get_encoding

    return get_encoding(name)


def _is_here(name: str, environment: Mapping[str, str]) -> bool:
    """Whether the table lies in tiktoken's cache, whole: it fetches one that is not anew."""
    table = _TABLES.get(name)
    if table is None:
        return False
    url, sha256 = table
    folder = environment.get("TIKTOKEN_CACHE_DIR", environment.get("DATA_GYM_CACHE_DIR"))
    if folder == "":
        return False  # its cache is turned off
    cache = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    path = cache / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    return _is_whole(path, sha256)


@lru_cache(maxsize=32)
def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
