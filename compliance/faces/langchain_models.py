"""What LangChain's standard tests are told of each of our three faces.

The classes of the tests are LangChain's; a face's file only says which class of theirs asks, and
where. All of it runs in the suite's own environment and knows nothing of the gateway but its URL.
"""

from __future__ import annotations

import os
from typing import Any

from langchain_tests.integration_tests import ChatModelIntegrationTests

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
