"""A conversation as one text, for servers that continue texts and know no turns."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attrs import evolve

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage, TextPart
from headrace.contracts.requests import LLMRequest

if TYPE_CHECKING:
    from jinja2 import Template

PLAIN = "plain"


def as_completion(request: LLMRequest, template: str, backend: str) -> LLMRequest:
    """``request``, a conversation, as the text completion that ``template`` makes of it.

    Raises LLMCapabilityError for what a text cannot hold, naming the backend.
    """
    turns = [_turn(message, place, backend) for place, message in enumerate(request.messages)]
    prompt = _plain(turns, backend) if template == PLAIN else _rendered(turns, template)
    return evolve(request, messages=(), prompt=prompt)


def _turn(message: LLMMessage, place: int, backend: str) -> dict[str, str]:
    if message.role == "tool" or message.tool_calls:
        raise _cannot(backend, place, "is about a tool's call")
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    texts = []
    for part in message.content:
        if not isinstance(part, TextPart):
            raise _cannot(backend, place, "holds more than text")
        texts.append(part.text)
    return {"role": message.role, "content": "".join(texts)}


def _cannot(backend: str, place: int, what: str) -> LLMCapabilityError:
    return LLMCapabilityError(
        f"{backend} continues one text, and messages[{place}] {what}; ask a model of another backend",
        param=f"messages[{place}]",
    )


def _plain(turns: list[dict[str, str]], backend: str) -> str:
    """The words of the system and of the one turn of the user, a blank line between them."""
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    if roles != ["user"] or turns[-1]["role"] != "user":
        raise LLMCapabilityError(
            f"{backend} continues one text, and this conversation has {len(roles)} turns: name the "
            "format in which its model was trained to read them as prompt_template in its provider's "
            "row (chatml, llama-3.3, or a Jinja file), or send a prompt instead of messages",
            param="messages",
        )
    return "\n\n".join(turn["content"] for turn in turns)


def _rendered(turns: list[dict[str, str]], template: str) -> str:
    from jinja2 import TemplateError

    try:
        return _compiled(template).render(
            messages=turns, add_generation_prompt=True, bos_token="", eos_token=""
        )
    except TemplateError as error:
        raise LLMInvalidRequestError(
            f"the prompt template {template!r} does not take this conversation: {error}",
            param="messages",
        ) from error


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from headrace.backends.local.templates import read_template

    def refuse(message: str) -> Any:
        raise TemplateError(message)

    text = read_template(template)
    assert text is not None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(text)
