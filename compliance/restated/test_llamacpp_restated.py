"""Cases of llama.cpp's suite that assert its own format or flags, asked of OpenAI's endpoints.

What they hold is the same: how many tokens were computed, why it ended, that a prompt may be given
in any of its forms, that each token comes with as many alternatives as asked for, that what was
computed before is found again. Runs in the suite's environment, with the SDK that the suite pins.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest
import requests
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

PROMPTS = [
    ("I believe the meaning of life is", 8),
    ("Write a joke about AI from a very long prompt which will not be truncated", 64),
]
TOKENS = [57, 2316, 260, 3446, 282, 1029, 314]  # ids that the model in the box has


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    """The pinned SDK, pointed at the gateway."""
    base_url = f"http://127.0.0.1:{os.environ['PORT']}/v1"
    with OpenAI(api_key="dummy", base_url=base_url, max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, prompt: object, **settings: object) -> Completion:
    """One plain completion; the stories model never ends by itself, so this one may not either."""
    return client.completions.create(
        model="any",
        prompt=prompt,
        extra_body={"ignore_eos": True, **settings.pop("more", {})},
        **settings,
    )


@pytest.mark.parametrize(("prompt", "max_tokens"), PROMPTS)
def test_completion(client: OpenAI, prompt: str, max_tokens: int) -> None:
    answer = ask(client, prompt, max_tokens=max_tokens, more={"timings_per_token": True})
    timings = answer.model_extra["timings"]
    usage, choice = answer.usage, answer.choices[0]
    assert usage.completion_tokens == timings["predicted_n"] == max_tokens
    assert usage.prompt_tokens == timings["prompt_n"] + timings["cache_n"]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (choice.finish_reason, choice.index) == ("length", 0)
    assert choice.text


@pytest.mark.parametrize(("prompt", "max_tokens"), PROMPTS)
def test_completion_stream(client: OpenAI, prompt: str, max_tokens: int) -> None:
    stream = ask(
        client, prompt, max_tokens=max_tokens, stream=True, stream_options={"include_usage": True}
    )
    *pieces, last = stream
    assert last.choices == []
    assert last.usage.completion_tokens == max_tokens
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [
        "length"
    ]
    assert "".join(piece.choices[0].text for piece in pieces)


def test_n_probs(client: OpenAI) -> None:
    answer = ask(client, PROMPTS[0][0], max_tokens=5, temperature=0.0, logprobs=10)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    assert "".join(logprobs.tokens) == answer.choices[0].text
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert logprob <= 0.0
        assert len(top) == 10
        # Asked at temperature 0, each token is the likeliest.
        assert math.isclose(top[token], max(top.values()))
        assert sum(map(math.exp, top.values())) <= 1.0 + 1e-6


def test_n_probs_stream(client: OpenAI) -> None:
    stream = ask(client, PROMPTS[0][0], max_tokens=5, temperature=0.0, logprobs=10, stream=True)
    tokens = []
    for chunk in stream:
        choice = chunk.choices[0]
        if choice.finish_reason is None:
            tokens += choice.logprobs.tokens
            assert all(logprob <= 0.0 for logprob in choice.logprobs.token_logprobs)
            assert all(len(top) == 10 for top in choice.logprobs.top_logprobs)
    assert len(tokens) == 5


@pytest.mark.parametrize("prompt", [TOKENS, [TOKENS, TOKENS], [TOKENS, PROMPTS[0][0]]])
def test_completion_with_tokens_input(client: OpenAI, prompt: list[object]) -> None:
    answer = ask(client, prompt, max_tokens=8, temperature=0.0)
    wanted = 1 if prompt is TOKENS else 2
    assert [choice.index for choice in answer.choices] == list(range(wanted))
    assert all(choice.text for choice in answer.choices)
    if wanted == 2 and prompt[0] == prompt[1]:
        assert answer.choices[0].text == answer.choices[1].text


def test_completion_prompt_cache(client: OpenAI) -> None:
    counts: dict[int, int] = {}
    for turn in range(8):
        words = turn % 4
        answer = ask(client, f" Hello {words}" * (40 + words), max_tokens=1 + turn)
        assert answer.usage.completion_tokens == 1 + turn
        # The same prompt counts the same, whether it was computed or found in the cache.
        assert answer.usage.prompt_tokens == counts.setdefault(words, answer.usage.prompt_tokens)
        assert 0 <= answer.usage.prompt_tokens_details.cached_tokens < answer.usage.prompt_tokens


def test_return_progress(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "This is a test of progress. " * 30}],
        max_tokens=4,
        stream=True,
        extra_body={"return_progress": True, "cache_prompt": False},
    )
    told = [chunk.model_extra["prompt_progress"] for chunk in stream if _tells_progress(chunk)]
    assert told
    processed = [progress["processed"] for progress in told]
    assert processed == sorted(set(processed))
    assert len({progress["total"] for progress in told}) == 1
    assert processed[-1] == told[-1]["total"] > 0


def _tells_progress(chunk: ChatCompletionChunk) -> bool:
    return (chunk.model_extra or {}).get("prompt_progress") is not None


def test_chat_completion_cached_tokens(client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Test"},
        {"role": "user", "content": f"1 2 3 4 5 {os.getpid()}"},
    ]
    first, again = (
        client.chat.completions.create(model="any", messages=messages, max_tokens=8).usage
        for _ in range(2)
    )
    assert first.prompt_tokens == again.prompt_tokens
    # All but the last token, which must be computed to go on from.
    assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1


def test_responses_stream_with_llama_telemetry(client: OpenAI) -> None:
    stream = client.responses.create(
        model="any",
        input="This is a test of progress. " * 30,
        max_output_tokens=8,
        stream=True,
        extra_body={"timings_per_token": True, "return_progress": True, "cache_prompt": False},
    )
    events = [event.to_dict() for event in stream]
    told = [event for event in events if "prompt_progress" in event]
    assert {event["type"] for event in told} == {"response.in_progress"}
    for progress in (event["prompt_progress"] for event in told):
        assert progress["total"] >= progress["processed"] >= progress["cache"]
        assert progress["total"] > 0
    timed = [event for event in events if "timings" in event]
    assert "response.output_text.delta" in {event["type"] for event in timed}
    assert all("predicted_per_second" in event["timings"] for event in timed)
    assert timed[-1] is events[-1]
    # Where theirs says 'completed', an answer that was cut says so.
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["usage"]["output_tokens"] == 8


PIXEL = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==",
    },
}
READ = {"type": "tool_use", "id": "tool_1", "name": "read", "input": {"file": "test.png"}}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, PIXEL]}],
        [
            {"role": "user", "content": "What is in this image?"},
            {"role": "assistant", "content": [READ]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "tool_1",
                        "content": [{"type": "text", "text": "File: test.png"}, PIXEL],
                    }
                ],
            },
        ],
    ],
    ids=["anthropic_vision_format_accepted", "anthropic_tool_result_with_image"],
)
def test_an_image_is_refused_by_a_model_that_sees_none(messages: list[object]) -> None:
    url = f"http://127.0.0.1:{os.environ['PORT']}/v1/messages"
    body = {"model": "any", "max_tokens": 10, "messages": messages}
    answer = requests.post(url, json=body, timeout=60)
    # Where theirs says 500: the request is at fault, not the server.
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert "image input is not supported" in answer.json()["error"]["message"].lower()
