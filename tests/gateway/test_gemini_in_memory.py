"""The Gemini face over backends that answer from a script: thoughts, signatures, what is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from formats import streamed
from gateway.front import JSON, Front, run
from headrace.gateway.hot.faces import face_at
from headrace.net.scripted import ScriptedAnswer

EVENTS = (("content-type", "text/event-stream"),)
HI = {"role": "user", "parts": [{"text": "hi"}]}
DECLARED = {"tools": [{"functionDeclarations": [{"name": "now"}]}]}


def gemini_said(*parts: dict[str, Any], **more: object) -> ScriptedAnswer:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP"}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 2, "thoughtsTokenCount": 3}
    body = {"candidates": [candidate], "usageMetadata": usage, "responseId": "r", **more}
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode())


def openai_said(**message: object) -> ScriptedAnswer:
    said = {"role": "assistant", "content": "Well.", **message}
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    body = {"id": "r", "model": "m", "choices": [choice]}
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode())


def anthropic_said(*blocks: dict[str, Any]) -> ScriptedAnswer:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    return ScriptedAnswer(headers=JSON, body=json.dumps(body).encode())


def front_of(answer: object, provider: str = "openai-compatible") -> Front:
    backend = {"name": "m", "provider": provider, "base_url": "http://m/v1", "api_key": "k"}
    return Front({"backends": [{**backend, "max_retries": 0}]}, {"m": answer})


async def ask(
    front: Front, stream: bool = False, **fields: object
) -> tuple[Any, dict[bytes, bytes]]:
    """The parts of the answer, and its headers."""
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    body = {"contents": [HI], **fields}
    status, headers, whole = await front.ask(f"/v1beta/models/m:{method}", body)
    assert status == 200, whole
    answers = (
        [json.loads(each[6:]) for each in whole.split(b"\n\n") if each]
        if stream
        else [json.loads(whole)]
    )
    said = [each["candidates"][0]["content"]["parts"] for each in answers]
    return [part for parts in said for part in parts if part != {"text": ""}], headers


def shown(include: bool) -> dict[str, object]:
    return {"generationConfig": {"thinkingConfig": {"includeThoughts": include}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_thoughts_are_shown_to_who_asks_for_them(stream: bool, include: bool) -> None:
    async def main() -> None:
        front = front_of(openai_said(reasoning_content="Hm."))
        parts, _ = await ask(front, stream, **shown(include))
        thought = [{"text": "Hm.", "thought": True}] if include else []
        assert parts == [*thought, {"text": "Well."}]

    run(main)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_what_claude_sealed_goes_back_to_claude(stream: bool, include: bool) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "sealed+/="}
    hidden = {"type": "redacted_thinking", "data": "hidden"}

    async def main() -> None:
        said = {"type": "text", "text": "Well."}
        front = front_of(anthropic_said(thought, hidden, said), "anthropic")
        parts, _ = await ask(front, stream, **shown(include))
        texts = [part["text"] for part in parts if part.get("thought") and part["text"]]
        assert texts == (["Hm."] if include else [])
        assert "sealed" not in json.dumps(parts)
        await ask(front, contents=[HI, {"role": "model", "parts": parts}, HI])
        _, asked = front.asked[-1]
        assert asked["messages"][1] == {"role": "assistant", "content": [thought, hidden, said]}

    run(main)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("role", ["model", "in pieces"])
def test_geminis_own_signatures_go_through_both_ways(stream: bool, role: str) -> None:
    thought = {"text": "Hm.", "thought": True}
    call = {"functionCall": {"name": "now", "args": {}}, "thoughtSignature": "c2Vh-bA_"}

    async def main() -> None:
        front = front_of(
            gemini_said(thought, call, {"functionCall": call["functionCall"]}), "gemini"
        )
        parts, _ = await ask(front, stream, **DECLARED)
        # No id of ours is told where Gemini gave none.
        assert parts == [call, {"functionCall": call["functionCall"]}]
        pieces = [parts] if role == "model" else [[part] for part in parts]
        turns = [{"role": "model", "parts": each} for each in pieces]
        result = {"functionResponse": {"name": "now", "response": {"output": "noon"}}}
        results = {"role": "user", "parts": [result, result]}
        await ask(front, contents=[HI, *turns, results], **DECLARED)
        _, asked = front.asked[-1]
        assert asked["contents"] == [HI, {"role": "model", "parts": parts}, results]

    run(main)


def test_a_caller_of_openais_responses_hands_signatures_back_too() -> None:
    thought = {"text": "Hm.", "thought": True, "thoughtSignature": "dGhvdWdodA=="}
    call = {"functionCall": {"name": "now", "args": {}}, "thoughtSignature": "Y2FsbA=="}
    body = {
        "model": "m",
        "input": [{"role": "user", "content": "hi"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "now", "parameters": {"type": "object"}}],
    }

    async def main() -> None:
        front = front_of(gemini_said(thought, call), "gemini")
        status, _, whole = await front.ask("/v1/responses", body)
        assert status == 200, whole
        output = json.loads(whole)["output"]
        (called,) = [each for each in output if each["type"] == "function_call"]
        result = {"type": "function_call_output", "call_id": called["call_id"], "output": "noon"}
        again = {**body, "input": [*body["input"], *output, result]}
        status, headers, whole = await front.ask("/v1/responses", again)
        assert status == 200, whole
        assert b"x-headrace-dropped" not in headers
        _, asked = front.asked[-1]
        assert asked["contents"][1]["parts"] == [thought, call]

    run(main)


def test_what_one_format_says_for_itself_reaches_its_own_and_no_other() -> None:
    own = {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {
            "thinkingConfig": {"thinkingBudget": 700},
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
        },
    }

    async def main() -> None:
        near = front_of(gemini_said({"text": "Well."}), "gemini")
        _, headers = await ask(near, **own)
        assert b"x-headrace-dropped" not in headers
        _, asked = near.asked[-1]
        asked["generationConfig"]["thinkingConfig"].pop("includeThoughts")
        assert asked == {"contents": [HI], **own}
        far = front_of(openai_said())
        _, headers = await ask(far, **own)
        dropped = b"mediaResolution, safetySettings, thinkingConfig"
        assert headers[b"x-headrace-dropped"] == dropped
        _, asked = far.asked[-1]
        assert asked["reasoning_effort"] == "low"
        assert not {"safetySettings", "mediaResolution", "thinkingConfig"} & asked.keys()

    run(main)


def test_a_blocked_prompt_is_an_error_in_every_form() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    answer = ScriptedAnswer(headers=JSON, body=json.dumps(blocked).encode())

    async def main() -> None:
        front = front_of(answer, "gemini")
        path = "/v1beta/models/m:generateContent"
        status, _, body = await front.ask(path, {"contents": [HI]})
        assert (status, json.loads(body)["error"]["status"]) == (400, "INVALID_ARGUMENT")
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        status, _, body = await front.ask("/v1/chat/completions", chat)
        assert (status, json.loads(body)["error"]["code"]) == (400, "content_filter")

    run(main)


def test_a_stream_that_breaks_off_says_so_in_both_forms() -> None:
    first, *_ = streamed("openai", "Well")
    error = b'data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n'

    async def main() -> None:
        answer = ScriptedAnswer(headers=EVENTS, body=(first, streamed("openai", "Well")[1], error))
        front = front_of(answer)
        path = "/v1beta/models/m:streamGenerateContent"
        _, _, events = await front.ask(f"{path}?alt=sse", {"contents": [HI]})
        last = json.loads(events.split(b"\n\n")[-2][6:])
        _, headers, array = await front.ask(path, {"contents": [HI]})
        assert headers[b"content-type"] == b"application/json"
        for said in (last, json.loads(array)[-1]):
            assert (said["error"]["code"], said["error"]["message"]) == (502, "out of memory")

    run(main)


def test_what_is_asked_of_the_form_of_an_answer_is_not_hidden() -> None:
    async def main() -> None:
        front = front_of(openai_said())
        path = "/v1beta/models/m:generateContent?fields=candidates"
        status, headers, _ = await front.ask(path, {"contents": [HI]})
        assert status == 200
        assert headers[b"x-headrace-dropped"] == b"fields"

    run(main)


@pytest.mark.parametrize("query", ["key=%C3%A9", "x=%E2%82%AC&key=wrong", "key=\xe9", "%ff"])
def test_a_key_in_the_address_may_be_any_text(query: str) -> None:
    async def main() -> None:
        front = Front({"server": {"api_keys": ["sesame-0123"]}}, {"m": openai_said()})
        path = f"/v1beta/models/m:generateContent?{query}"
        status, _, body = await front.ask(path, {"contents": [HI]})
        assert status == 401, body
        assert json.loads(body)["error"]["status"] == "UNAUTHENTICATED"
        status, _, body = await front.ask(f"{path}&key=sesame-0123", {"contents": [HI]})
        assert status == (401 if "key=" in query else 200)

    run(main)


def test_what_stands_behind_a_number_sign_is_no_part_of_a_path() -> None:
    assert face_at(b"/v1beta/models/m:generateContent") is not None
    assert face_at(b"/v1beta/models/m#x:generateContent") is None
