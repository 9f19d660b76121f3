"""A pytest plugin that gives the SDK's tests of stored responses something that is stored.

They name responses that only OpenAI's mock of its own server has. In the place of those names goes
the id of a response that the gateway was just asked for; nothing else of a test is touched. Knows
only pytest, the standard library and the SDK, for it runs in the suite's environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

_NAMED = frozenset(["resp_677efb5139a88190b512bc3fef8e535d", "response_id"])


def pytest_configure() -> None:
    """Put real ids into the SDK's paths."""
    from openai.resources.responses import input_items, responses

    for module in (responses, input_items):
        module.path_template = _with_real_id(module.path_template)


def _with_real_id(fill: Callable[..., str]) -> Callable[..., str]:
    def path_template(template: str, /, **names: Any) -> str:
        if names.get("response_id") in _NAMED:
            # Only what runs in the background can be cancelled.
            names["response_id"] = _stored(background=template.endswith("/cancel"))
        return fill(template, **names)

    return path_template


def _stored(*, background: bool) -> str:
    """The id of a response that the gateway keeps."""
    body = {"input": "Say hello.", "max_output_tokens": 16, "background": background}
    request = Request(
        f"{os.environ['TEST_API_BASE_URL']}/responses",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urlopen(request, timeout=120) as answer:
        stored: str = json.load(answer)["id"]
    return stored
