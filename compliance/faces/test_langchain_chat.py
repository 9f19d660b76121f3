"""LangChain's standard tests of a chat model, asked through OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

from langchain_models import ANY_NAME, BASE_URL, Face
from langchain_openai import ChatOpenAI


class TestChatCompletions(Face):
    """``ChatOpenAI`` as it is by default."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        """Who asks."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Whom it asks."""
        whom = {"model": ANY_NAME, "base_url": f"{BASE_URL}/v1", "api_key": "none"}
        # LangChain asks only OpenAI itself for a stream's usage, unless told to.
        return {**whom, "stream_usage": True}

    @property
    def supports_json_mode(self) -> bool:
        """Whether ``response_format`` takes any JSON object."""
        return True
