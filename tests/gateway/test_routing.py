"""Routes that look at each call: what callers of each face may ask for, and what they are told."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.far import NO_MODEL, far
from gateway.front import ASK, Front, completed, embedded, run, said
from gateway.served import PATIENCE_S, Served
from headrace.contracts.convert import from_json
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.record import CallRecord
from headrace.gateway.config import load
from traffic.play import refusal

FACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", ASK),
    "completions": ("/v1/completions", {"prompt": "hi", "max_tokens": 8}),
    "messages": ("/v1/messages", ASK),
    "responses": ("/v1/responses", {"input": "hi", "max_output_tokens": 8}),
    "embeddings": ("/v1/embeddings", {"input": "hi"}),
}
each_face = pytest.mark.parametrize("face", FACES)
PRICES = {"a": (9.0, 9.0), "b": (1.0, 1.0)}


def priced(name: str, **told: object) -> dict[str, object]:
    put, get = PRICES[name]
    return {"backend": name, "input_price_usd": put, "output_price_usd": get, **told}


BY_COST = {"name": "m", "policy": "lowest_cost", "backends": [priced("a"), priced("b")]}
BY_TASK = {
    "name": "m",
    "policy": "task_profile",
    "backends": [priced("a", quality=0.9, tags=["eu", "large"]), priced("b", quality=0.1)],
}


def answers(face: str, name: str) -> Any:
    """What a backend says to a caller of that face."""
    if face == "embeddings":
        return embedded([1.0])
    text = f"from {name}"
    return completed(text) if face == "completions" else said(text)


def front(face: str, route: dict[str, Any], **more: Any) -> Front:
    return Front({"routes": [route], **more}, {name: answers(face, name) for name in ("a", "b")})


@each_face
def test_a_caller_is_told_who_was_chosen_and_why_and_the_record_tells_of_all(
    face: str, tmp_path: Path
) -> None:
    path, body = FACES[face]
    file = tmp_path / "calls.jsonl"

    async def main() -> None:
        there = front(face, BY_COST, records={"file": str(file)})
        status, headers, _ = await there.ask(path, {"model": "m", **body})
        assert status == 200
        assert [name for name, _ in there.asked] == ["b"]
        told = headers[b"x-headrace-route"].decode()
        assert told.startswith(
            'm; policy=lowest_cost; backend=b; reason="the cheapest: it may cost'
        )
        [recent] = there.gateway.history.recent()
        assert (recent.policy, recent.backend) == ("lowest_cost", "b")
        assert "cheapest" in recent.reason

    run(main)
    decision = from_json(file.read_bytes(), CallRecord).decision
    assert decision is not None
    assert (decision.route, decision.chosen) == ("m", "b")
    costs = [each.values["cost_usd"] for each in decision.candidates]
    assert [each.backend for each in decision.candidates] == ["b", "a"]
    assert costs[1] == pytest.approx(9 * costs[0])


@each_face
@pytest.mark.parametrize("place", ["body", "header"])
def test_a_task_profile_may_come_in_the_body_or_in_a_header(face: str, place: str) -> None:
    path, body = FACES[face]

    async def main() -> None:
        there = front(face, BY_TASK)
        for priority, expected in (("quality", "a"), ("cost", "b")):
            if place == "body":
                profile = {"task_profile": {"priority": priority}}
                status, headers, text = await there.ask(path, {"model": "m", **body, **profile})
            else:
                status, headers, text = await there.ask(
                    path, {"model": "m", **body}, x_headrace_task=priority
                )
            assert status == 200, text
            assert f"backend={expected};".encode() in headers[b"x-headrace-route"]
            assert b"x-headrace-dropped" not in headers
            assert there.asked[-1][0] == expected
            # It is ours, and no backend is told of it.
            assert "task_profile" not in there.asked[-1][1]

    run(main)


@each_face
@pytest.mark.parametrize("policy", ["ordered", "lowest_cost"])
def test_a_limit_that_nobody_holds_is_refused_in_the_caller_s_form_and_nobody_is_asked(
    face: str, policy: str
) -> None:
    path, body = FACES[face]

    async def main() -> None:
        there = front(face, {**BY_COST, "policy": policy})
        status, _, text = await there.ask(
            path, {"model": "m", **body}, x_headrace_task="cost; max_cost_usd=0.0000001"
        )
        assert status == 400
        message = json.loads(text)["error"]["message"]
        for word in ("max_cost_usd is 1e-07", "b, may cost $", "of prompt", "max_tokens"):
            assert word in message
        assert there.asked == []

    run(main)


def test_a_limit_holds_for_a_model_with_one_backend_and_for_the_ones_that_stand_in_for_it() -> None:
    async def main() -> None:
        there = Front(
            {
                "backends": [
                    {"name": "solo", "base_url": "http://solo/v1", "models": ["s"]},
                ],
                "routes": [{**BY_COST, "policy": "ordered"}],
            },
            {"a": said("from a"), "b": said("from b"), "solo": said("solo")},
        )
        path = "/v1/chat/completions"
        unlimited = await there.ask(path, {"model": "s", **ASK})
        assert unlimited[0] == 200
        assert b"x-headrace-route" not in unlimited[1]
        status, _, text = await there.ask(
            path, {"model": "s", **ASK, "task_profile": {"max_cost_usd": 1}}
        )
        assert status == 400
        error = json.loads(text)["error"]
        assert (error["param"], error["code"]) == ("task_profile.max_cost_usd", "limit_not_held")
        assert "known price" in error["message"]
        # Only the cheaper one is within the limit; the other is not asked though it fails.
        there.script["b"] = refusal(500)
        ask = {"model": "m", **ASK, "task_profile": {"max_cost_usd": 0.00002}}
        status, _, _ = await there.ask(path, ask)
        assert status in {502, 503}
        assert [name for name, _ in there.asked] == ["solo", "b"]

    run(main)


def test_latency_is_learnt_from_the_calls_themselves() -> None:
    async def main() -> None:
        route = {
            "name": "m",
            "policy": "lowest_latency",
            "backends": [{"backend": "a"}, {"backend": "b"}],
        }
        there = Front(
            {"routes": [route]}, {"a": said("a", after_s=2.0), "b": said("b", after_s=0.5)}
        )
        got = Counter([await there.text() for _ in range(40)])
        assert got["a"] <= 5
        _, headers, _ = await there.ask("/v1/chat/completions", {"model": "m", **ASK})
        assert b"its answers take 500 ms" in headers[b"x-headrace-route"]
        limit = {"task_profile": {"max_latency_ms": 1000}}
        assert await there.text(**limit) == "b"
        there.script["b"] = refusal(500)
        status, _, text = await there.ask("/v1/chat/completions", {"model": "m", **ASK, **limit})
        assert status in {502, 503}, text
        assert there.asked[-1][0] == "b"

    run(main)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("fast", ["priority", "'fast'"]),
        ("cost; max_cost_usd=much", ["max_cost_usd", "'much'"]),
        ("cost; max_latency_ms=0", ["max_latency_ms", "0", "at least 1"]),
        ("cost; max_cost_usd=-1", ["max_cost_usd", "-1", "from 0"]),
        ("cost; budget=1", ["budget"]),
    ],
)
def test_a_wrong_task_profile_is_refused_by_field_and_value(header: str, words: list[str]) -> None:
    async def main() -> None:
        there = front("chat", BY_TASK)
        status, _, text = await there.ask(
            "/v1/chat/completions", {"model": "m", **ASK}, x_headrace_task=header
        )
        assert status == 400
        error = json.loads(text)["error"]
        assert error["param"].startswith("task_profile")
        for word in (*words, "max_latency_ms=2000; tags=eu fast"):
            assert word in error["message"]

    run(main)


def test_a_profile_that_is_said_twice_is_refused() -> None:
    async def main() -> None:
        there = front("chat", BY_TASK)
        body = {"model": "m", **ASK, "task_profile": {"priority": "cost"}}
        status, _, text = await there.ask("/v1/chat/completions", body, x_headrace_task="cost")
        assert status == 400
        assert "leave one of them out" in json.loads(text)["error"]["message"]

    run(main)


def test_tags_lead_to_those_that_have_them_all() -> None:
    async def main() -> None:
        there = front("chat", {**BY_TASK, "policy": "lowest_cost"})
        path = "/v1/chat/completions"
        status, headers, _ = await there.ask(
            path, {"model": "m", **ASK}, x_headrace_task="cost; tags=eu large"
        )
        assert status == 200
        assert b"backend=a;" in headers[b"x-headrace-route"]
        status, _, text = await there.ask(path, {"model": "m", **ASK}, x_headrace_task="tags=us")
        assert status == 400
        assert "eu, large" in json.loads(text)["error"]["message"]

    run(main)


@pytest.mark.parametrize("face", ["chat", "completions", "messages", "responses"])
def test_a_session_by_a_header_stays_at_one_backend(face: str) -> None:
    path, body = FACES[face]

    async def main() -> None:
        route = {
            "name": "m",
            "affinity": "session",
            "backends": [{"backend": "a"}, {"backend": "b"}],
        }
        there = front(face, route)
        homes = {}
        for session in map(str, range(24)):
            for _ in range(2):
                ask = {"model": "m", **body}
                status, headers, _ = await there.ask(path, ask, x_headrace_session=session)
                assert status == 200
                assert b'reason="by session"' in headers[b"x-headrace-route"]
                assert homes.setdefault(session, there.asked[-1][0]) == there.asked[-1][0]
        assert set(homes.values()) == {"a", "b"}

    run(main)


WAYS = pytest.mark.parametrize("pass_through", [True, False], ids=["fast", "general"])
LOOKING = {
    "least_busy": {"policy": "least_busy"},
    "lowest_latency": {"policy": "lowest_latency"},
    "lowest_cost": {"policy": "lowest_cost"},
    "session": {"affinity": "session"},
    "prefix": {"policy": "least_busy", "affinity": "prefix"},
    "weighted": {"policy": "weighted"},
}


@WAYS
def test_both_ways_choose_alike_and_tell_of_it(pass_through: bool, tmp_path: Path) -> None:
    with far("a", "b") as backends:
        served = Served(
            tmp_path,
            {
                **NO_MODEL,
                "server": {"pass_through": pass_through},
                "backends": [each.backend(asked_whole=True, models=[]) for each in backends],
                "routes": [
                    {"name": by, "backends": [priced("a"), priced("b")], **told}
                    for by, told in LOOKING.items()
                ],
            },
        )
        try:
            for by in LOOKING:
                homes: dict[str, set[str]] = {}
                for place in range(12):
                    session = str(place % 4)
                    for stream in (False, True):
                        homes.setdefault(session, set()).add(asked(served, by, session, stream))
                if by in ("session", "prefix"):
                    assert all(len(each) == 1 for each in homes.values())
                if by == "lowest_cost":
                    assert set.union(*homes.values()) == {"b"}
            ask = {"model": "weighted", **ASK}
            refused = {**ask, "task_profile": {"max_cost_usd": 0}}
            assert sent(served, refused, {})[0] == 400
            assert sent(served, ask, {"x-headrace-task": "max_cost_usd=0"})[0] == 400
        finally:
            assert served.stop() == 0
            assert "Traceback" not in served.log, served.log


def asked(served: Served, model: str, session: str, stream: bool) -> str:
    """Who answered, which is whom the header names."""
    turns = [{"role": "system", "content": f"session {session}"}, {"role": "user", "content": "hi"}]
    ask = {"model": model, "messages": turns, "stream": stream}
    status, headers, text = sent(served, ask, {"x-headrace-session": session})
    assert status == 200, text
    told = headers["x-headrace-route"]
    assert told.startswith(f"{model}; policy=")
    name = told.split("backend=")[1][0]
    assert f'"content":"{name}'.encode() in text.replace(b'": "', b'":"'), text
    return name


def sent(
    served: Served, body: object, headers: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return response.status, told, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ("[{name: m, policy: least, backends: [{backend: a}]}]", ["'least'", "least_busy"]),
        ("[{name: m, affinity: user, backends: [{backend: a}]}]", ["'user'", "session"]),
        (
            "[{name: m, policy: lowest_cost, backends: [{backend: a, weight: 2}]}]",
            ["'lowest_cost'", "$.routes[0].backends[0].weight"],
        ),
        (
            "[{name: m, backends: [{backend: a, quality: 7}]}]",
            ["7", "0 to 1", "$.routes[0].backends[0].quality"],
        ),
        (
            "[{name: m, backends: [{backend: a, input_price_usd: 1}]}]",
            ["other price", "$.routes[0].backends[0].output_price_usd"],
        ),
        (
            "[{name: m, affinity: prefix, affinity_load: 0.5, backends: [{backend: a}]}]",
            ["0.5", "$.routes[0].affinity_load"],
        ),
    ],
)
def test_a_wrong_setting_names_its_place(tmp_path: Path, routes: str, words: list[str]) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_text(f"backends: [{{name: a}}]\nroutes: {routes}\n")
    with pytest.raises(LLMInvalidRequestError) as caught:
        load(path, environment={})
    for word in words:
        assert word in str(caught.value)
