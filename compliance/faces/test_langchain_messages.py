"""LangChain's standard tests of a chat model, asked through Anthropic's messages."""

from __future__ import annotations

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_models import ANY_NAME, BASE_URL, Face


class TestMessages(Face):
    """``ChatAnthropic`` as it is by default."""

    @property
    def chat_model_class(self) -> type[ChatAnthropic]:
        """Who asks."""
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Whom it asks."""
        return {"model": ANY_NAME, "base_url": BASE_URL, "api_key": "none"}
