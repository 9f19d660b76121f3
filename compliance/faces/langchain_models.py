"""What LangChain's standard tests are told of each of our three faces.

The classes of the tests are LangChain's; a face's file only says which class of theirs asks, and
where. All of it runs in the suite's own environment and knows nothing of the gateway but its URL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests.chat_models import magic_function

BASE_URL = os.environ["HEADRACE_URL"]
# The gateway takes any name for the one model that it has, and answers under that model's own.
ANY_NAME = "any-name"
OWN_NAME = os.environ["HEADRACE_MODEL"]
_ENOUGH_TOKENS = 128


class Face(ChatModelIntegrationTests):
    """What holds for every face with the model in the box, which reads and writes text alone."""

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """In place of LangChain's: no chance in an answer, and nothing asked twice in silence."""
        return {"temperature": 0, "max_tokens": _ENOUGH_TOKENS, "timeout": 300, "max_retries": 0}

    @property
    def model_override_value(self) -> str:
        """Asked for in place of ``ANY_NAME``."""
        return OWN_NAME

    @property
    def supports_anthropic_inputs(self) -> bool:
        """Blocks of Anthropic's among a conversation, which LangChain translates for each face."""
        return True

    # What of the tests that hang on the model's wit does not (compliance/suites.py names those).

    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_tool_calling_restated(self, model: BaseChatModel) -> None:
        """As ``test_tool_calling``; which number the model hands over is its own affair."""
        asking = model.bind_tools([magic_function], tool_choice="any")
        query = "What is the value of magic_function(3)? Use the tool."
        for answer in (asking.invoke(query), _whole(asking.stream(query))):
            _check_call(answer)

    async def test_tool_calling_async_restated(self, model: BaseChatModel) -> None:
        """As ``test_tool_calling_async``, in the same way."""
        asking = model.bind_tools([magic_function], tool_choice="any")
        query = "What is the value of magic_function(3)? Use the tool."
        _check_call(await asking.ainvoke(query))
        _check_call(_whole(iter([piece async for piece in asking.astream(query)])))

    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_agent_loop_restated(self, model: BaseChatModel) -> None:
        """As ``test_agent_loop``, but that the first call is demanded."""

        @tool
        def get_weather(location: str) -> str:
            """Get weather at a location."""
            return "It's sunny."

        question = HumanMessage("What is the weather in San Francisco, CA?")
        call = model.bind_tools([get_weather], tool_choice="any").invoke([question])
        assert any(block["type"] == "tool_call" for block in call.content_blocks)
        result = get_weather.invoke(call.tool_calls[0])
        assert isinstance(result, ToolMessage)
        answer = model.bind_tools([get_weather]).invoke([question, call, result])
        assert isinstance(answer, AIMessage)


def _whole(pieces: Iterator[AIMessageChunk]) -> AIMessageChunk:
    first = next(pieces)
    return sum(pieces, first)


def _check_call(answer: AIMessage) -> None:
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert call["name"] == "magic_function"
    assert set(call["args"]) == {"input"}
    assert -1000 < call["args"]["input"] < 1000
    assert call["id"]
