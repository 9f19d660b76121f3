"""Python functions behind HTTP: what they answer, what is refused, and what is counted."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.kserve_asking import Got, ask
from gateway.served import PATIENCE_S, Served, command, environment, run_headrace, until
from headrace import (
    Client,
    Function,
    LLMAuthError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    inference_app,
)
from headrace.net.manual_clock import ManualClock
from headrace.stores.credentials import Credentials

NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)
MODULE = '''
"""Functions to be served."""

import time

from headrace import Function, LLMInvalidRequestError


def upper(text, times: int = 1):
    """Says it louder.

    And more often."""
    if not isinstance(text, str):
        raise LLMInvalidRequestError("the input must be a text")
    return text.upper() * times


def broken(text):
    raise RuntimeError("the password is hunter2")


def slow(seconds):
    time.sleep(seconds)
    return seconds


async def later(value, **anything):
    return [value, anything]


class Shop:
    @staticmethod
    def price(item):
        return {"tea": 3, "milk": 1}[item]


lengths = Function(call=lambda texts: [len(t) if t else ValueError("empty") for t in texts], batch=True)
'''


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "shouting.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import shouting  # type: ignore[import-not-found]

    yield shouting
    del sys.modules["shouting"]


def asking(app: Any, *calls: tuple[str, str, Any], **headers: str) -> list[Got]:
    async def main() -> list[Got]:
        return [await ask(app, method, path, body, **headers) for method, path, body in calls]

    return asyncio.run(main())


def infer(app: Any, name: str, body: Any, **headers: str) -> Got:
    return asking(app, ("POST", f"/models/{name}/infer", body), **headers)[0]


def test_a_function_answers_one_input(functions):
    app = inference_app({"upper": functions.upper})
    got = infer(app, "upper", {"input": "hi", "parameters": {"times": 2}})
    assert got.json == {"model": "upper", "output": "HIHI"}
    assert got.headers[b"x-request-id"]


def test_several_inputs_have_each_their_output_or_error(functions):
    app = inference_app({"upper": functions.upper, "lengths": functions.lengths})
    got = infer(app, "upper", {"inputs": ["a", 3, "b"]})
    assert got.status == 200
    assert got.json["outputs"] == ["A", None, "B"]
    assert got.json["errors"] == [{"index": 1, "message": "the input must be a text"}]
    got = infer(app, "lengths", {"inputs": ["abc", ""]})
    assert got.json["outputs"] == [3, None]
    assert [each["index"] for each in got.json["errors"]] == [1]
    assert infer(app, "lengths", {"input": "abc"}).json["output"] == 3


def test_a_coroutine_is_awaited_and_may_take_any_parameter(functions):
    app = inference_app({"later": functions.later})
    got = infer(app, "later", {"input": {"a": [1]}, "parameters": {"x": 1}})
    assert got.json["output"] == [{"a": [1]}, {"x": 1}]


def test_no_parameter_is_the_input_a_second_time(functions):
    app = inference_app({"later": functions.later})
    got = infer(app, "later", {"input": 1, "parameters": {"value": 2}})
    assert got.status == 400
    assert got.json["error"]["param"] == "parameters.value"


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"input": 3}, 400, None, "the input must be a text"),
        (
            {"input": "a", "parameters": {"time": 2}},
            400,
            "parameters.time",
            "did you mean 'times'?",
        ),
        ({}, 400, "input", "'inputs'"),
        ({"input": "a", "stream": True}, 400, "stream", "known: input"),
        (b"{", 400, None, "not valid JSON"),
    ],
)
def test_what_is_wrong_is_said_by_the_fields_name(functions, body, status, param, words):
    got = infer(inference_app({"upper": functions.upper}), "upper", body)
    assert got.status == status
    assert got.json["error"]["param"] == param
    assert words in got.json["error"]["message"]


def test_a_parameter_that_is_needed_is_asked_for():
    got = infer(inference_app({"scaled": lambda x, by: x * by}), "scaled", {"input": 2})
    assert got.json["error"]["param"] == "parameters.by"


def test_a_functions_own_error_is_told_by_its_class_alone(functions, caplog):
    app = inference_app({"broken": functions.broken})
    got = infer(app, "broken", {"input": "x"})
    assert (got.status, got.json["error"]["code"]) == (500, "function_failed")
    assert "RuntimeError" in got.json["error"]["message"]
    assert b"hunter2" not in got.body
    assert "hunter2" in caplog.text
    open_app = inference_app({"broken": Function(call=functions.broken, tells_errors=True)})
    assert b"hunter2" in infer(open_app, "broken", {"input": "x"}).body


def test_an_output_that_json_has_no_words_for_is_the_functions_fault():
    got = infer(inference_app({"odd": lambda x: object()}), "odd", {"input": 1})
    assert got.status == 500
    assert "TypeError" in got.json["error"]["message"]


def test_an_array_becomes_lists():
    numpy = pytest.importorskip("numpy")
    got = infer(
        inference_app({"square": lambda x: numpy.array(x) ** 2}), "square", {"input": [1, 2]}
    )
    assert got.json["output"] == [1, 4]


def test_models_are_listed_with_what_they_take(functions):
    app = inference_app({"upper": functions.upper, "later": functions.later})
    listed, one, missing = asking(
        app, ("GET", "/models", b""), ("GET", "/v1/models/upper", b""), ("GET", "/models/uper", b"")
    )
    assert [(each["id"], each["parameters"]) for each in listed.json["data"]] == [
        ("upper", ["times"]),
        ("later", None),
    ]
    assert one.json["description"] == "Says it louder."
    assert missing.status == 404
    assert "did you mean 'upper'?" in missing.json["error"]["message"]


def test_what_a_function_did_is_counted(functions):
    app = inference_app({"upper": functions.upper, "broken": functions.broken})
    asking(
        app,
        ("POST", "/models/upper/infer", {"inputs": ["a", 3]}),
        ("POST", "/models/upper/infer", {"input": "a"}),
        ("POST", "/models/upper/infer", {"input": 3}),
    )
    (got,) = asking(app, ("GET", "/models/upper/statistics", b""))
    told = got.json
    assert (told["requests"], told["successes"]) == (3, 2)
    assert told["failures"] == {"LLMInvalidRequestError": 1}
    assert (told["inputs"], told["failed_inputs"]) == (4, 2)
    assert told["latency"]["count"] == 2
    assert 0 <= told["latency"]["min_s"] <= told["latency"]["max_s"]
    assert (told["running"], told["waiting"]) == (0, 0)
    (metrics,) = asking(app, ("GET", "/metrics", b""))
    assert 'gen_ai_operation_name="inference"' in metrics.body.decode()


def test_too_many_are_refused_and_a_place_that_is_left_is_taken():
    gate = threading.Event()
    app = inference_app({"held": lambda x: gate.wait(60) and x}, max_running=1, max_waiting=1)

    async def main() -> None:
        path = "/models/held/infer"
        first, second = (asyncio.create_task(ask(app, "POST", path, {"input": n})) for n in (1, 2))
        told: dict[str, Any] = {}
        while (told.get("running"), told.get("waiting")) != (1, 1):
            await asyncio.sleep(0.01)
            told = (await ask(app, "GET", "/models/held/statistics")).json
        third = await ask(app, "POST", path, {"input": 3})
        assert third.status == 429
        assert third.json["error"]["code"] == "queue_full"
        assert int(third.headers[b"retry-after"]) >= 1
        gate.set()
        assert [(await each).json["output"] for each in (first, second)] == [1, 2]

    asyncio.run(main())


def test_a_call_that_takes_too_long_is_given_up():
    clock = ManualClock(auto=True)

    async def never(value: object) -> None:
        await asyncio.Event().wait()

    got = infer(inference_app({"never": never}, timeout_s=5.0, clock=clock), "never", {"input": 1})
    assert got.status == 504
    assert "5" in got.json["error"]["message"]


def test_keys_are_asked_for_where_there_are_some(functions):
    app = inference_app({"upper": functions.upper}, api_keys=("right",))
    assert infer(app, "upper", {"input": "a"}).status == 401
    assert infer(app, "upper", {"input": "a"}, authorization="Bearer right").status == 200
    (health,) = asking(app, ("GET", "/health", b""))
    assert health.status == 200


def test_a_body_that_is_too_large_is_refused(functions):
    app = inference_app({"upper": functions.upper}, max_body_bytes=1024)
    assert infer(app, "upper", {"input": "a" * 2000}).status == 413


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no function to serve"),
        ({"a/b": len}, "without '/'"),
        ({"x": 3}, "no function"),
        ({"x": lambda: 1}, "takes no argument"),
        ({"x": lambda *, text: text}, "by name only"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(given, words):
    with pytest.raises(LLMInvalidRequestError, match=words):
        inference_app(given)


SERVED = re.compile(r"ask:\s+POST http://(\S+):(\d+)/models")


class Process:
    """``headrace serve-functions`` as a user starts it."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        (folder / "shouting.py").write_text(MODULE)
        self.log_path = folder / "functions.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command("serve-functions", *arguments, "--port", "0"),
                env=environment(**variables),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            found = until(self._announced)
        except BaseException:
            self.stop()
            raise
        self.url = f"http://{found[1]}:{found[2]}"

    def _announced(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.log_path.read_text()
        return SERVED.search(self.log_path.read_text())

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    served = Process(
        tmp_path_factory.mktemp("functions"),
        *("shouting:upper", "tariff=shouting:Shop.price", "shouting:lengths", "shouting:broken"),
        HEADRACE_API_KEYS="right",
    )
    yield served
    assert served.stop() == 0


def test_a_client_asks_the_command_over_a_socket(process):
    where = {"provider": "inference", "base_url": process.url, "credentials": NOTHING}
    with Client("upper", api_key="right", **where) as client:
        assert client.infer("hi", parameters={"times": 3}).outputs == ("HIHIHI",)
        many = client.infer(["a", "b"], model="lengths", batch=True)
        assert many.outputs == (1, 1)
        assert client.infer("tea", model="tariff").outputs == (3,)
        assert client.healthcheck().details == {"models": ["upper", "tariff", "lengths", "broken"]}
        told = client.statistics("lengths")
        assert (told.requests, told.inputs) == (1, 2)
        with pytest.raises(LLMModelNotFoundError, match="did you mean 'upper'"):
            client.infer("hi", model="uper")
        with pytest.raises(LLMError, match="KeyError"):
            client.infer("cake", model="tariff")
        # A function of a text is a model that continues texts, too.
        assert client.chat("hi").text == "HI"
    with Client("upper", api_key="wrong", **where) as client, pytest.raises(LLMAuthError):
        client.infer("hi")


def test_a_function_is_a_model_behind_the_gateway(process, tmp_path):
    backend = {
        "name": "upper",
        "provider": "inference",
        "base_url": process.url,
        "api_key": "right",
    }
    config = {"engine": {"enabled": False}, "embeddings": {"enabled": False}, "backends": [backend]}
    served = Served(tmp_path, config)
    try:
        reply = served.chat("hello", model="upper", max_tokens=None)
        assert reply.json["choices"][0]["message"]["content"] == "HELLO"
        reply = served.chat("hello", model="upper", max_tokens=None, temperature=0.5)
        assert reply.status == 400
        assert reply.error["param"] == "parameters.temperature"
        body = json.dumps({"text_input": "hello"}).encode()
        reply = served.post("/v2/models/upper/generate", body)
        assert reply.json["text_output"] == "HELLO"
        assert served.get("/ready").status == 200
    finally:
        served.stop()


def test_the_log_has_a_functions_error_and_no_input(process):
    where = {"provider": "inference", "base_url": process.url, "credentials": NOTHING}
    with Client("broken", api_key="right", **where) as client, pytest.raises(LLMError) as caught:
        client.infer("a secret question")
    assert "hunter2" not in str(caught.value)
    log = until(lambda: "hunter2" in (text := process.log_path.read_text()) and text)
    assert "a secret question" not in log


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "names no function"),
        (["no_such_module:f"], "there is no module 'no_such_module'"),
        (["json:no_such"], "has no 'no_such'"),
        (["json:__name__"], "and no function"),
        (["json:loads", "--host", "0.0.0.0"], "server.api_keys"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments, words):
    done = run_headrace("serve-functions", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
