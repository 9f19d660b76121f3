"""Every face in front of a backend of every format, and the model in the box behind all of them.

One gateway has the model. Another has a backend for each format, which are the faces of the first.
Whoever asks whichever face of the second for whichever backend is told what the model says.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from types import ModuleType
from typing import Any

import pytest
from attrs import field, frozen

from gateway.served import MODEL, Served
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.wire import (
    anthropic,
    gemini,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
)
from headrace.wire.assemble import assemble

PROMPT = "What is the capital of France?"
TOKENS = 8


@frozen
class Face:
    """A format in which the gateways are asked, and where; ``backend`` is how one asks the other."""

    codec: ModuleType
    path: str
    backend: dict[str, str] | None = None
    stream_path: str | None = None
    options: dict[str, Any] = field(factory=dict)

    def ask(self, served: Served, model: str, *, stream: bool) -> LLMResponse:
        is_text = self.codec is openai_completions
        request = LLMRequest(
            messages=() if is_text else (LLMMessage(role="user", content=PROMPT),),
            prompt=PROMPT if is_text else None,
            model=model,
            max_tokens=TOKENS,
            temperature=0.0,
            provider_options=self.options,
        )
        body = self.codec.write_request(request, stream=stream)
        path = (self.stream_path or self.path) if stream else self.path
        reply = served.post(path.replace("{model}", model), body)
        assert reply.status == 200, reply.body
        assert "x-headrace-dropped" not in reply.headers
        if not stream:
            answer: LLMResponse = self.codec.read_response(reply.body)
            return answer
        assert self.codec.STREAM_TYPE in reply.headers["content-type"]
        reader = self.codec.stream_reader()
        return assemble([*reader.feed(reply.body), *reader.close()])


FACES = {
    "chat": Face(
        openai_chat,
        "/v1/chat/completions",
        backend={"provider": "openai-compatible", "base_url": "/v1"},
    ),
    "responses": Face(
        openai_responses,
        "/v1/responses",
        backend={"provider": "openai-responses", "base_url": "/v1"},
        options={"store": False},
    ),
    "messages": Face(anthropic, "/v1/messages", backend={"provider": "anthropic", "base_url": ""}),
    "gemini": Face(
        gemini,
        "/v1beta/models/{model}:generateContent",
        backend={"provider": "gemini", "base_url": "/v1beta"},
        stream_path="/v1beta/models/{model}:streamGenerateContent?alt=sse",
    ),
    "ollama": Face(ollama, "/api/chat", backend={"provider": "ollama", "base_url": ""}),
    "completions": Face(openai_completions, "/v1/completions"),
}
BACKENDS = [name for name, face in FACES.items() if face.backend is not None]
PAIRS = [
    pytest.param(face, backend, id=f"{face} <- {backend}")
    for face, backend in product(FACES, BACKENDS)
    # A text to go on from can be asked of one format alone.
    if face != "completions" or backend == "chat"
]


@pytest.fixture(scope="module")
def front(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The second gateway."""
    backends = [
        {
            "name": name,
            "api_key": "unused",
            "model": MODEL,
            **face.backend,
            "base_url": gateway.url + face.backend["base_url"],
        }
        for name, face in FACES.items()
        if face.backend is not None
    ]
    off = {"enabled": False}
    served = Served(
        tmp_path_factory.mktemp("front"), {"engine": off, "embeddings": off, "backends": backends}
    )
    try:
        served.wait_until_ready()
        yield served
    finally:
        assert served.stop() == 0
        assert "Traceback" not in served.log, served.log


@pytest.fixture(scope="module")
def near(gateway: Served) -> dict[bool, LLMResponse]:
    """What the model says without any gateway between: to a prompt, and to a chat."""
    return {
        is_text: FACES["completions" if is_text else "chat"].ask(gateway, MODEL, stream=False)
        for is_text in (True, False)
    }


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("face", "backend"), PAIRS)
def test_every_face_is_answered_by_a_backend_of_every_format(
    face: str, backend: str, stream: bool, front: Served, near: dict[bool, LLMResponse]
) -> None:
    said, expected = FACES[face].ask(front, backend, stream=stream), near[face == "completions"]
    assert said.text == expected.text
    assert said.finish_reason == expected.finish_reason
    assert said.model == backend
    assert said.usage is not None
    assert expected.usage is not None
    assert said.usage.prompt_tokens == expected.usage.prompt_tokens
    assert said.usage.completion_tokens == expected.usage.completion_tokens


def test_a_prompt_for_a_backend_of_chats_alone_is_refused_by_name(front: Served) -> None:
    body = {"model": "messages", "prompt": PROMPT, "max_tokens": TOKENS}
    for stream in (False, True):
        reply = front.post("/v1/completions", {**body, "stream": stream})
        assert reply.status == 400
        assert reply.error["param"] == "prompt"
        assert "has no text completions" in reply.error["message"]
