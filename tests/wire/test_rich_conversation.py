"""The same rich conversation through every face to every format.

What does not arrive must stand in the table of the codec that lost it (``LOSSES``), and what stands
there must be lost. A further field of the contracts fails here until there is a feature that uses it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from attrs import evolve, fields

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import FilePart, ImagePart, LLMMessage, TextPart
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.wire.assemble import assemble, deltas
from headrace.wire.losses import lost
from wire.codecs import CODECS, takes_prompts
from wire.conversation import ANSWERS, KEPT, NOT_SAID, SAID, SETTINGS, STAY_WITH_US, TURNS

pairs = pytest.mark.parametrize(("face", "format_name"), list(product(CODECS, CODECS)))


def reason_of(codec: Any, key: str) -> str | None:
    """Why the codec loses what ``key`` names, by the longest part of it that stands in its table."""
    while key:
        if key in codec.LOSSES:
            return str(codec.LOSSES[key])
        key = key.rpartition(".")[0]
    return None


def base(codec: Any) -> LLMRequest:
    if takes_prompts(codec):
        return LLMRequest(messages=(), prompt="Hello", model="m", max_tokens=5)
    return LLMRequest(messages=(LLMMessage(role="user", content="Hello"),), model="m", max_tokens=5)


def carried(codec: Any, request: LLMRequest) -> LLMRequest | None:
    """What arrives of ``request``, written and read in one format; ``None`` where it is refused."""
    try:
        body = codec.write_request(request, stream=False)
        arrived: LLMRequest = codec.read_request(body).request
    except LLMInvalidRequestError:
        return None
    return arrived


def routed(heard: LLMRequest, sent: LLMRequest) -> LLMRequest:
    """``heard`` under the model's name, which some formats have in the address and not in the body."""
    return evolve(heard, model=sent.model) if heard.model is None else heard


def asking(codec: Any, key: str, changes: Any) -> LLMRequest:
    """A request with one feature, in the smallest form that the format takes."""
    if isinstance(changes, LLMMessage):
        hello = LLMMessage(role="user", content="Hello")
        turns = (changes, hello) if changes.role == "system" else (changes,)
        return evolve(base(codec), messages=turns, prompt=None)
    return evolve(base(codec), **changes)


def arrives_whole(key: str, sent: LLMRequest, arrived: LLMRequest | None) -> bool:
    if arrived is None:
        return False
    name = key.partition(".")[0]
    if name == "messages":
        return arrived.messages == sent.messages
    return bool(getattr(arrived, name) == getattr(sent, name))


FEATURES: list[Any] = [
    pytest.param(key, changes, id=f"{key}-{i}")
    for i, (key, changes) in enumerate([*TURNS, *SETTINGS])
]


@pytest.mark.parametrize(("key", "changes"), FEATURES)
@pairs
def test_a_feature_arrives_or_its_loss_is_in_the_table(face, format_name, key, changes):
    asked = asking(CODECS[face], key, changes)
    heard = carried(CODECS[face], asked)
    if not arrives_whole(key, asked, heard):
        assert reason_of(CODECS[face], key), f"{face} loses {key}"
        return
    assert heard is not None
    heard = routed(heard, asked)
    to = CODECS[format_name]
    if takes_prompts(to) is not (heard.prompt is not None):
        assert reason_of(to, "prompt") or reason_of(to, "messages")
        return
    assert arrives_whole(key, heard, carried(to, heard)) or reason_of(to, key), (
        f"{format_name} loses {key}"
    )


@pytest.mark.parametrize("name", CODECS)
def test_what_the_table_calls_lost_is_lost(name):
    codec = CODECS[name]
    kept: dict[str, bool] = {}
    for key, changes in [*TURNS, *SETTINGS]:
        asked = asking(codec, key, changes)
        kept[key] = kept.get(key, True) and arrives_whole(key, asked, carried(codec, asked))
    for key, changes in ANSWERS:
        kept[key] = kept.get(key, True) and said_by(codec, changes)[1] == said_by(codec, changes)[0]
    stale = [key for key in codec.LOSSES if kept.get(key, False)]
    assert stale == []


@pairs
def test_the_whole_conversation_arrives_but_for_what_the_tables_say(face, format_name):
    here, there = CODECS[face], CODECS[format_name]
    if takes_prompts(here) or takes_prompts(there):
        return
    fit = [
        (key, turn)
        for key, turn in TURNS
        if all(carried(codec, asking(codec, key, turn)) is not None for codec in (here, there))
    ]
    settings: dict[str, Any] = {}
    for _, changes in SETTINGS:
        settings |= {k: v for k, v in changes.items() if k not in ("prompt", "messages")}
    sent = LLMRequest(messages=tuple(turn for _, turn in fit), **settings)
    heard = carried(here, sent)
    assert heard is not None
    arrived = carried(there, routed(heard, sent))
    assert arrived is not None
    assert len(arrived.messages) == len(sent.messages)
    for (key, turn), got in zip(fit, arrived.messages, strict=True):
        if told_no_less(turn, got) != turn:
            assert reason_of(here, key) or reason_of(there, key), f"{key}: {got}"
    for each in fields(LLMRequest):
        if each.name == "messages" or each.name in STAY_WITH_US:
            continue
        if getattr(arrived, each.name) != getattr(sent, each.name):
            keys = (
                ("tools.cache", "tools.strict", "tools.strict.mixed")
                if each.name == "tools"
                else (each.name,)
            )
            assert any(reason_of(c, key) for c in (here, there) for key in keys), each.name


def told_no_less(sent: LLMMessage, got: LLMMessage) -> LLMMessage:
    """``got`` without the tool's name where only the call's id was sent: that was added on the way,
    for those who know results by it."""
    return evolve(got, tool_name=None) if sent.tool_name is None else got


def without(codec: Any, sent: LLMResponse, changes: dict[str, Any]) -> LLMResponse:
    """``sent`` without what every answer of ours has and the format, by its table, has not."""
    names = [name for name in ("model", "response_id") if name not in changes]
    return evolve(sent, **{name: None for name in names if f"answer.{name}" in codec.LOSSES})


def said_by(codec: Any, changes: dict[str, Any]) -> tuple[LLMResponse, LLMResponse]:
    """An answer with one feature, and what arrives of it."""
    sent = evolve(SAID, **changes)
    keep = {"keep": KEPT} if sent.provider_fields or sent.logprobs else {}
    body = codec.write_response(sent)
    arrived: LLMResponse = codec.read_response(body, **keep)
    # The words in which a format says its reasons are its own, and its dates our clock's.
    if "raw_finish_reason" not in changes:
        plain = tuple(evolve(choice, raw_finish_reason=None) for choice in arrived.choices)
        arrived = evolve(arrived, raw_finish_reason=None, choices=plain)
    if "created" not in changes:
        arrived = evolve(arrived, created=None)
    return without(codec, sent, changes), arrived


@pytest.mark.parametrize(
    ("key", "changes"), [pytest.param(k, c, id=f"{k}-{i}") for i, (k, c) in enumerate(ANSWERS)]
)
@pytest.mark.parametrize("name", CODECS)
def test_an_answer_arrives_or_its_loss_is_in_the_table(name, key, changes):
    sent, arrived = said_by(CODECS[name], changes)
    assert arrived == sent or reason_of(CODECS[name], key), f"{name} loses {key}"


@pytest.mark.parametrize(
    ("key", "changes"), [pytest.param(k, c, id=f"{k}-{i}") for i, (k, c) in enumerate(ANSWERS)]
)
@pytest.mark.parametrize("name", CODECS)
def test_a_streamed_answer_loses_no_more_than_a_whole_one(name, key, changes):
    codec = CODECS[name]
    sent = evolve(SAID, **changes)
    writer = codec.stream_writer(
        response_id=sent.response_id,
        model=sent.model,
        created=1,
        include_usage=True,
        system_fingerprint=sent.system_fingerprint,
    )
    said = b"".join(writer.write(delta) for delta in deltas(sent)) + writer.finish()
    reader = codec.stream_reader(KEPT if sent.provider_fields or sent.logprobs else ())
    arrived = assemble([*reader.feed(said), *reader.close()])
    if "raw_finish_reason" not in changes:
        plain = tuple(evolve(choice, raw_finish_reason=None) for choice in arrived.choices)
        arrived = evolve(arrived, raw_finish_reason=None, choices=plain)
    # Streams have no date of their own.
    expected = evolve(without(codec, sent, changes), created=None)
    assert arrived == expected or reason_of(codec, key), f"{name} loses {key}"


def test_every_field_of_the_contracts_is_in_the_conversation():
    keys = {key for key, _ in [*TURNS, *SETTINGS]}
    settings = {each.name for each in fields(LLMRequest)} - STAY_WITH_US - {"messages"}
    assert settings - keys == set()
    turns = {f"messages.{each.name}" for each in fields(LLMMessage)}
    assert turns - {".".join(key.split(".")[:2]) for key in keys} == set()
    parts = {each.name for kind in (TextPart, ImagePart, FilePart) for each in fields(kind)}
    shown = {
        each.name
        for _, turn in TURNS
        if not isinstance(turn.content, str)
        for part in turn.content
        for each in fields(type(part))
        if getattr(part, each.name) is not None
    }
    assert parts - shown == set()
    answers = {f"answer.{each.name}" for each in fields(LLMResponse)}
    assert answers - {f"answer.{name}" for name in NOT_SAID} == {key for key, _ in ANSWERS}


@pytest.mark.parametrize("name", [n for n, codec in CODECS.items() if not takes_prompts(codec)])
def test_what_a_backend_does_not_get_of_a_conversation_can_be_named(name):
    codec = CODECS[name]
    for key, turn in TURNS:
        request = asking(codec, key, turn)
        if carried(codec, request) is None or key not in codec.LOSSES:
            continue
        told = lost(request, codec.LOSSES)
        if key in ("messages.content", "messages.content.media_type"):
            continue  # said in the table alone: the text is there
        assert key in told
        assert set(told) <= codec.LOSSES.keys()
