"""LangChain's standard tests of a chat model, asked through OpenAI's responses."""

from __future__ import annotations

from typing import Any

from langchain_models import ANY_NAME, BASE_URL, Face
from langchain_openai import ChatOpenAI


class TestResponses(Face):
    """``ChatOpenAI`` with ``use_responses_api``."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        """Who asks."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Whom it asks."""
        whom = {"model": ANY_NAME, "base_url": f"{BASE_URL}/v1", "api_key": "none"}
        return {**whom, "use_responses_api": True}

    @property
    def supports_json_mode(self) -> bool:
        """Whether ``text.format`` takes any JSON object."""
        return True
