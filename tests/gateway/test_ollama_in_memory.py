"""Ollama's face, and backends of its format, over scripts and by a clock of ours."""

from __future__ import annotations

import json

import pytest

from formats import streamed
from gateway.front import JSON, Front, anthropic_said, embedded, run, said
from headrace.net.scripted import Piece, ScriptedAnswer

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
NDJSON = (("content-type", "application/x-ndjson"),)
OPENAI_STREAM = (("content-type", "text/event-stream"),)
OLLAMA = {"name": "o", "provider": "ollama", "base_url": "http://o", "models": ["m"]}
WHOLE = {
    "model": "m",
    "created_at": "2025-10-17T23:14:07.414671Z",
    "message": {"role": "assistant", "content": "far", "thinking": "Hm."},
    "done": True,
    "done_reason": "stop",
    "total_duration": 900,
    "load_duration": 100,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 200,
    "eval_count": 1,
    "eval_duration": 300,
}


def lines(body):
    return [json.loads(line) for line in body.splitlines()]


def front(answer=None, **config):
    backend = {"name": "b", "base_url": "http://b/v1", "models": ["m"], "max_retries": 0}
    return Front({"backends": [backend], **config}, {"b": answer or said("near")})


def behind(answer=None, **config):
    return Front({"backends": [{**OLLAMA, "max_retries": 0}], **config}, {"o": answer})


def ollama_said(body=WHOLE, **more):
    return ScriptedAnswer(headers=JSON, body=json.dumps({**body, **more}).encode())


def test_a_chat_is_streamed_as_lines_unless_told_otherwise():
    async def main():
        script = ScriptedAnswer(headers=OPENAI_STREAM, body=streamed("openai", "a ", "b"))
        gateway = front(script)
        status, headers, body = await gateway.ask("/api/chat", CHAT)
        assert (status, headers[b"content-type"]) == (200, b"application/x-ndjson")
        first, second, end = lines(body)
        assert [each["message"]["content"] for each in (first, second)] == ["a ", "b"]
        assert all(each["done"] is False for each in (first, second))
        assert (end["done"], end["done_reason"]) == (True, "stop")
        assert (end["prompt_eval_count"], end["eval_count"]) == (3, 2)
        assert end["model"] == "m"
        assert "total_duration" in end
        assert "load_duration" not in end
        status, headers, body = await gateway.ask("/api/chat", {**CHAT, "stream": False})
        assert (status, headers[b"content-type"]) == (200, b"application/json")
        assert json.loads(body)["message"] == {"role": "assistant", "content": "a b"}

    run(main)


def test_what_took_how_long_is_measured_here():
    async def main():
        pieces = tuple(Piece(data=p, after_s=0.5) for p in streamed("openai", "a", "b", "c"))
        script = ScriptedAnswer(headers=OPENAI_STREAM, body=pieces, after_s=2.0)
        _, _, body = await front(script).ask("/api/chat", CHAT)
        *_, end = lines(body)
        assert end["eval_duration"] == 1_000_000_000
        assert end["prompt_eval_duration"] == 3_000_000_000
        told = end["prompt_eval_duration"] + end["eval_duration"]
        assert end["total_duration"] >= told
        _, _, body = await front().ask("/api/chat", {**CHAT, "stream": False})
        assert not {"eval_duration", "prompt_eval_duration"} & json.loads(body).keys()

    run(main)


def test_an_error_before_the_answer_has_a_status_and_one_behind_it_is_a_line():
    async def main():
        refused = ScriptedAnswer(
            status=400, headers=JSON, body=b'{"error": {"message": "that is bad"}}'
        )
        status, _, body = await front(refused).ask("/api/chat", CHAT)
        assert status == 400
        assert json.loads(body) == {"error": "that is bad"}
        opening = streamed("openai", "a")[:2]
        broken = b'data: {"error": {"message": "it broke"}}\n\n'
        script = ScriptedAnswer(headers=OPENAI_STREAM, body=(*opening, broken))
        status, _, body = await front(script).ask("/api/chat", CHAT)
        first, last = lines(body)
        assert status == 200
        assert first["message"]["content"] == "a"
        assert last == {"error": "it broke"}

    run(main)


def test_what_only_ollama_has_is_left_out_and_told_by_name():
    async def main():
        gateway = front()
        options = {"num_ctx": 8192, "temperature": 0.5, "of_tomorrow": 1}
        body = {**CHAT, "options": options, "keep_alive": "5m", "think": False}
        status, headers, _ = await gateway.ask("/api/chat", body)
        assert status == 200
        assert headers[b"x-headrace-dropped"] == b"keep_alive, num_ctx, options"
        _, sent = gateway.asked[0]
        assert sent["temperature"] == 0.5
        assert sent["reasoning_effort"] == "none"
        assert not {"num_ctx", "keep_alive", "options"} & sent.keys()

    run(main)


def test_a_name_with_the_tag_that_everything_has_is_found():
    async def main():
        gateway = front()
        for path, body in (("/api/chat", CHAT), ("/api/show", {})):
            status, _, _ = await gateway.ask(path, {**body, "model": "m:latest"})
            assert status == 200
        status, _, body = await gateway.ask("/api/chat", {**CHAT, "model": "m:other"})
        assert status == 404
        assert "'m:other'" in json.loads(body)["error"]

    run(main)


def test_a_wish_to_have_a_model_loaded_is_granted_and_one_to_unload_it_refused():
    async def main():
        gateway = front()
        for path in ("/api/chat", "/api/generate"):
            status, _, body = await gateway.ask(path, {"model": "m"})
            (line,) = lines(body)
            assert (status, line["done"], line["done_reason"]) == (200, True, "load")
            asked = {"model": "m", "keep_alive": "5m", "options": {"num_ctx": 1}}
            _, headers, _ = await gateway.ask(path, asked)
            assert headers[b"x-headrace-dropped"] == b"keep_alive, num_ctx"
            for keep in (0, "0", "0s", "0m"):
                status, _, body = await gateway.ask(path, {"model": "m", "keep_alive": keep})
                assert status == 501
                assert "keep_alive" in json.loads(body)["error"]
            assert (await gateway.ask(path, {"model": "x"}))[0] == 404
        assert gateway.asked == []

    run(main)


@pytest.mark.parametrize(
    "path",
    ["pull", "push", "create", "copy", "blobs/sha256:12", "me", "signout", "web_search"],
)
def test_models_are_the_operators_to_bring(path):
    async def main():
        status, _, body = await front().ask(f"/api/{path}", {"model": "m"})
        assert status == 501
        assert f"/api/{path}" in json.loads(body)["error"]

    run(main)


def test_every_error_there_is_one_text():
    async def main():
        locked = front(server={"api_keys": ["right"]})
        for path, body, expected in (
            ("/api/nothing", None, 404),
            ("/api/chat", None, 405),
            ("/api/tags", {}, 405),
            ("/api/chat", {"model": "m", "messages": 1}, 400),
            ("/api/show", {}, 400),
        ):
            status, _, answer = await locked.ask(path, body, authorization="Bearer right")
            assert status == expected, answer
            assert set(json.loads(answer)) == {"error"}
        status, _, answer = await locked.ask("/api/tags")
        assert status == 401
        assert "API key" in json.loads(answer)["error"]

    run(main)


def test_generate_answers_a_prompt_or_goes_on_with_it():
    async def main():
        gateway = front()
        body = {"model": "m", "prompt": "hi", "system": "Be brief.", "stream": False}
        _, _, answer = await gateway.ask("/api/generate", body)
        assert json.loads(answer)["response"] == "near"
        assert [turn["role"] for turn in gateway.asked[0][1]["messages"]] == ["system", "user"]
        choice = {"index": 0, "text": " upon a time", "finish_reason": "length"}
        script = {"id": "r", "model": "m", "choices": [choice]}
        gateway.script["b"] = ScriptedAnswer(headers=JSON, body=json.dumps(script).encode())
        body = {"model": "m", "prompt": "Once", "raw": True, "stream": False}
        _, _, answer = await gateway.ask("/api/generate", body)
        told = json.loads(answer)
        assert (told["response"], told["done_reason"]) == (" upon a time", "length")
        assert gateway.asked[1][1]["prompt"] == "Once"
        status, _, answer = await gateway.ask("/api/generate", {**body, "format": "json"})
        assert status == 400
        assert "'format'" in json.loads(answer)["error"]
        _, headers, _ = await gateway.ask("/api/generate", {**body, "think": True})
        # By the caller's name for it, and by ours.
        assert headers[b"x-headrace-dropped"] == b"think, reasoning_effort"
        there = behind(ollama_said({"model": "m", "response": "{}", "done": True}))
        asked = {**body, "format": "json", "think": True}
        _, headers, _ = await there.ask("/api/generate", asked)
        assert b"x-headrace-dropped" not in headers
        assert (there.asked[0][1]["format"], there.asked[0][1]["think"]) == ("json", True)

    run(main)


def test_vectors_come_from_a_backend_of_any_format():
    async def main():
        gateway = front(embedded([0.5, 0.25]))
        body = {"model": "m", "input": "a", "keep_alive": "5m", "truncate": True}
        status, headers, answer = await gateway.ask("/api/embed", body)
        told = json.loads(answer)
        assert status == 200
        assert told["embeddings"] == [[0.5, 0.25]]
        assert told["prompt_eval_count"] == 1
        assert headers[b"x-headrace-dropped"] == b"keep_alive, truncate"
        assert not {"keep_alive", "truncate"} & gateway.asked[0][1].keys()
        _, _, answer = await gateway.ask("/api/embeddings", {"model": "m", "prompt": "a"})
        assert json.loads(answer) == {"embedding": [0.5, 0.25]}

    run(main)


def test_an_ollama_behind_us_is_asked_in_its_own_words():
    async def main():
        gateway = behind(ollama_said())
        body = {**CHAT, "stream": False, "keep_alive": "5m", "options": {"num_ctx": 8192}}
        status, headers, answer = await gateway.ask("/api/chat", body)
        told = json.loads(answer)
        assert status == 200
        assert b"x-headrace-dropped" not in headers
        _, sent = gateway.asked[0]
        assert (sent["keep_alive"], sent["options"]["num_ctx"]) == ("5m", 8192)
        assert told["message"] == {"role": "assistant", "content": "far", "thinking": "Hm."}
        # What only the backend can know is taken from it; the whole of it is ours to measure.
        assert (told["load_duration"], told["eval_duration"]) == (100, 300)
        assert told["prompt_eval_duration"] == 200

    run(main)


def test_every_face_is_answered_by_an_ollama():
    async def main():
        gateway = behind(ollama_said())
        openai = {**CHAT, "max_tokens": 8, "user": "ann", "seed": 1}
        _, headers, body = await gateway.ask("/v1/chat/completions", openai)
        choice = json.loads(body)["choices"][0]
        assert choice["message"]["content"] == "far"
        assert choice["message"]["reasoning_content"] == "Hm."
        assert headers[b"x-headrace-dropped"] == b"user"
        assert gateway.asked[0][1]["options"] == {"num_predict": 8, "seed": 1}
        _, _, body = await gateway.ask("/v1/messages", {**CHAT, "max_tokens": 8})
        assert json.loads(body)["content"][-1] == {"type": "text", "text": "far"}
        _, _, body = await gateway.ask("/v1/responses", {"model": "m", "input": "hi"})
        assert json.loads(body)["output"][-1]["content"][0]["text"] == "far"
        gateway.script["o"] = ollama_said({"model": "m", "response": "on", "done": True})
        _, _, body = await gateway.ask("/v1/completions", {"model": "m", "prompt": "Go"})
        assert json.loads(body)["choices"][0]["text"] == "on"
        assert gateway.asked[-1][1]["raw"] is True
        vectors = {"model": "m", "embeddings": [[0.5]], "prompt_eval_count": 1}
        gateway.script["o"] = ollama_said(vectors)
        _, _, body = await gateway.ask(
            "/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "float"}
        )
        assert json.loads(body)["data"][0]["embedding"] == [0.5]

    run(main)


def test_a_stream_of_an_ollama_goes_on_piece_by_piece():
    async def main():
        gateway = behind(ScriptedAnswer(headers=NDJSON, body=streamed("ollama", "a ", "b")))
        _, _, body = await gateway.ask("/v1/chat/completions", {**CHAT, "stream": True})
        events = [e.removeprefix(b"data: ") for e in body.split(b"\n\n") if e]
        assert events[-1] == b"[DONE]"
        chunks = [json.loads(event) for event in events[:-1]]
        said_there = [
            choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]
        ]
        assert "".join(filter(None, said_there)) == "a b"
        # Times that nobody asked for are no chunk of their own, nor a field that is not OpenAI's.
        assert all(chunk["choices"] for chunk in chunks)
        _, _, body = await gateway.ask("/v1/chat/completions", CHAT)
        assert "total_duration" not in json.loads(body)

    run(main)


def test_calls_of_another_format_go_as_whole_ones():
    def chunk(**delta):
        choice = {"index": 0, "delta": delta}
        return f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [choice]})}\n\n".encode()

    def call(index, said, **more):
        return {"index": index, "function": {"arguments": said, **more.pop("named", {})}, **more}

    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    pieces = (
        chunk(tool_calls=[call(0, "", id="c1", named={"name": "look"})]),
        chunk(tool_calls=[call(1, "", id="c2", named={"name": "ask"})]),
        chunk(tool_calls=[call(0, '{"city": '), call(1, "{")]),
        chunk(tool_calls=[call(1, "}"), call(0, '"Bergen"}')]),
        f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [end]})}\n\n".encode(),
        b"data: [DONE]\n\n",
    )

    async def main():
        gateway = front(ScriptedAnswer(headers=OPENAI_STREAM, body=pieces))
        _, _, body = await gateway.ask("/api/chat", CHAT)
        *called, last = lines(body)
        found = [each for line in called for each in line["message"].get("tool_calls", ())]
        assert [(each["id"], each["function"]) for each in found] == [
            ("c1", {"index": 0, "name": "look", "arguments": {"city": "Bergen"}}),
            ("c2", {"index": 1, "name": "ask", "arguments": {}}),
        ]
        assert last["done_reason"] == "stop"
        _, _, body = await gateway.ask("/api/chat", {**CHAT, "stream": False})
        assert json.loads(body)["message"]["tool_calls"] == found

    run(main)


def test_a_backend_of_a_third_format_answers_too():
    async def main():
        backend = {"name": "c", "provider": "anthropic", "base_url": "http://c", "models": ["m"]}
        gateway = Front({"backends": [{**backend, "api_key": "k"}]}, {"c": anthropic_said("third")})
        _, headers, body = await gateway.ask(
            "/api/chat", {**CHAT, "stream": False, "options": {"num_ctx": 1}}
        )
        assert json.loads(body)["message"]["content"] == "third"
        assert headers[b"x-headrace-dropped"] == b"num_ctx"

    run(main)


def test_the_models_are_listed_and_described():
    async def main():
        gateway = front()
        _, headers, body = await gateway.ask("/api/tags")
        (model,) = json.loads(body)["models"]
        assert model["name"] == model["model"]
        assert headers[b"server"] == b"headrace"
        _, _, body = await gateway.ask("/api/show", {"name": model["name"]})
        assert "completion" in json.loads(body)["capabilities"]
        # It is another's to have in memory.
        _, _, body = await gateway.ask("/api/ps")
        assert json.loads(body) == {"models": []}
        _, _, body = await gateway.ask("/api/version")
        assert json.loads(body)["version"]

    run(main)


def test_the_root_is_the_page_where_there_is_one():
    async def main():
        _, _, body = await front().ask("/")
        assert b"<html" in body.lower()
        _, _, body = await front(server={"page": False}).ask("/")
        assert body == b"Ollama is running"

    run(main)
