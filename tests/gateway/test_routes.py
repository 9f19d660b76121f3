"""Several backends for one model: what the configuration says, and what callers of each face see."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.front import ASK, JSON, Front, anthropic_said, embedded, run, said
from gateway.served import Served
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.config import load
from headrace.net.scripted import ScriptedAnswer
from headrace.stores.models import ModelFile
from traffic.play import EVENTS, OPENING, answer, refusal

ROOT = Path(__file__).parents[2]
BOTH = {"name": "m", "backends": [{"backend": "a"}, {"backend": "b"}]}


def test_the_first_answers_and_the_next_where_it_fails() -> None:
    async def main() -> None:
        front = Front({"routes": [BOTH]}, {"a": said("from a"), "b": said("from b")})
        assert await front.text() == "from a"
        front.script["a"] = refusal(500)
        assert await front.text() == "from b"
        assert [name for name, _ in front.asked] == ["a", "a", "b"]

    run(main)


def test_a_weighted_route_gives_each_its_share() -> None:
    async def main() -> None:
        route = {
            "name": "m",
            "policy": "weighted",
            "backends": [{"backend": "a", "weight": 3}, {"backend": "b"}],
        }
        front = Front({"routes": [route]}, {"a": said("from a"), "b": said("from b")})
        heard = Counter([await front.text() for _ in range(40)])
        assert abs(heard["from a"] - 30) <= 1
        assert heard.total() == 40

    run(main)


def test_each_backend_is_asked_for_its_own_name_of_the_model() -> None:
    async def main() -> None:
        route = {
            "name": "m",
            "aliases": ["m-*"],
            "backends": [{"backend": "a", "model": "a/one"}, {"backend": "b"}],
        }
        front = Front({"routes": [route]}, {"a": refusal(500), "b": said("hello")})
        status, _, body = await front.ask("/v1/chat/completions", {"model": "m-2", **ASK})
        assert status == 200
        assert json.loads(body)["model"] == "m-2"
        assert [(name, body["model"]) for name, body in front.asked] == [
            ("a", "a/one"),
            ("b", "m-2"),
        ]

    run(main)


def test_a_route_takes_the_names_it_shares_with_its_backends_and_they_keep_the_others() -> None:
    async def main() -> None:
        backends = [
            {"name": name, "base_url": f"http://{name}/v1", "models": ["m", f"{name}-only"]}
            for name in ("a", "b")
        ]
        config = {"backends": backends, "routes": [BOTH]}
        front = Front(config, {"a": refusal(500), "b": said("from b")})
        assert await front.text("m") == "from b"
        assert await front.text("b-only") == "from b"
        status, _, listed = await front.ask("/v1/models")
        assert status == 200
        assert [each["id"] for each in json.loads(listed)["data"]] == ["m", "a-only", "b-only"]
        # Who names none is answered by the first.
        assert await front.text(None) == "from b"  # type: ignore[arg-type]

    run(main)


def test_a_backend_that_is_named_as_a_route_is_reached_by_the_route() -> None:
    async def main() -> None:
        route = {"name": "a", "backends": [{"backend": "b"}, {"backend": "a"}]}
        front = Front({"routes": [route]}, {"a": said("from a"), "b": said("from b")})
        assert await front.text("a") == "from b"
        _, _, listed = await front.ask("/v1/models")
        assert [each["id"] for each in json.loads(listed)["data"]] == ["a", "b"]
        _, _, snapshot = await front.ask("/snapshot")
        lanes = {lane["name"]: lane["models"] for lane in json.loads(snapshot)["lanes"]}
        assert lanes == {"a": ["a"], "b": ["a", "b"]}

    run(main)


MIXED = [
    {"name": "claude", "provider": "anthropic", "base_url": "http://claude/v1", "api_key": "k"},
]


@pytest.mark.parametrize("order", [["claude", "plain"], ["plain", "claude"]])
def test_what_only_one_format_knows_goes_only_where_it_is_known(order: list[str]) -> None:
    async def main() -> None:
        route = {"name": "m", "backends": [{"backend": name} for name in order]}
        script = {"claude": anthropic_said("hello"), "plain": said("hello"), order[0]: refusal(500)}
        front = Front({"backends": MIXED, "routes": [route]}, script)
        body = {"model": "m", **ASK, "metadata": {"user_id": "u"}, "service_tier": "auto"}
        status, headers, answered = await front.ask("/v1/messages", body)
        assert (status, json.loads(answered)["content"][0]["text"]) == (200, "hello")
        told = dict(front.asked)
        assert told["claude"]["service_tier"] == "auto"
        assert "service_tier" not in told["plain"]
        # Told is what the one that answered went without, whoever was asked before.
        dropped = headers.get(b"x-headrace-dropped", b"").decode().split(", ")
        assert ("service_tier" in dropped) is (order[1] == "plain")

    run(main)


def test_embeddings_go_to_the_next_one_too_under_its_own_name() -> None:
    async def main() -> None:
        route = {"name": "m", "backends": [{"backend": "a"}, {"backend": "b", "model": "b/e"}]}
        front = Front({"routes": [route]}, {"a": refusal(503), "b": embedded([1.0, 2.0])})
        status, _, body = await front.ask("/v1/embeddings", {"model": "m", "input": "hi"})
        assert status == 200
        assert json.loads(body)["data"][0]["embedding"] == [1.0, 2.0]
        assert json.loads(body)["model"] == "m"
        assert [(name, asked["model"]) for name, asked in front.asked] == [("a", "m"), ("b", "b/e")]

    run(main)


def test_a_gateway_is_ready_while_each_model_has_somebody_who_answers() -> None:
    async def main() -> None:
        models = ScriptedAnswer(headers=JSON, body=b'{"object": "list", "data": []}')
        front = Front({"routes": [BOTH]}, {"a": models, "b": models})
        assert (await front.ask("/ready"))[0] == 200
        front.script["a"] = ScriptedAnswer(fault="refuse")
        status, _, body = await front.ask("/ready")
        assert status == 200
        assert json.loads(body)["backends"] == {"a": {"ok": False}, "b": {"ok": True}}
        front.script["b"] = ScriptedAnswer(fault="refuse")
        assert (await front.ask("/ready"))[0] == 503

    run(main)


FACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {**ASK, "stream": True}),
    "completions": ("/v1/completions", {"prompt": "hi", "stream": True}),
    "messages": ("/v1/messages", {**ASK, "stream": True}),
    "responses": ("/v1/responses", {"input": "hi", "stream": True}),
}
TEXT = (
    b'data: {"id":"r","model":"m","choices":[{"index":0,"text":"from b","finish_reason":"stop"}]}'
)
ERROR = b'data: {"error": {"message": "out of memory", "type": "server_error", "code": 500}}\n\n'
BEFORE_OUTPUT: dict[str, ScriptedAnswer] = {
    "no connection": ScriptedAnswer(fault="refuse"),
    "a reset before the headers": ScriptedAnswer(fault="reset"),
    "a hang before the headers": ScriptedAnswer(fault="hang"),
    "an error's status": refusal(500),
    "an error inside a 200 stream": ScriptedAnswer(headers=EVENTS, body=ERROR),
    "a reset before any output": ScriptedAnswer(headers=EVENTS, body=(OPENING,), fault="reset"),
    "a hang before any output": ScriptedAnswer(headers=EVENTS, body=(OPENING,), fault="hang"),
    "a cut before any output": ScriptedAnswer(headers=EVENTS, body=(OPENING,), fault="cut"),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("fault", BEFORE_OUTPUT)
def test_until_the_first_output_the_next_backend_may_answer(face: str, fault: str) -> None:
    path, body = FACES[face]
    good = answer("from ", "b")
    if face == "completions":
        good = ScriptedAnswer(headers=EVENTS, body=TEXT + b"\n\ndata: [DONE]\n\n")

    async def main() -> None:
        backends = [
            {
                "name": name,
                "base_url": f"http://{name}/v1",
                "first_token_timeout_ms": 500,
                "idle_timeout_ms": 500,
                "max_retries": 0,
            }
            for name in ("a", "b")
        ]
        config = {"backends": backends, "routes": [BOTH]}
        front = Front(config, {"a": BEFORE_OUTPUT[fault], "b": good})
        began = front.clock.monotonic()
        status, headers, said_there = await front.ask(path, {"model": "m", **body})
        assert status == 200, said_there
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert b"from " in said_there
        assert b'"error"' not in said_there.replace(b'"error":null', b"")
        assert front.clock.monotonic() - began <= 0.7
        assert [name for name, _ in front.asked] == ["a", "b"]

    run(main)


@pytest.mark.parametrize("face", FACES)
def test_where_all_fail_before_any_output_the_status_says_so(face: str) -> None:
    path, body = FACES[face]

    async def main() -> None:
        front = Front({"routes": [BOTH]}, {"a": refusal(500), "b": refusal(503)})
        status, headers, said_there = await front.ask(path, {"model": "m", **body})
        assert status in {503, 529}
        assert headers[b"content-type"] == b"application/json"
        assert json.loads(said_there)["error"]["message"]

    run(main)


@pytest.mark.parametrize("face", FACES)
def test_after_the_first_output_an_error_ends_the_stream_and_nobody_else_is_asked(
    face: str,
) -> None:
    path, body = FACES[face]
    began = answer("from a").body[:2]
    if face == "completions":
        began = (TEXT.replace(b'"stop"', b"null") + b"\n\n",)

    async def main() -> None:
        broken = ScriptedAnswer(headers=EVENTS, body=began, fault="reset")
        front = Front({"routes": [BOTH]}, {"a": broken, "b": answer("from b")})
        status, _, said_there = await front.ask(path, {"model": "m", **body})
        assert status == 200
        assert b"from " in said_there
        assert b"[DONE]" not in said_there
        events = [line for line in said_there.split(b"\n\n") if line.strip()]
        ending = {
            "chat": rb'^data: \{"error":',
            "completions": rb'^data: \{"error":',
            "messages": rb'^event: error\ndata: \{"type":"error","error":',
            "responses": rb"^event: (response\.failed|error)\n",
        }[face]
        assert re.match(ending, events[-1]), events[-1]
        assert b"message_stop" not in said_there
        assert b"response.completed" not in said_there
        assert [name for name, _ in front.asked] == ["a"]

    run(main)


def test_who_is_ill_is_so_after_the_configuration_was_read_again() -> None:
    async def main() -> None:
        front = Front(
            {"routes": [BOTH]}, {"a": refusal(429, ("retry-after", "60")), "b": said("b")}
        )
        assert await front.text() == "b"
        front.reload({"routes": [{**BOTH, "aliases": ["n"]}]})
        assert await front.text("n") == "b"
        assert [name for name, _ in front.asked] == ["a", "b", "b"]

    run(main)


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "headrace.yaml"
    path.write_text(text)
    with pytest.raises(LLMInvalidRequestError) as caught:
        load(path, environment={})
    return str(caught.value)


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ("{}", ["$.routes", "list"]),
        ("[{}]", ["$.routes[0].name", "missing"]),
        ("[{name: m}]", ["$.routes[0].backends", "missing"]),
        ("[{name: m, backends: []}]", ["no backend", "$.routes[0].backends"]),
        ("[{name: 'm*', backends: [{backend: a}]}]", ["'m*'", "aliases", "$.routes[0].name"]),
        (
            "[{name: m, backends: [{backend: aa}]}]",
            ["unknown backend 'aa'", "mean 'a'", "known: a, b", "$.routes[0].backends[0].backend"],
        ),
        (
            "[{name: m, policy: random, backends: [{backend: a}]}]",
            ["$.routes[0].policy", "'random'", "'weighted'"],
        ),
        (
            "[{name: m, policy: weighted, backends: [{backend: a, weight: 0}]}]",
            ["every weight is 0", "$.routes[0].backends"],
        ),
        (
            "[{name: m, policy: weighted, backends: [{backend: a, weight: -1}]}]",
            ["-1", "$.routes[0].backends[0].weight"],
        ),
        (
            "[{name: m, backends: [{backend: a, weight: 2}]}]",
            ["2", "'ordered'", "$.routes[0].backends[0].weight"],
        ),
        (
            "[{name: m, backends: [{backend: a}, {backend: a}]}]",
            ["'a'", "twice", "$.routes[0].backends[1].backend"],
        ),
        (
            "[{name: m, backends: [{backend: a}]}, {name: m, backends: [{backend: b}]}]",
            ["'m'", "routes[0].name", "$.routes[1].name"],
        ),
        (
            "[{name: m, backends: [{backend: a}]}, "
            "{name: n, aliases: [x, m], backends: [{backend: b}]}]",
            ["'m'", "routes[0].name", "$.routes[1].aliases[1]"],
        ),
        (
            "[{name: m, backends: [{backend: b, model: other}]}]",
            ["'other'", "'fixed'", "$.routes[0].backends[0].model"],
        ),
    ],
)
def test_a_wrong_route_names_its_place_and_what_is_right(
    tmp_path: Path, routes: str, words: list[str]
) -> None:
    text = f"backends: [{{name: a}}, {{name: b, model: fixed}}]\nroutes: {routes}\n"
    said_there = refused(tmp_path, text)
    for word in ("headrace.yaml", *words):
        assert word in said_there


def test_two_backends_of_one_name_cannot_both_be_meant(tmp_path: Path) -> None:
    route = "routes: [{name: m, backends: [{backend: a}]}]"
    assert "two backends are named 'a'" in refused(
        tmp_path, f"backends: [{{name: a}}, {{name: a}}]\n{route}"
    )


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("{}", "smollm2-135m-instruct"),
        ("{name: mine}", "mine"),
        ("{model: /models/some-file.gguf}", "some-file"),
    ],
)
def test_the_model_in_the_box_is_a_backend_by_its_name(
    tmp_path: Path, engine: str, name: str
) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_text(f"engine: {engine}\nroutes: [{{name: m, backends: [{{backend: {name}}}]}}]")
    assert load(path, environment={}).routes[0].backends[0].backend == name
    assert "unknown backend" in refused(
        tmp_path, f"engine: {{enabled: false}}\n{path.read_text().splitlines()[1]}"
    )


def test_the_examples_of_a_configuration_in_the_documents_are_right(tmp_path: Path) -> None:
    found = []
    for page in ("configuration.md", "operations.md", "how-to/route-requests.md"):
        text = (ROOT / "docs" / page).read_text()
        for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if "scrape_configs" not in block:
                path = tmp_path / "example.yaml"
                path.write_text(block)
                found.append(load(path, environment={}))
    assert any(config.routes for config in found)


def test_the_model_in_the_box_answers_where_the_backend_before_it_does_not(
    box_model: ModelFile, tmp_path: Path
) -> None:
    served = Served(
        tmp_path,
        {
            "embeddings": {"enabled": False},
            "backends": [{"name": "dead", "base_url": "http://127.0.0.1:9/v1"}],
            "routes": [
                {
                    "name": "m",
                    "backends": [{"backend": "dead"}, {"backend": "smollm2-135m-instruct"}],
                }
            ],
        },
    )
    try:
        served.wait_until_ready()
        reply = served.chat("Say hello.", model="m", n=2)
        assert reply.status == 200
        assert reply.json["model"] == "m"
        assert [bool(choice["message"]["content"]) for choice in reply.json["choices"]] == [
            True
        ] * 2
        asked = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
        assert served.post("/v1/messages", asked).json["content"][0]["text"]
        with served.streaming(model="m") as stream:
            assert b"[DONE]" in stream.read()
        # Its own name leads to it still.
        assert served.chat(model="smollm2-135m-instruct").status == 200
    finally:
        assert served.stop() == 0
