"""``/endpoints``: a gateway's endpoints are made, changed and removed while it answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from attrs import evolve
from click.testing import Result
from typer.testing import CliRunner

from gateway.far import NO_MODEL, Far, far
from gateway.front import Front
from gateway.front import said as answered
from gateway.served import Reply, Served, run_headrace, until
from headrace.cli.main import app_of
from headrace.contracts.convert import from_plain
from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.config import Config
from headrace.gateway.overlay import (
    NO_OVERLAY,
    changed,
    created,
    overlay_of,
    removed,
    shown,
)
from headrace.gateway.route_config import RouteConfig

ADMIN, CALLER = "admin-secret-0123456789", "caller-secret-0123456789"
A, B = "key-a-0123456789", "key-b-0123456789"
ASK = {"authorization": f"Bearer {ADMIN}"}


def config(*backends: dict[str, object], **server: object) -> dict[str, Any]:
    return {
        **NO_MODEL,
        "server": {"admin_keys": [ADMIN], "api_keys": [CALLER], **server},
        "backends": list(backends),
    }


@contextlib.contextmanager
def serving(folder: Any, told: dict[str, Any], **variables: str) -> Iterator[Served]:
    served = Served(folder, told, **variables)
    served.show_key(CALLER)
    try:
        yield served
    finally:
        served.stop()


def admin(served: Served, method: str, path: str = "", body: object = None) -> Reply:
    raw = None if body is None else json.dumps(body).encode()
    return served.ask(method, f"/endpoints{path}", raw, ASK)


def said(served: Served, model: str) -> str:
    reply = served.chat(model=model, headers={"authorization": f"Bearer {CALLER}"})
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["message"]["content"]


def status(served: Served, model: str) -> int:
    return served.chat(model=model, headers={"authorization": f"Bearer {CALLER}"}).status


@pytest.fixture(scope="module")
def providers() -> Iterator[list[Far]]:
    with far("one", "two") as made:
        yield made


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "workers"])
def served(providers, tmp_path_factory, request) -> Iterator[Served]:
    one, _ = providers
    told = config(one.backend(api_key=A, max_concurrent_requests=30), workers=request.param)
    with serving(tmp_path_factory.mktemp("served"), told) as made:
        yield made


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has made is removed again."""
    yield
    if "served" in request.fixturenames:
        made = request.getfixturevalue("served")
        for each in admin(made, "GET").json["endpoints"]:
            if each["source"] == "run time" and each["name"] != "one":
                admin(made, "DELETE", f"/{each['name']}")


def new(provider: Far, **more: object) -> dict[str, object]:
    body = {"name": "new", "base_url": f"{provider.url}/v1", "models": ["n"], "api_key": A}
    return {**body, **more}


def test_one_is_made_changed_and_removed(served, providers):
    _, two = providers
    assert status(served, "n") == 404
    made = admin(served, "POST", body=new(two, max_concurrent_requests=20))
    assert made.status == 201, made.body
    assert made.json["source"] == "run time"
    assert (made.json["keys"], made.json["max_concurrent_requests"]) == (1, 20)
    # Whichever process is asked: it is there once that is told.
    assert {said(served, "n") for _ in range(6)} == {f"two n {A}"}
    listed = served.get("/v1/models", authorization=f"Bearer {CALLER}").json["data"]
    assert [each["id"] for each in listed] == ["m", "n"]
    changed = admin(served, "PATCH", "/new", {"models": ["k"], "api_key": B})
    assert changed.status == 200, changed.body
    assert changed.json["max_concurrent_requests"] == 20
    assert {said(served, "k") for _ in range(6)} == {f"two k {B}"}
    assert status(served, "n") == 404
    assert admin(served, "DELETE", "/new").json == {"name": "new", "removed": True}
    assert {status(served, "k") for _ in range(4)} == {404}
    assert admin(served, "GET", "/new").status == 404
    assert said(served, "m") == f"one m {A}"


def test_stats_are_exact_whichever_process_answered(served, providers):
    _, two = providers
    admin(served, "POST", body=new(two))
    before = time.time()
    for _ in range(25):
        said(served, "n")
    stats = admin(served, "GET", "/new/stats").json
    assert (stats["requests"], stats["successes"], stats["failures"]) == (25, 25, {})
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (175, 75)
    assert stats["latency"]["count"] == 25
    assert stats["latency"]["p50_s"] > 0
    assert (stats["running"], stats["waiting"]) == (0, 0)
    assert stats["since"] <= before
    told = admin(served, "POST", "/new/reset_stats").json
    assert told["requests"] == 25
    assert admin(served, "GET", "/new/stats").json["requests"] == 0
    said(served, "n")
    stats = admin(served, "GET", "/new/stats").json
    assert (stats["requests"], stats["successes"]) == (1, 1)
    assert stats["since"] >= before


def test_several_keys_share_the_work(served, providers):
    _, two = providers
    keys = [A, B]
    made = admin(served, "POST", body={**new(two), "api_key": None, "api_keys": keys})
    assert made.status == 201, made.body
    assert made.json["keys"] == 2
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: said(served, "n"), range(20)))
    by_key = Counter(each.split()[-1] for each in answers)
    assert set(by_key) == {A, B}
    stats = admin(served, "GET", "/new/stats").json
    assert stats["requests"] == sum(key["requests"] for key in stats["keys"]) == 20
    assert [key["successes"] for key in stats["keys"]] == [by_key[A], by_key[B]]
    assert A not in json.dumps(stats)


def test_changes_under_load_lose_and_mix_nothing(served, providers):
    one, two = providers
    admin(served, "POST", body=new(one, api_key=A))
    stop, failures, seen = threading.Event(), [], Counter()

    def call() -> None:
        while not stop.is_set():
            reply = served.chat(model="n", headers={"authorization": f"Bearer {CALLER}"})
            if reply.status == 200:
                seen[reply.json["choices"][0]["message"]["content"]] += 1
            else:
                failures.append(reply.body)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        for turn in range(12):
            far_one, key = ((two, B), (one, A))[turn % 2]
            body = {"base_url": f"{far_one.url}/v1", "api_key": key}
            assert admin(served, "PATCH", "/new", body).status == 200
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert failures == []
    # Never the one's address with the other's key.
    assert set(seen) == {f"one n {A}", f"two n {B}"}
    stats = admin(served, "GET", "/new/stats").json
    assert stats["requests"] == stats["successes"] == sum(seen.values())


def test_what_runs_and_waits_finishes_by_what_it_began_with(served, providers):
    _, two = providers
    admin(served, "POST", body=new(two, models=["n"], max_concurrent_requests=3))
    two.hold()
    try:
        with ThreadPoolExecutor(6) as pool:
            calls = [pool.submit(said, served, "n") for _ in range(6)]

            def all_there() -> bool:
                stats = admin(served, "GET", "/new/stats").json
                return stats["requests"] == 6

            until(all_there)
            assert admin(served, "PATCH", "/new", {"models": ["k"]}).status == 200
            assert admin(served, "DELETE", "/new").status == 200
            two.release()
            assert {call.result() for call in calls} == {f"two n {A}"}
    finally:
        two.release()


def test_what_the_configuration_says_can_be_changed_too(served):
    assert admin(served, "GET", "/one").json["source"] == "configuration"
    assert admin(served, "GET", "/one").json["max_concurrent_requests"] == 30
    assert admin(served, "PATCH", "/one", {"models": ["m", "more"]}).status == 200
    assert said(served, "more") == f"one more {A}"
    assert admin(served, "GET", "/one").json["source"] == "run time"
    last = admin(served, "DELETE", "/one")
    assert last.status == 400
    assert "nothing to serve" in last.error["message"]
    assert said(served, "m") == f"one m {A}"
    assert admin(served, "PATCH", "/one", {"models": ["m", "free"]}).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {CALLER}"}, 401),
        ({"authorization": f"Bearer {ADMIN}x"}, 401),
        ({"authorization": ADMIN}, 401),
        ({"authorization": f"Bearer {ADMIN}"}, 200),
        ({"x-api-key": ADMIN}, 200),
    ],
)
def test_only_an_admin_key_lets_in(served, headers, status):
    for path in ("/endpoints", "/endpoints/one", "/endpoints/one/stats"):
        reply = served.ask("GET", path, headers=headers)
        assert reply.status == status
        assert ADMIN not in reply.body.decode()


def test_an_admin_key_is_no_callers_key(served):
    assert served.chat(model="m", headers=ASK).status == 401


@pytest.mark.parametrize("path", ["", "/one", "/one/stats", "/one/reset_stats"])
def test_other_methods_are_refused(served, path):
    reply = admin(served, "PUT", path, {})
    assert reply.status == 405
    assert reply.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param", "words"),
    [
        ("POST", "", {"base_url": "http://x/v1"}, 400, "name", "name"),
        ("POST", "", [1], 400, None, "object"),
        ("POST", "", {"name": "x", "base_url": "ftp://x"}, 400, "base_url", "base_url"),
        (
            "POST",
            "",
            {"name": "x", "base_url": "http+unix://%2Frun%2Fx/v1"},
            400,
            "base_url",
            "unix",
        ),
        ("POST", "", {"name": "x", "retries": 3}, 400, None, "retries"),
        ("POST", "", {"name": "x", "max_retries": -1}, 400, "max_retries", "0 to 100"),
        ("POST", "", {"name": "x", "provider": "grok"}, 400, None, "grok"),
        ("POST", "", {"name": "x"}, 400, None, "base_url"),
        ("POST", "", {"name": "a/b", "base_url": "http://x/v1"}, 400, "name", "letters"),
        ("POST", "", {"name": "one", "base_url": "http://x/v1"}, 409, "name", "already"),
        ("PATCH", "/on", {}, 404, "name", "did you mean 'one'"),
        ("DELETE", "/nobody", None, 404, "name", "known: one"),
        ("GET", "/nobody/stats", None, 404, "name", "known: one"),
        ("PATCH", "/one", {"name": "two"}, 400, "name", "cannot be changed"),
        ("PATCH", "/one", {"base_url": "http://127.0.0.1:1/v1"}, 400, "api_key", "not shown there"),
        ("PATCH", "/one", {"queue_size": "many"}, 400, "queue_size", "queue_size"),
    ],
)
def test_what_is_wrong_is_named_and_changes_nothing(
    served, method, path, body, status, param, words
):
    before = admin(served, "GET").json
    reply = admin(served, method, path, body)
    assert reply.status == status, reply.body
    assert words in reply.error["message"]
    if param is not None:
        assert reply.error["param"] == param
    assert admin(served, "GET").json == before


def test_keys_are_never_told(served, providers):
    _, two = providers
    made = admin(served, "POST", body=new(two, api_key=B))
    told = made.body + admin(served, "GET").body + admin(served, "GET", "/new").body
    wrong = admin(served, "PATCH", "/new", {"api_key": B, "api_keys": [B]})
    assert wrong.status == 400
    told += wrong.body + admin(served, "PATCH", "/new", {"api_key": [B]}).body
    for key in (A, B, ADMIN, CALLER):
        assert key not in told.decode()
        assert key not in served.log


def test_the_paths_are_described(served):
    document = served.get("/openapi.json", authorization=f"Bearer {CALLER}").json
    assert set(document["paths"]["/endpoints/{name}"]) == {"parameters", "get", "patch", "delete"}
    fields = document["components"]["schemas"]["NewEndpoint"]["properties"]
    assert {"name", "api_keys", "max_concurrent_requests"} <= set(fields)


@pytest.mark.parametrize("key", [CALLER, None])
@pytest.mark.parametrize("ending", [":generateContent", ":embedContent"])
def test_no_ending_of_another_face_opens_them(key, ending):
    async def main() -> None:
        # Such a name cannot be given at run time, but may stand in a configuration.
        told = {"server": {"admin_keys": [ADMIN], "api_keys": [CALLER]}}
        own = {"name": f"one{ending}", "base_url": "http://one/v1", "models": ["m"]}
        front = Front({**told, "backends": [own]}, {"two": answered("hi")})
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        for name in ("one", "nobody"):
            status, _, body = await front.ask(f"/endpoints/{name}{ending}", **headers)
            assert status == 401, body
            assert b"two" not in body
        asked = f"/endpoints/nobody{ending}"
        status, _, _ = await front.ask(asked, authorization=f"Bearer {ADMIN}")
        assert status == 404

    asyncio.run(main())


def test_without_an_admin_key_there_is_no_such_thing():
    async def main() -> None:
        front = Front({}, {"one": answered("hi")})
        for body in (None, {"name": "x"}):
            status, _, told = await front.ask("/endpoints", body, authorization=f"Bearer {ADMIN}")
            assert status == 404
            error = json.loads(told)["error"]
            assert error["code"] == "endpoints_disabled"
            assert "server.admin_keys" in error["message"]

    asyncio.run(main())


def test_a_reload_reads_the_file_under_them_and_a_new_worker_has_them(tmp_path, providers):
    import os
    import signal

    import yaml

    from gateway.served import children, is_alive, program

    one, two = providers
    told = config(one.backend(api_key=A), workers=2)
    with serving(tmp_path, told) as served:
        admin(served, "POST", body=new(two))
        admin(served, "PATCH", "/one", {"models": ["m", "p"]})
        told["backends"].append(two.backend(name="from-file", models=["f"], api_key=B))
        (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(told))
        served.process.send_signal(signal.SIGHUP)
        until(lambda: "was read again" in served.log)
        workers = [p for p in children(served.process.pid) if "workers.worker" in program(p)]
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: not is_alive(workers[0]))
        until(lambda: "has taken the place" in served.log)
        for model, answer in (("n", f"two n {A}"), ("p", f"one p {A}"), ("f", f"two f {B}")):
            # from-file calls itself by its provider's name
            assert {said(served, model) for _ in range(8)} == {answer}
    with serving(tmp_path, told, HEADRACE_WORKERS="1") as served:
        assert status(served, "n") == 404
        assert said(served, "f") == f"two f {B}"


@pytest.fixture
def command(served, monkeypatch) -> Callable[..., Result]:
    """Runs ``headrace endpoints`` against that gateway."""
    for name, value in {
        "HEADRACE_URL": served.url,
        "HEADRACE_ADMIN_KEY": ADMIN,
        "MY_A": A,
        "MY_B": B,
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(
        app_of(["endpoints", "chat"]), ["endpoints", *arguments]
    )


def test_the_commands(served, providers, command):
    _, two = providers

    def run(*arguments: str) -> str:
        done = command(*arguments)
        assert done.exit_code == 0, done.exception
        return done.output

    where = ("--base-url", f"{two.url}/v1", "--model", "n")
    keys = ("--key-env", "MY_A", "--key-env", "MY_B")
    out = run("add", "new", *where, *keys, "--set", "queue_size=7")
    assert "until the server ends" in out
    assert said(served, "n").startswith("two n key-")
    (listed,) = [each for each in json.loads(run("list", "--json")) if each["name"] == "new"]
    assert (listed["queue_size"], listed["keys"], listed["models"]) == (7, 2, ["n"])
    assert "new" in run("list")
    run("change", "new", "--set", "models=[k, l]")
    assert said(served, "l").startswith("two l key-")
    stats = json.loads(run("stats", "new", "--json"))
    assert stats["requests"] == 2
    shown_to_people = run("stats", "new")
    assert "requests" in shown_to_people
    assert A not in shown_to_people
    assert json.loads(run("reset", "new", "--json"))["requests"] == 2
    assert json.loads(run("stats", "new", "--json"))["requests"] == 0
    assert json.loads(run("remove", "new", "--json"))["removed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stats", "nobody"), "no endpoint 'nobody'"),
        (("add", "x", "--set", "queue_size"), "FIELD=VALUE"),
        (("add", "x", "--set", "api_key=abc"), "--key-env"),
        (("add", "x", "--key-env", "NOT_SET"), "NOT_SET"),
        (("change", "one"), "nothing is to change"),
        (("list", "--url", "http://127.0.0.1:1"), "127.0.0.1:1"),
    ],
)
def test_a_command_that_cannot_says_why(command, arguments, words):
    done = command(*arguments)
    assert isinstance(done.exception, LLMError)
    assert words in str(done.exception)


def test_without_the_admin_key_a_command_says_so_in_one_line(served):
    done = run_headrace("endpoints", "list", "--url", served.url)
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: this server needs an API key")
    assert done.stderr.count("\n") == 1


# Whoever may change endpoints learns none of the server's own keys.

BASE = from_plain(
    {
        **NO_MODEL,
        "providers": [
            {"name": "corp", "base_url": "http://corp/v1", "headers": {"x-key": "secret-header"}}
        ],
        "backends": [
            {"name": "one", "base_url": "http://one/v1", "api_key": A},
            {"name": "env", "provider": "openai", "api_key_env": "SOME_KEY"},
        ],
    },
    Config,
)
EVIL = {"base_url": "http://evil/v1"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (changed("one", EVIL), "api_key"),
        (changed("one", {"proxy": "http://evil:1"}), "api_key"),
        (changed("env", EVIL), "api_key"),
        (changed("env", {"provider": "groq"}), "api_key"),
        (changed("one", {"provider": "groq", "base_url": None}), "api_key"),
        (changed("env", {**EVIL, "api_key_env": "SOME_KEY"}), "api_key_env"),
        (created({"name": "x", **EVIL, "api_key_env": "SOME_KEY"}), "api_key_env"),
        (created({"name": "x", **EVIL, "api_key_envs": ["SOME_KEY"]}), "api_key_envs"),
        (created({"name": "x", **EVIL, "provider": "corp"}), "provider"),
        (changed("one", {**EVIL, "api_key": None, "provider": "corp"}), "provider"),
    ],
)
def test_what_is_the_servers_own_goes_to_no_address_of_theirs(change, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        change(NO_OVERLAY, BASE)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "later",
    [
        {"provider": "corp"},
        {"api_key_env": "SOME_KEY"},
        {"key_from_environment": True, "provider": "openai"},
    ],
)
def test_not_in_two_steps_either(later):
    overlay = created({"name": "x", **EVIL})(NO_OVERLAY, BASE)
    try:
        overlay = changed("x", later)(overlay, BASE)
    except LLMError:
        return
    said_of_it = overlay.over(BASE).backends[-1]
    assert said_of_it.name == "x"
    assert not said_of_it.key_from_environment


def test_one_that_a_route_asks_is_not_removed():
    route = {"name": "both", "backends": [{"backend": "one"}, {"backend": "env"}]}
    routed = evolve(BASE, routes=(from_plain(route, RouteConfig),))
    with pytest.raises(LLMInvalidRequestError, match="unknown backend 'one'"):
        removed("one")(NO_OVERLAY, routed).over(routed)


def test_an_overlay_travels_whole():
    overlay = created({"name": "x", **EVIL, "api_keys": [A, B]})(NO_OVERLAY, BASE)
    overlay = removed("env")(overlay, BASE)
    overlay = changed("one", {"queue_size": 3})(overlay, BASE)
    there = overlay_of(json.loads(json.dumps(overlay.to_plain())))
    assert there == overlay
    names = [each.name for each in there.over(BASE).backends]
    assert names == ["one", "x"]
    assert there.moved("x")
    assert not there.moved("one")
    assert removed("x")(there, BASE).over(BASE).backends[-1].name == "one"


def test_what_is_shown_of_one_has_no_secret():
    backend = BackendConfig(
        name="x",
        base_url="http://x/v1?key=password-1",
        api_keys=(A, B),
        proxy="http://u:pw-2@p:1",
        metrics_url="http://x/metrics?token=password-3",
    )
    told = json.dumps(shown(backend))
    for secret in (A, B, "password-1", "pw-2", "password-3"):
        assert secret not in told
    assert shown(backend)["keys"] == 2
