"""Engines that the gateway starts: with the first request, again when they die, and never after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.managed.engines import (
    command,
    is_alive,
    managed,
    no_process_left,
    stand_in,
    until,
)
from gateway.far import NO_MODEL
from gateway.served import Served
from headrace.contracts.errors import LLMInvalidRequestError


def entry(*flags: str, **fields: Any) -> dict[str, Any]:
    """An engine of the configuration whose program is a stand-in."""
    usual = {"name": "standing", "backend": "command", "model": "stand-in-1"}
    return {**usual, "command": list(command(*flags)), **fields}


@contextlib.contextmanager
def serving(folder: Path, *engines: dict[str, Any], **config: Any) -> Iterator[Served]:
    """A gateway with ``engines``; none of their processes is left after the block."""
    state = folder / "state"
    whole = {**NO_MODEL, "engines": list(engines), **config}
    served = Served(folder, whole, HEADRACE_STATE=str(state))
    try:
        yield served
    finally:
        served.stop()
        assert no_process_left(state)


def server_of(served: Served, name: str = "standing") -> dict[str, Any]:
    """How the snapshot tells of an engine's process."""
    lanes = served.get("/snapshot").json["lanes"]
    return next(lane["server"] for lane in lanes if lane["name"] == name)


def said(reply: Any) -> str:
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["message"]["content"]


def test_an_engine_starts_with_its_first_request_or_at_once_and_ends_with_the_gateway(tmp_path):
    eager = entry(name="eager", model="eager", lazy=False)
    with serving(tmp_path, entry("--slow-start", "0.3"), eager) as served:
        until(lambda: server_of(served, "eager")["state"] == "ready")
        other = server_of(served, "eager")["pid"]
        assert server_of(served)["state"] == "stopped"
        assert served.get("/ready").json["backends"]["standing"] == {"ok": True, "state": "stopped"}
        pid = int(said(served.chat(model="stand-in-1")).split()[0])
        shown = server_of(served)
        assert (shown["state"], shown["pid"], shown["restarts"]) == ("ready", pid, 0)
        assert shown["memory_bytes"] > 0
        assert shown["uptime_s"] > 0
        assert said(served.chat(model="standing")).startswith(str(pid))
    assert not is_alive(pid)
    assert not is_alive(other)


def test_an_engines_requests_a_minute_are_kept(tmp_path):
    rated = entry(requests_per_minute=1, queue_timeout_ms=30)
    with serving(tmp_path, rated) as served:
        assert said(served.chat(model="standing"))
        assert served.chat(model="standing").status == 429


def streamed(served: Served, model: str = "standing") -> str:
    """The text of a streamed answer, which passes through unless the engine has to be started."""
    with served.streaming(model=model) as response:
        # Its first line was read when it began.
        lines = [b"", *response.read().splitlines()]
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


def test_an_engine_that_is_killed_is_started_again_for_the_next_request(tmp_path):
    route = {"name": "assistant", "backends": [{"backend": "standing"}]}
    with serving(tmp_path, entry(), routes=[route]) as served:
        for restarts in range(3):
            if restarts != 1:
                assert said(served.chat(model="assistant"))
            # Twice: the second one passes through.
            assert streamed(served)
            assert streamed(served)
            shown = server_of(served)
            assert shown["restarts"] == restarts
            os.kill(shown["pid"], signal.SIGKILL)
            until(lambda pid=shown["pid"]: not is_alive(pid))


def test_an_engine_is_not_idle_while_an_answer_passes_through(tmp_path):
    slow = entry("--pieces", "6", "--piece-s", "0.15", idle_timeout_s=0.2)
    with serving(tmp_path, slow) as served:
        for _ in range(2):
            assert streamed(served).count("and on") == 5
        pid = server_of(served)["pid"]
        until(lambda: server_of(served)["state"] == "stopped")
        assert not is_alive(pid)


def test_an_engine_that_cannot_start_says_why_and_the_others_answer(tmp_path):
    with serving(tmp_path, entry("--bogus", name="broken", models=["b"]), entry()) as served:
        refused = served.chat(model="b")
        assert refused.status == 503
        assert "unrecognized arguments: --bogus" in refused.error["message"]
        assert server_of(served, "broken")["state"] == "failed"
        assert said(served.chat(model="standing"))


def test_of_several_workers_none_starts_an_engine_of_its_own(tmp_path):
    with serving(tmp_path, entry(), server={"workers": 2}) as served:
        pids = {said(served.chat(model="standing")).split()[0] for _ in range(6)}
        assert len(pids) == 1
        assert str(server_of(served)["pid"]) in pids


def test_an_engine_of_which_the_same_is_said_again_runs_on_over_a_reload(tmp_path):
    with serving(tmp_path, entry(), entry(name="other", model="other")) as served:
        kept, changed = (said(served.chat(model=m)).split()[0] for m in ("standing", "other"))
        config = {
            **NO_MODEL,
            "engines": [entry(), entry("--pieces", "1", name="other", model="other")],
        }
        served.log_path.with_name("gateway.yaml").write_text(yaml.safe_dump(config))
        served.process.send_signal(signal.SIGHUP)
        until(lambda: "was read again" in served.log)
        assert said(served.chat(model="standing")).split()[0] == kept
        assert said(served.chat(model="other")) != changed
        until(lambda: not is_alive(int(changed)))


def test_what_a_killed_gateway_left_behind_is_ended_by_the_next(tmp_path):
    with serving(
        tmp_path, entry("--children", "1", "--ignore-sigterm", stop_timeout_s=0.2)
    ) as served:
        pid = int(said(served.chat(model="standing")).split()[0])
        served.process.kill()
        served.process.wait()
        assert is_alive(pid)
        with serving(tmp_path, entry(name="another")):
            until(lambda: not is_alive(pid))


def test_a_gateway_is_never_taken_for_an_engine(tmp_path):
    with serving(tmp_path, entry()) as served:
        config = stand_in(endpoint=f"{served.url}/v1", model="standing")

        async def play():
            async with managed(config, tmp_path / "other") as engine:
                await engine.ensure_running()

        with pytest.raises(LLMInvalidRequestError, match="a headrace gateway, which is no engine"):
            asyncio.run(play())


def test_llama_server_answers_through_the_gateway_and_leaves_nothing(tmp_path, box_model):
    with socket.socket() as free:  # at its usual port somebody else's may run
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    real = {
        "name": "llama",
        "port": port,
        "backend": "llama-server",
        "model": str(box_model.path),
        "models": ["small"],
        "extra_serve_flags": ["--parallel", 2, "--threads", 1],
        "max_model_len": 2048,
    }
    with serving(tmp_path, real) as served:
        assert said(served.chat("Say hello.", model="small", max_tokens=8))
        pid = server_of(served, "llama")["pid"]
        with served.streaming(model="small", max_tokens=400):
            os.kill(pid, signal.SIGKILL)
        # It is being started again, and nobody is told.
        assert said(served.chat("Say hello.", model="small", max_tokens=8))
        shown = server_of(served, "llama")
        assert (shown["state"], shown["restarts"]) == ("ready", 1)
        assert shown["memory_bytes"] > 50e6
