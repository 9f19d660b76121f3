"""The gateway with both engines of the model in the box: who answers what, and what a death costs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.served import MODEL, Reply, Served, is_alive, until
from headrace.backends.local.openvino import is_installed
from headrace.stores.models import ModelFile

pytestmark = [
    pytest.mark.skipif(
        not Path("/proc/self/stat").exists(), reason="the engines are found through /proc"
    ),
    pytest.mark.skipif(
        not is_installed(), reason="there are no wheels of OpenVINO for this machine"
    ),
]

MANY = 5
STUCK_MS = 6000
COUNT = "headrace_time_to_first_token_seconds_count"


@pytest.fixture(scope="module")
def served(box_model: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("two engines")
    config = {
        "batching": {"max_batch_size": MANY},
        "engine": {"openvino_from": 2, "stuck_after_ms": STUCK_MS},
    }
    served = Served(folder, config, HEADRACE_ENGINE__OPENVINO="true")
    try:
        served.wait_until_ready()
        until(lambda: loads(served) == 1)
        yield served
    finally:
        served.stop()


def loads(served: Served) -> int:
    return sum(
        "OpenVINO has loaded" in line["message"]
        or ("OpenVINO" in line["message"] and "is back" in line["message"])
        for line in served.log_lines
    )


def answered_by(served: Served, provider: str) -> float:
    return served.metric(COUNT, provider=provider)


def at_once(served: Served, count: int, **settings: object) -> list[Reply]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: served.chat(**settings), range(count)))


def make_busy(served: Served) -> None:
    """From now on, for some seconds, free text is OpenVINO's."""
    assert {reply.status for reply in at_once(served, MANY)} == {200}


def test_one_caller_is_answered_by_llama_cpp_and_many_by_openvino(served: Served) -> None:
    assert served.chat().status == 200
    assert answered_by(served, "llama.cpp") == 1
    assert answered_by(served, "openvino") == 0
    make_busy(served)
    assert answered_by(served, "openvino") >= MANY - 2


def test_a_streamed_message_begins_with_its_prompts_length_from_openvino_too(
    served: Served,
) -> None:
    make_busy(served)
    before = answered_by(served, "openvino")
    asked = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
    reply = served.post("/v1/messages", {"model": MODEL, **asked, "stream": True})
    lines = reply.body.decode().splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if "usage" in line]
    start, end = events[0]["message"]["usage"], events[-1]["usage"]
    assert start["input_tokens"] == end["input_tokens"] > 5
    assert answered_by(served, "openvino") == before + 1


def test_a_full_openvino_keeps_no_schema_waiting(served: Served) -> None:
    make_busy(served)
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as streams:
        for _ in range(MANY):
            streams.enter_context(served.streaming(max_tokens=1500, ignore_eos=True))
        waits = pool.submit(served.chat)
        until(lambda: served.metric("vllm:num_requests_waiting") == 1)
        schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        reply = served.chat(response_format=form, max_tokens=20)
        assert reply.status == 200
        assert not waits.done()
        streams.close()
        assert waits.result().status == 200
    until(served.quiet)


@pytest.mark.parametrize("engine", ["openvino_child", "llamacpp_child"])
def test_an_engine_killed_under_load_fails_only_what_it_had_begun_to_answer(
    served: Served, engine: str
) -> None:
    make_busy(served)
    loaded = loads(served)
    with ThreadPoolExecutor(MANY) as pool:
        asked = [pool.submit(served.chat, max_tokens=60, ignore_eos=True) for _ in range(MANY)]
        until(lambda: served.metric("vllm:num_requests_running") >= 1)
        pid = served.engine_pid(engine)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))
        replies = [each.result() for each in asked]
    for reply in replies:
        assert reply.status in (200, 503), reply.body
        if reply.status == 503:
            assert reply.error["code"] == "backend_unavailable"
            assert int(reply.headers["retry-after"]) >= 1
    if engine == "openvino_child":
        until(lambda: loads(served) == loaded + 1)
    until(lambda: served.chat().status == 200)
    assert {reply.status for reply in at_once(served, MANY)} == {200}
    until(served.quiet)


@pytest.mark.parametrize("engine", ["openvino_child", "llamacpp_child"])
def test_an_engine_that_lives_but_gives_nothing_more_is_started_again(
    served: Served, engine: str
) -> None:
    make_busy(served)
    endless = {"max_tokens": 1500, "ignore_eos": True, "seed": 1}
    # What only llama.cpp can do, where it is the one that is stopped.
    asked = endless if engine == "openvino_child" else {**endless, "logit_bias": {"5": 1}}
    with served.streaming(**asked) as response:
        pid = served.engine_pid(engine)
        os.kill(pid, signal.SIGSTOP)
        events = [line for line in response.read().split(b"\n\n") if line]
    assert not is_alive(pid)
    assert b"data: [DONE]" not in events
    last = json.loads(events[-1].removeprefix(b"data: "))
    assert last["error"]["code"] == "backend_unavailable"
    assert "is stuck and is being ended" in served.log
    until(lambda: served.chat(logit_bias={"5": 1}).status == 200)
    until(lambda: served.engine_pid("openvino_child"))
    until(served.quiet)


def test_both_engines_end_with_the_gateway_however_it_ends(served: Served) -> None:
    pids = [served.engine_pid("openvino_child"), served.engine_pid("llamacpp_child")]
    served.process.kill()
    until(lambda: not any(map(is_alive, pids)))
