"""Who counts the tokens of what a load test sends: the best that can be had for a model.

In this order: the file that the user named; the vocabulary of a model in the box; tiktoken, for
OpenAI's names, where its table is on this machine; the target itself, if it has a ``/tokenize`` as
llama-server and vLLM have; else an estimate, which says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from attrs import frozen

from headrace.backends.tokens import count_here
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.stores.models.presets import PRESETS
from headrace.stores.models.store import ModelStore

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection

    from headrace.bench.load.gguf_tokens import GgufTokenizer

_PATIENCE_S = 10.0
_TRIAL = "How many tokens is this?"


class Tokenizer(Protocol):
    """Counts a text's tokens, without whatever a chat template puts around it.

    ``source`` names who counts; ``counted`` says whether the count is the model's own. ``close``
    lets go of a connection where there is one; counting opens it again.
    """

    @property
    def source(self) -> str: ...

    @property
    def counted(self) -> bool: ...

    def count(self, text: str) -> int: ...

    def close(self) -> None: ...


@frozen(kw_only=True)
class Estimate:
    """For when nobody can count: a token for every four letters or so."""

    source: str = "estimate"
    counted: bool = False

    def count(self, text: str) -> int:
        return count_here(text).tokens

    def close(self) -> None:
        return None


@frozen(kw_only=True)
class OpenAITokenizer:
    """tiktoken's count for one of OpenAI's models (extra ``tokens``)."""

    model: str
    source: str
    counted: bool = True

    def count(self, text: str) -> int:
        return count_here(text, self.model).tokens

    def close(self) -> None:
        return None


class FileTokenizer:
    """A Hugging Face ``tokenizer.json``, read by their own package."""

    counted = True

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Read  # type: ignore[import-not-found,unused-ignore]
        except ImportError as missing:
            raise ValueError(
                f"tokenizer {str(path)!r} needs the package tokenizers: pip install tokenizers;"
                " a GGUF file needs nothing"
            ) from missing
        self._read: Any = Read.from_file(str(path))
        self.source = path.name

    def count(self, text: str) -> int:
        return len(self._read.encode(text, add_special_tokens=False).ids)

    def close(self) -> None:
        return None


class TargetTokenizer:
    """The target's own ``/tokenize``: one request a count, over one connection.

    Raises ValueError where there is none, or none that counts.
    """

    counted = True

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        from http.client import HTTPConnection, HTTPSConnection

        place = urlsplit(url if "://" in url else f"http://{url}")
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError(f"url must begin with http:// or https://, and is {url!r}")
        path = place.path.rstrip("/")
        self._path = path.removesuffix("/v1") + "/tokenize"
        self._model = model
        self._headers = {**dict(headers), "Content-Type": "application/json"}
        self.source = f"{place.hostname}{self._path}"
        if place.scheme == "https":
            self._connection: HTTPConnection = HTTPSConnection(
                place.hostname, place.port, timeout=_PATIENCE_S, context=tls
            )
        else:
            self._connection = HTTPConnection(place.hostname, place.port, timeout=_PATIENCE_S)
        try:
            if self.count(_TRIAL) < 1:
                raise ValueError(f"{self.source} says that a text has no tokens")
        except ValueError:
            self.close()
            raise

    def count(self, text: str) -> int:
        """How many tokens the target says ``text`` is."""
        # llama-server reads the first two of these, vLLM the others.
        asked: dict[str, object] = {
            "content": text,
            "add_special": False,
            "prompt": text,
            "add_special_tokens": False,
        }
        if self._model is not None:
            asked["model"] = self._model
        status, body = self._post(json.dumps(asked).encode())
        if status != 200:
            raise ValueError(f"{self.source} answered with status {status}: {body[:200]!r}")
        try:
            answer = json.loads(body)
        except ValueError as wrong:
            raise ValueError(f"{self.source} answered no JSON: {body[:200]!r}") from wrong
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            raise ValueError(f"{self.source} answered without tokens: {body[:200]!r}")
        return len(tokens)

    def close(self) -> None:
        self._connection.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        from http.client import HTTPException

        for attempt in (1, 2):
            try:
                self._connection.request("POST", self._path, body, self._headers)
                reply = self._connection.getresponse()
                return reply.status, reply.read()
            except (OSError, HTTPException) as wrong:
                self._connection.close()
                # A kept connection may have been closed meanwhile; a new one shows what is wrong.
                if attempt == 2:
                    raise ValueError(f"{self.source} cannot be asked: {wrong!r}") from wrong
        raise AssertionError("the second attempt returns or raises")


def find_tokenizer(
    model: str | None,
    url: str,
    *,
    named: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    tls: ssl.SSLContext | None = None,
    store: ModelStore | None = None,
) -> Tokenizer:
    """The best count that can be had for ``model`` at ``url``; ``named`` is the user's own file.

    Only the user's file is insisted on: ValueError says what is wrong with it. Nothing is
    downloaded. The order is the module's.
    """
    if named is not None:
        return _named(named, store or ModelStore())
    found = _of_box(model, store or ModelStore()) or _of_openai(model)
    if found is not None:
        return found
    try:
        return TargetTokenizer(url, model, headers=headers, tls=tls)
    except ValueError:
        return Estimate()


def _named(named: str, store: ModelStore) -> Tokenizer:
    path = Path(named).expanduser()
    if named.lower() in PRESETS and not path.exists():
        if not store.is_here(named):
            raise ValueError(
                f"tokenizer {named!r} is not on this machine yet; headrace serve fetches it, or"
                " name a GGUF file"
            )
        return _of_gguf(store.find(named).path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"tokenizer {named!r} is no file; expected a GGUF file, a tokenizer.json or the folder"
            f" of one, or one of {', '.join(PRESETS)}"
        )
    if path.suffix == ".json":
        return FileTokenizer(path)
    try:
        return _of_gguf(path)
    except LLMInvalidRequestError as wrong:
        raise ValueError(f"tokenizer {named!r}: {wrong}") from wrong


def _of_box(model: str | None, store: ModelStore) -> Tokenizer | None:
    if model is None or model.lower() not in PRESETS or not store.is_here(model):
        return None
    try:
        return _of_gguf(store.find(model).path)
    except ValueError:
        return None  # of another kind than is read here; the target may count it


def _of_openai(model: str | None) -> Tokenizer | None:
    if model is None:
        return None
    trial = count_here(_TRIAL, model)
    return OpenAITokenizer(model=model, source=trial.source) if trial.exact else None


def _of_gguf(path: Path) -> GgufTokenizer:
    # Most load tests count by estimate and begin sooner without it.
    from headrace.bench.load.gguf_tokens import GgufTokenizer

    return GgufTokenizer(path)
