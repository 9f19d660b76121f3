"""A prompt has the same head, and belongs to the same session, whichever way its request goes."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.hot.asking import PassingAsking
from headrace.traffic.routing.asking import AsRequest
from headrace.wire import anthropic, anthropic_passing, openai_chat, openai_passing

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def both(body: dict[str, Any], codec: ModuleType, passing: ModuleType) -> tuple[Any, Any]:
    sent = json.dumps(body).encode()
    request = codec.read_request(sent).request
    passed = passing.read_passing(sent)
    assert passed is not None
    return AsRequest(request=request, model="m"), PassingAsking(passed, sent, {}, "m")


@given(
    turns=st.lists(st.tuples(st.sampled_from(["system", "user"]), words), min_size=1, max_size=4)
)
def test_a_chat_has_one_head(turns):
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in turns]
    messages[0]["content"] = [{"type": "text", "text": messages[0]["content"]}]
    body = {"model": "m", "messages": messages, "user": "ann", "max_tokens": 7}
    general, fast = both(body, openai_chat, openai_passing)
    for most in (1, 30, 1000):
        assert general.head(most) == fast.head(most)
    assert general.session(("user",)) == fast.session(("user",)) == "ann"
    assert general.answer_tokens(99) == fast.answer_tokens(99) == 7


@given(system=st.one_of(st.none(), words), first=words, later=words)
def test_a_message_has_one_head(system, first, later):
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": 7,
        "metadata": {"user_id": "ann"},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": first}]},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": later},
        ],
    }
    if system is not None:
        body["system"] = system
    general, fast = both(body, anthropic, anthropic_passing)
    for most in (1, 30, 1000):
        assert general.head(most) == fast.head(most)
    assert general.session(("user",)) == fast.session(("user",)) == "ann"


@pytest.mark.parametrize(
    "broken",
    [
        {"metadata": 7},
        {"system": 7},
        {"messages": ["what"]},
        {"messages": [{"role": "user", "content": 7}]},
    ],
)
def test_what_is_wrong_with_a_message_is_the_service_s_to_say(broken):
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}], **broken}
    sent = json.dumps(body).encode()
    passed = anthropic_passing.read_passing(sent)
    assert passed is not None
    asking = PassingAsking(passed, sent, {}, "m")
    assert isinstance(asking.head(100), bytes)
    assert asking.session(("user",)) is None
