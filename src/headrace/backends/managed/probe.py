"""What answers at an address: whether a model server does, of which models, or a gateway of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import aclosing

import msgspec
from attrs import field, frozen

from headrace.contracts.errors import LLMBadResponseError, LLMError, LLMUnavailableError
from headrace.net.transport import HttpRequest, TimeLimits, Transport, parse_url
from headrace.stores.secret import Secret

GATEWAY = "headrace"
"""What our gateway calls itself in the header ``server`` where it lists models."""

_LIMITS = TimeLimits(queue_s=2.0, connect_s=2.0, first_byte_s=3.0, idle_s=2.0, total_s=5.0)
_MOST_BYTES = 1 << 20
_MOST_NAMES = 20


@frozen(kw_only=True)
class Found:
    """What was found: the ``models`` of a server that lists them, each by all of its names.

    ``what`` says in words what it is, where it is anything else.
    """

    models: tuple[tuple[str, ...], ...] | None = None
    is_gateway: bool = False
    what: str = ""

    def serves(self, wanted: Collection[str]) -> str | None:
        """The name by which one of its models is asked for that has a ``wanted`` name."""
        if self.is_gateway:
            return None
        return next((names[0] for names in self.models or () if set(names) & set(wanted)), None)

    def told(self) -> str:
        """What it is, for an error's message."""
        if self.is_gateway:
            return "a headrace gateway, which is no engine"
        if self.models is None:
            return self.what
        names = [names[0] for names in self.models][:_MOST_NAMES]
        return f"a server of {', '.join(map(repr, names)) or 'no model'}"


@frozen(kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


async def probe(base_url: str, transport: Transport, key: Secret | None = None) -> Found | None:
    """What answers at ``base_url`` (up to and including /v1); ``None`` where nobody does."""
    root = base_url.rstrip("/").removesuffix("/v1")
    found = Found()
    for url in dict.fromkeys((f"{base_url.rstrip('/')}/models", f"{root}/models")):
        try:
            answer = await _ask(url, transport, key)
        except LLMUnavailableError:
            return None
        except LLMError as error:
            return Found(what=f"something that does not answer as a model server does ({error})")
        is_gateway = GATEWAY in answer.headers.get("server", "")
        if is_gateway:
            return Found(is_gateway=True)
        models = listed(answer.body) if answer.status == 200 else None
        if models is not None:
            return Found(models=models)
        if answer.status in (401, 403):
            return Found(what=f"a server that asks for another key (it answered {answer.status})")
        found = Found(what=f"something that lists no models (it answered {answer.status})")
    return found


async def answers(url: str, transport: Transport, key: Secret | None = None) -> int | None:
    """The status with which ``url`` answers; ``None`` where it does not."""
    try:
        return (await _ask(url, transport, key)).status
    except LLMBadResponseError:
        raise
    except LLMError:
        return None


def listed(body: bytes) -> tuple[tuple[str, ...], ...] | None:
    """The models of a list in OpenAI's form, each by all of its names; ``None`` where it is none."""
    try:
        wire = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    entries = wire.get("data") if isinstance(wire, dict) else wire
    if not isinstance(entries, list):
        return None
    models = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            return None
        # vLLM's root is the directory that it was started with, llama.cpp has aliases.
        more = [entry.get("root"), *(entry.get("aliases") or ())]
        names = [entry["id"], *(name for name in more if isinstance(name, str))]
        models.append(tuple(dict.fromkeys(names)))
    return tuple(models)


async def _ask(url: str, transport: Transport, key: Secret | None) -> _Answer:
    shown = () if key is None else (("authorization", f"Bearer {key.reveal()}"),)
    request = HttpRequest(url=parse_url(url), headers=(("accept", "application/json"), *shown))
    async with aclosing(await transport.send(request, _LIMITS)) as reply:
        body = await reply.read(_MOST_BYTES)
        return _Answer(status=reply.status, headers=reply.headers, body=body)
