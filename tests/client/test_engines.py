"""Engines from Python: registered by name, asked for lists of answers, ended with who started them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import headrace
from backends.managed.engines import command, listed, no_process_left, stand_in
from headrace import (
    AsyncClient,
    AsyncEngine,
    Client,
    Engine,
    LLMChatParams,
    LLMEngineNotFoundError,
    LLMError,
    LLMInvalidRequestError,
    LLMMessage,
    LLMUnavailableError,
)
from headrace.client import registry


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Nothing is registered before, nothing runs behind a test."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    yield tmp_path / "state"
    for name in list(registry._engines):
        headrace.unregister_engine(name)
    assert no_process_left(tmp_path / "state")


def register(*flags, **fields):
    usual = {"name": "standing", "model": "stand-in-1", "backend": "command"}
    return headrace.register_engine(command=command(*flags), **{**usual, **fields})


def texts(results):
    return [each if isinstance(each, LLMError) else each.text for each in results]


def test_answers_come_in_the_order_of_their_prompts(state):
    register()
    prompts = ["one", [LLMMessage(role="user", content="two")], "three"]
    results = headrace.generate("standing", prompts, {"temperature": 0.0})
    assert len(results) == 3
    # The stand-in tells its process: one server has answered all of them.
    assert len(set(texts(results))) == 1
    assert listed(state)
    headrace.unregister_engine("standing")
    assert not listed(state)


def test_what_went_wrong_stands_in_the_place_of_an_answer():
    register()
    with Engine("standing") as engine:
        good, bad, also_good = engine.generate(["a", [{"role": "user"}], "c"])
        assert good.text
        assert also_good.text
        assert isinstance(bad, LLMInvalidRequestError)
        (wrong,) = engine.generate(["a"], {"no_such_setting": 1})
    assert isinstance(wrong, LLMInvalidRequestError)


def test_an_engine_that_does_not_start_is_each_prompts_error():
    register(name="none", model="missing")
    results = headrace.generate("none", ["a", "b"])
    assert [type(each) for each in results] == [LLMUnavailableError] * 2
    assert "there is no model 'missing'" in str(results[0])


def test_one_text_is_no_list_of_prompts():
    register()
    with pytest.raises(LLMInvalidRequestError, match="prompts is one text"):
        headrace.generate("standing", "hello")


def test_sampling_params_may_be_those_of_a_chat():
    register()
    with Engine("standing") as engine:
        assert texts(engine.generate(["a"], LLMChatParams(temperature=0.5, max_tokens=3)))


def test_a_lazy_engine_waits_for_its_first_prompt_and_any_other_starts_at_once(state):
    register()
    with Engine("standing") as engine:
        assert engine.server_snapshot()["state"] == "stopped"
        engine.generate(["a"])
        assert engine.server_snapshot()["state"] == "ready"
        engine.stop()
        assert engine.server_snapshot()["state"] == "stopped"
        assert engine.start().startswith("http://127.0.0.1:")
    assert not listed(state)
    register(name="persistent", persistent=True)
    with Engine("persistent") as engine:
        assert engine.server_snapshot()["state"] == "ready"
    assert not listed(state)


def test_an_engine_is_asked_from_inside_an_event_loop(state):
    async def run():
        async with AsyncEngine(stand_in()) as engine:
            assert len(await engine.generate(["a"] * 50)) == 50
            assert engine.server_snapshot()["pid"]

    asyncio.run(run())
    assert not listed(state)


def test_a_client_has_an_engine_in_the_place_of_a_model(state):
    register()
    with Client(engine="standing") as client:
        assert client.default_model() == "stand-in-1"
        said = client.chat("hello")
        assert said.text
        assert said.provenance.backend_name == "standing"
        assert "".join(e.delta_text or "" for e in client.stream_chat("hello"))
        snapshot = client.server_snapshot()
        assert snapshot["state"] == "ready"
        assert client.describe()["server"]["pid"] == snapshot["pid"]
        assert client.config_snapshot()["engine"] == "standing"
    assert not listed(state)


def test_a_client_without_an_engine_has_no_server():
    with Client("openai/gpt-5-mini", api_key="sk-1") as client:
        assert client.server_snapshot() is None
        with pytest.raises(LLMInvalidRequestError, match="this client has no engine"):
            client.start_engine()


@pytest.mark.parametrize(
    ("model", "given"), [("openai/x", {}), (None, {"base_url": "http://127.0.0.1:1/v1"})]
)
def test_an_engine_beside_a_model_is_refused(model, given):
    with pytest.raises(LLMInvalidRequestError, match="is given beside engine"):
        AsyncClient(model, engine=stand_in(), **given)


def test_a_providers_name_is_an_engine_that_somebody_else_runs():
    config = headrace.register_engine(
        name="gpt4o", backend="openai", model="gpt-4.1-mini", api_key="sk-1"
    )
    engine = AsyncEngine(config)
    assert asyncio.run(engine.start()) == "https://api.openai.com/v1"
    assert engine.server_snapshot() is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backend": "vlm"}, "backend is 'vlm', .*did you mean 'vllm'"),
        ({"backend": "openai", "port": 1}, "port is given, and openai is a provider"),
        ({"modell": "x"}, r"unknown field 'modell' @ \$ \(nearest: 'model'\)"),
    ],
)
def test_an_engine_that_could_not_be_is_refused_as_it_is_registered(fields, words):
    with pytest.raises(LLMInvalidRequestError, match=words):
        headrace.register_engine(**{"name": "a", "model": "m", **fields})


def test_an_unknown_name_tells_of_near_ones():
    register(name="mistral-large")
    with pytest.raises(KeyError, match="did you mean 'mistral-large'"):
        headrace.get_engine_config("mistral-larg")
    with pytest.raises(LLMEngineNotFoundError):
        headrace.unregister_engine("none")
    with pytest.raises(LLMEngineNotFoundError):
        headrace.generate("none", ["a"])


def test_a_name_is_given_once_unless_it_is_to_be_replaced():
    first = register()
    assert register() == first
    with pytest.raises(LLMInvalidRequestError, match="there is another engine 'standing' already"):
        register(model="stand-in-2")
    assert headrace.get_engine_config("standing") == first
    register(model="stand-in-2", replace=True)
    assert headrace.get_engine_config("standing").model == "stand-in-2"


def test_a_replaced_engine_is_ended_and_the_new_one_asked(state):
    register()
    headrace.generate("standing", ["a"])
    register(model="stand-in-2", replace=True)
    assert not listed(state)
    headrace.generate("standing", ["a"])
    assert len(listed(state)) == 1


def test_a_file_registers_all_of_its_engines_or_none(tmp_path):
    file = tmp_path / "engines.yaml"
    file.write_text("engines:\n  a: {model: m}\n  b: {model: m, backend: max}\n")
    assert [each.name for each in headrace.load_engines(file)] == ["a", "b"]
    assert headrace.get_engine_config("b").backend == "max"
    file.write_text("c: {model: m}\nd: {model: m, port: no}\n")
    with pytest.raises(LLMInvalidRequestError, match=r"engines\.yaml:2: "):
        headrace.load_engines(file)
    with pytest.raises(LLMEngineNotFoundError):
        headrace.get_engine_config("c")
    with pytest.raises(LLMInvalidRequestError, match="cannot be read"):
        headrace.load_engines(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "use",
    [
        "headrace.generate('standing', ['a'])",
        "headrace.Engine('standing').generate(['a'])",
        "headrace.Client(engine='standing').chat('a')",
    ],
)
def test_an_engine_that_nobody_has_closed_is_ended_with_the_interpreter(use, state, tmp_path):
    program = textwrap.dedent(f"""
        import headrace
        headrace.register_engine(
            name="standing", model="stand-in-1", backend="command", command={command()!r}
        )
        {use}
    """)
    root = Path(headrace.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not listed(state)
