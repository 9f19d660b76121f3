"""What one object of a file of prompts says, in whichever form it is written.

ShareGPT's ``conversations`` of ``from`` and ``value``; OpenAI's ``messages``; a ``prompt``,
``text``, ``input`` or ``query`` with ``documents``; and a line of OpenAI's batch files, which has
any of those in its ``body``. Other fields (a temperature, say) are not taken: the load test's own
settings hold for all requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from attrs import frozen

# As they occur in the collections of conversations that were made with ShareGPT's browser plug-in.
_ROLES: Mapping[str, str] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_LENGTHS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "output_length",
    "output_tokens",
)
_TEXTS = ("prompt", "text", "input", "query")


@frozen(kw_only=True)
class Turn:
    """One request of a file: ``messages``, or a ``prompt`` with what belongs to it.

    ``place`` names file and line. ``answer`` is what was answered when it was recorded, and
    ``more_than_text`` says that there is content that is no text.
    """

    place: str
    messages: tuple[dict[str, object], ...] = ()
    prompt: str | None = None
    inputs: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    output_tokens: int | None = None
    answer: str | None = None
    more_than_text: bool = False
    after_s: float = 0.0


def turns_of(value: Mapping[str, Any], place: str) -> list[Turn]:
    """The turns of one object; none where nobody asks anything.

    A recorded conversation is asked turn by turn, and the server's own answers stand between. An
    answer at the end of ``messages`` is not sent. Raises ValueError for what has no such form.
    """
    body = value.get("body")
    if isinstance(body, dict):
        return turns_of(body, f"{place}, body")
    if "conversations" in value:
        return _shared(value["conversations"], f"{place}, conversations")
    output = _output(value, place)
    after_s = _after(value, place)
    if "messages" in value:
        messages = _messages(value["messages"], f"{place}, messages")
        return _asked(messages, place, output, after_s)
    name = next((name for name in _TEXTS if value.get(name) is not None), None)
    if name is None:
        raise ValueError(
            f"{place}: expected one of conversations, messages, {', '.join(_TEXTS)}; found"
            f" {', '.join(map(str, value)) or 'nothing'}"
        )
    text = value[name]
    if isinstance(text, str):
        documents = _texts(value.get("documents", []), f"{place}, documents")
        return [
            Turn(
                place=place,
                prompt=text,
                documents=documents,
                output_tokens=output,
                after_s=after_s,
            )
        ]
    if name == "input" and isinstance(text, list) and any(isinstance(t, dict) for t in text):
        # The Responses API's input may be messages.
        return _asked(_messages(text, f"{place}, input"), place, output, after_s)
    if name in ("input", "text", "prompt") and isinstance(text, list) and text:
        inputs = _texts(text, f"{place}, {name}")
        return [Turn(place=place, inputs=inputs, output_tokens=output, after_s=after_s)]
    raise ValueError(f"{place}, {name}: expected text, found {text!r:.60}")


def _asked(
    messages: list[dict[str, object]], place: str, output: int | None, after_s: float
) -> list[Turn]:
    answer = None
    while messages and messages[-1]["role"] == "assistant":
        content = messages.pop().get("content")
        answer = content if isinstance(content, str) else None
    if not messages:
        return []
    return [
        Turn(
            place=place,
            messages=tuple(messages),
            output_tokens=output,
            answer=answer,
            more_than_text=any(not isinstance(m.get("content"), str) for m in messages),
            after_s=after_s,
        )
    ]


def _messages(value: object, place: str) -> list[dict[str, object]]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected a list of messages, found {value!r:.60}")
    for number, message in enumerate(value):
        if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
            raise ValueError(
                f"{place}[{number}]: expected an object with role and content, found"
                f" {message!r:.60}"
            )
    return value[:]


def _shared(value: object, place: str) -> list[Turn]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected a list, found {value!r:.60}")
    turns: list[Turn] = []
    new: list[dict[str, object]] = []
    for number, said in enumerate(value):
        at = f"{place}[{number}]"
        if not (isinstance(said, dict) and isinstance(said.get("value"), str)):
            raise ValueError(f"{at}: expected an object with from and value, found {said!r:.60}")
        role = _ROLES.get(str(said.get("from")))
        if role is None:
            raise ValueError(
                f"{at}.from: expected one of {', '.join(_ROLES)}, found {said.get('from')!r}"
            )
        answered = role == "assistant" and new and new[-1]["role"] == "user"
        if answered:
            turns.append(Turn(place=at, messages=tuple(new), answer=said["value"]))
            new = []
        elif role == "assistant" and turns:
            # Said twice in a row: the server says it once.
            continue
        else:
            # What the assistant said before anybody asked belongs to the first question.
            new.append({"role": role, "content": said["value"]})
    if new and new[-1]["role"] == "user":
        turns.append(Turn(place=place, messages=tuple(new)))
    return turns


def _texts(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected a list of texts, found {value!r:.60}")
    found = []
    for number, one in enumerate(value):
        # Cohere's and Jina's documents may be objects with a text.
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise ValueError(f"{place}[{number}]: expected text, found {one!r:.60}")
        found.append(text)
    return tuple(found)


def _output(value: Mapping[str, Any], place: str) -> int | None:
    for name in _LENGTHS:
        tokens = value.get(name)
        if tokens is None:
            continue
        if type(tokens) is not int or tokens < 1:
            raise ValueError(f"{place}, {name}: expected a number from 1 on, found {tokens!r:.60}")
        return tokens
    return None


def _after(value: Mapping[str, Any], place: str) -> float:
    after = value.get("after_s", 0.0)
    if isinstance(after, bool) or not isinstance(after, int | float):
        raise ValueError(f"{place}, after_s: expected seconds, found {after!r:.60}")
    if after < 0 or not isfinite(after):
        raise ValueError(f"{place}, after_s: expected 0 or more seconds, found {after!r:.60}")
    return float(after)
