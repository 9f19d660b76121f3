"""``make test-engines``: vLLM, MAX Serve and llama-server themselves, started by the gateway.

Not among the usual tests: the first run installs 5 GB into the model cache, and MAX compiles the
model for minutes. Each engine is asked through the gateway, killed, asked again, and leaves nothing
behind. What it took is printed.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from backends.managed.engines import is_alive, no_process_left
from engines import environments
from gateway.far import NO_MODEL
from gateway.served import MODEL, Served, run_headrace, until

STARTED_S = 900.0
"""How long a start may take: MAX compiles, on two cores that others use too."""

# Without a system turn the model's template makes one of its own, under which it answers in French
# where it computes with few bits.
ASKED = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "What is the capital of France?"},
]


@frozen(kw_only=True)
class Engine:
    """One that is tried: its entry in the configuration, and the form in which it wants weights."""

    name: str
    dtype: str | None
    entry: Mapping[str, Any]
    program: Callable[[], str | None] = lambda: None


ENGINES = (
    Engine(
        name="llama-server",
        dtype=None,
        entry={"backend": "llama-server", "max_model_len": 2048},
    ),
    Engine(
        name="vllm",
        dtype="bf16",
        program=lambda: str(environments.vllm() / "vllm"),
        entry={
            "backend": "vllm_api",
            "dtype": "bfloat16",
            "max_model_len": 2048,
            "extra_serve_flags": ["--enforce-eager", "--max-num-seqs", "32"],
            "extra_env": {
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_NO_USAGE_STATS": "1",
                "OMP_NUM_THREADS": "2",
            },
        },
    ),
    Engine(
        name="max",
        dtype="f32",
        program=lambda: str(environments.max_serve() / "max"),
        entry={
            "backend": "max",
            "max_model_len": 2048,
            "extra_serve_flags": ["--max-batch-size", "32"],
            # Its figures would go to its makers otherwise.
            "extra_env": {"MAX_SERVE_DISABLE_TELEMETRY": "1"},
        },
    ),
)


@pytest.fixture(scope="session")
def weights(box_model, tmp_path_factory) -> Callable[[str | None], Path]:
    """Where the model in the box lies as a GGUF file, or as a folder with numbers of a type."""
    folder = tmp_path_factory.mktemp("weights")

    def find(dtype: str | None) -> Path:
        if dtype is None:
            return Path(box_model.path)
        made = folder / dtype
        if not made.exists():
            done = run_headrace("model", "export", MODEL, str(made), "--dtype", dtype)
            assert done.returncode == 0, done.stderr
        return made

    return find


class Patient(Served):
    """A gateway whose callers wait as long as an engine may take to start."""

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=STARTED_S)


@contextlib.contextmanager
def served_by(engine: Engine, model: Path, folder: Path) -> Iterator[Served]:
    program = engine.program()
    entry = {
        "name": engine.name,
        "model": str(model),
        "startup_timeout_s": STARTED_S,
        **engine.entry,
        **({} if program is None else {"program": program}),
    }
    state = folder / "state"
    served = Patient(folder, {**NO_MODEL, "engines": [entry]}, HEADRACE_STATE=str(state))
    try:
        yield served
    finally:
        served.stop()
    assert no_process_left(state)


def server_of(served: Served, name: str) -> dict[str, Any]:
    lanes = served.get("/snapshot").json["lanes"]
    return next(lane["server"] for lane in lanes if lane["name"] == name)


def ask(served: Served, name: str) -> dict[str, Any]:
    reply = served.chat(
        model=name,
        messages=ASKED,
        max_tokens=20,
        temperature=0,
    )
    assert reply.status == 200, reply.body
    return reply.json


def said(answer: Mapping[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_an_engine_answers_through_the_gateway_survives_its_death_and_leaves_nothing(
    engine, weights, tmp_path, capsys
):
    steps: dict[str, float] = {}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        begin = time.monotonic()
        found = work()
        steps[what] = time.monotonic() - begin
        return found

    model = timed("weights", lambda: weights(engine.dtype))
    timed("installed", engine.program)
    with served_by(engine, model, tmp_path) as served:
        first = timed("first answer", lambda: ask(served, engine.name))
        assert "Paris" in said(first)
        assert first["usage"]["prompt_tokens"] > 10
        again = timed("second answer", lambda: ask(served, engine.name))
        assert said(again) == said(first)
        with served.streaming(
            model=engine.name,
            messages=ASKED,
            max_tokens=20,
            temperature=0,
        ) as response:
            assert b"[DONE]" in response.read()
        shown = server_of(served, engine.name)
        assert (shown["state"], shown["restarts"]) == ("ready", 0)
        held = shown["memory_bytes"]
        os.kill(shown["pid"], signal.SIGKILL)
        until(lambda: not is_alive(shown["pid"]))
        revived = timed("answer after kill -9", lambda: ask(served, engine.name))
        assert said(revived) == said(first)
        shown = server_of(served, engine.name)
        assert shown["restarts"] == 1
        begin = time.monotonic()
    steps["stopped"] = time.monotonic() - begin
    assert not is_alive(shown["pid"])
    with capsys.disabled():
        told = ", ".join(f"{what} {time_s:.1f} s" for what, time_s in steps.items())
        print(f"\n{engine.name}: {told}; {held / 1e6:,.0f} MB")
