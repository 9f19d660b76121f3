"""A pytest plugin that changes two things in what the SDK's tests ask.

Some cases send a tool whose properties are the text "bar" in place of a schema each, which nobody
could hold a model to: they get the schema of a text. And every answer may have 1024 tokens, of which
none is looked at: it may have 8, or two cores were busy for an hour. Knows only pytest and the
standard library, for it runs in the suite's environment.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

_ENOUGH_TOKENS = 8


@pytest.fixture(scope="session", autouse=True)
def _modest_requests() -> None:
    from anthropic.resources import messages

    for client in (messages.Messages, messages.AsyncMessages):
        for name in ("create", "count_tokens"):
            setattr(client, name, _mended(getattr(client, name)))


def _mended(method: Any) -> Any:
    @functools.wraps(method)
    def asked(self: Any, **fields: Any) -> Any:
        for tool in fields.get("tools") or ():
            properties = tool["input_schema"]["properties"]
            for name, value in properties.items():
                if value == "bar":
                    properties[name] = {"type": "string"}
        if "max_tokens" in fields:
            fields["max_tokens"] = min(fields["max_tokens"], _ENOUGH_TOKENS)
        return method(self, **fields)

    return asked
