"""A pytest plugin that lets llama.cpp's tests judge a gateway that serves another model.

Their tests were written for a tiny model that tells stories, which they start themselves, on a
server that also speaks a format of its own. What depends on that is put into other terms here, and
nothing else of a test is touched; docs/compliance.md lists it. Knows only pytest and the standard
library, for it runs in the suite's environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# What only the stories model says. In its place: that anything was said.
_STORY_WORDS = frozenset(
    [
        "But she couldn't",
        '(Suddenly)+|\\{ " Sarax.',
        "(Suddenly)+",
        "(Aside|she|felter|alonger)+",
        "Whillicter",
        "(going|bed)+",
    ]
)
# Tests that count on a model that never ends by itself: ours is asked to be one.
_ENDLESS = frozenset(["test_chat_completion", "test_chat_completion_stream"])
# Tests whose limits are the length of an answer in their model's tokens. Ours fences JSON in
# Markdown, which the grammar allows and the parser takes off again.
_TIGHT = frozenset(["test_completion_with_response_format", "test_completion_with_json_schema"])
_FENCE_TOKENS = 10


class _SomeTokens:
    """Equal to any number of tokens that a prompt can have."""

    def __eq__(self, other: object) -> bool:
        return type(other) is int and other > 0

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "a positive number of tokens"


class _Terms:
    """Puts requests to their server into ours; ``endless`` says what the running test counts on."""

    def __init__(self) -> None:
        self.endless = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.endless = getattr(item, "originalname", item.name) in _ENDLESS

    def speak(self, server_class: Any) -> None:
        """Let ``server_class`` (their ServerProcess) ask ``/v1`` for what it asks of its own."""
        ask, ask_stream = server_class.make_request, server_class.make_stream_request

        def make_request(server: Any, method: str, path: str, data: Any = None, **more: Any) -> Any:
            if path == "/tokenize":
                return _Words(data["content"])
            if method != "POST":
                return ask(server, method, path, data, **more)
            answer = ask(server, method, _ours(path), self._settled(server, path, data), **more)
            if path == "/completion" and answer.status_code == 200:
                answer.body = {"content": answer.body["choices"][0]["text"]}
            return answer

        def make_stream_request(
            server: Any, method: str, path: str, data: Any = None, **more: Any
        ) -> Iterator[Any]:
            chunks = ask_stream(
                server, method, _ours(path), self._settled(server, path, data), **more
            )
            if path != "/completion":
                yield from chunks
                return
            for chunk in chunks:
                for choice in chunk["choices"]:
                    yield {"content": choice["text"], "stop": choice["finish_reason"] is not None}

        server_class.make_request = make_request
        server_class.make_stream_request = make_stream_request

    def _settled(self, server: Any, path: str, data: dict[str, Any]) -> dict[str, Any]:
        """``data`` with what their server would have been started with: seed and temperature."""
        if path.startswith("/v1/messages"):  # which has no seed
            return data
        settled = {"seed": server.seed, "temperature": server.temperature, **data}
        if self.endless:
            settled["ignore_eos"] = True
        if path == "/completion" and isinstance(data.get("logit_bias"), list):
            settled["logit_bias"] = dict(data["logit_bias"])
        return settled


class _Words:
    """Words in the place of ``/tokenize``'s ids: the engine takes a bias on either."""

    status_code = 200

    def __init__(self, content: str) -> None:
        self.body = {"tokens": [f" {word} " for word in content.split()]}


def _ours(path: str) -> str:
    return "/v1/completions" if path == "/completion" else path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put our expectations in the place of the stories model's."""
    utils = sys.modules["utils"]
    terms = _Terms()
    terms.speak(utils.ServerProcess)
    config.pluginmanager.register(terms, "compliance-terms")
    match_regex = _deaf_to_stories(utils.match_regex)
    for item in items:
        module: Any = getattr(item, "module", None)
        if hasattr(module, "match_regex"):
            module.match_regex = match_regex
        callspec = getattr(item, "callspec", None)
        params = {} if callspec is None else callspec.params
        if "n_prompt" in params:
            params["n_prompt"] = _SomeTokens()
        if getattr(item, "originalname", "") in _TIGHT:
            params["n_predicted"] += _FENCE_TOKENS


def _deaf_to_stories(heard: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    def match_regex(regex: str, text: str) -> bool:
        return text.strip() != "" if regex in _STORY_WORDS else heard(regex, text)

    return match_regex
