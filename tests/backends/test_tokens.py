"""How tokens are counted, and how sure of it we say that we are."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from headrace.backends.tokens import TokenCount, count_here, count_tokens
from headrace.contracts.messages import ImagePart, LLMMessage, TextPart, ToolCall, ToolSpec
from headrace.contracts.requests import LLMRequest

HELLO = LLMMessage(role="user", content="Hello there, how are you?")


class Engine:
    """Counts as an engine of ours does."""

    name = "engine"

    async def count_tokens(self, request: LLMRequest) -> int:
        return len(str(request.prompt or request.messages[0].content))


def test_an_engine_counts_with_its_own_tokenizer():
    counted = asyncio.run(count_tokens("12345", backend=Engine()))
    assert counted == TokenCount(tokens=5, exact=True, source="engine")
    assert asyncio.run(count_tokens((HELLO,), backend=Engine())).tokens == 25


def test_token_ids_are_counted_as_they_are():
    request = LLMRequest(messages=(), prompt=(1, 2, 3))
    assert count_here(request) == TokenCount(tokens=3, exact=True, source="token ids")


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("", 0, 0), ("Hello there, how are you?", 5, 10), ("你好世界", 2, 8), ("a", 1, 1)],
)
def test_an_estimate_is_marked_as_one(text, least, most):
    counted = count_here(text, "some-open-model")
    assert (counted.exact, counted.source) == (False, "estimate")
    assert least <= counted.tokens <= most


def test_all_that_a_model_reads_is_counted():
    plain = count_here((HELLO,), "m").tokens
    more = [
        LLMRequest(messages=(HELLO, HELLO)),
        LLMRequest(messages=(HELLO,), tools=(ToolSpec(name="look", description="Look it up"),)),
        LLMRequest(messages=(LLMMessage(role="user", name="Ada", content=HELLO.content),)),
        LLMRequest(
            messages=(
                LLMMessage(
                    role="user",
                    content=(TextPart(text=str(HELLO.content)), ImagePart(url="https://x/y.png")),
                ),
            )
        ),
        LLMRequest(
            messages=(
                LLMMessage(
                    role="assistant",
                    content=HELLO.content,
                    tool_calls=(ToolCall(name="look", arguments_json="{}", call_id="1"),),
                ),
            )
        ),
    ]
    assert all(count_here(request, "m").tokens > plain for request in more)
    assert not any(count_here(request, "m").exact for request in more)


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o-mini", "gpt-3.5-turbo", "gpt-oss-120b"])
def test_a_table_that_is_not_here_is_not_fetched(tmp_path, model):
    counted = count_here("Hello", model, environment={"TIKTOKEN_CACHE_DIR": str(tmp_path)})
    assert (counted.exact, counted.source) == (False, "estimate")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_table_is_not_fetched_anew(tmp_path):
    url = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    path = tmp_path / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    path.write_bytes(b"half of it")
    counted = count_here("Hello", "gpt-4o", environment={"TIKTOKEN_CACHE_DIR": str(tmp_path)})
    assert not counted.exact
    assert path.read_bytes() == b"half of it"


def test_a_cache_that_is_turned_off_means_no_table():
    assert not count_here("Hello", "gpt-4o", environment={"TIKTOKEN_CACHE_DIR": ""}).exact


def test_without_tiktoken_there_is_an_estimate():
    program = (
        "import sys; sys.modules['tiktoken'] = sys.modules['tiktoken.model'] = None\n"
        "from headrace.backends.tokens import count_here\n"
        "print(count_here('Hello', 'gpt-4o').source)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "estimate"


def test_openais_own_table_counts_a_text_exactly():
    url = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    name = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    if not (Path(tempfile.gettempdir()) / "data-gym-cache" / name).exists():
        pytest.skip("tiktoken's table o200k_base is not on this machine, and is not fetched")
    counted = count_here("Hello world", "gpt-4o", environment={})
    assert counted == TokenCount(tokens=2, exact=True, source="tiktoken o200k_base")
