"""Endpoint handlers: one object by two names, that answers here and there, and nothing made up."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import headrace
from gateway.far import far
from gateway.served import PATIENCE_S, environment, is_alive, until
from headrace import (
    EmbeddingResult,
    EngineConfig,
    LLMCapabilityError,
    LLMDelta,
    LLMEndpointNotFoundError,
    LLMInvalidRequestError,
    LLMMessage,
    LLMRequest,
    LLMResponse,
    endpoint_handler,
    register_endpoint,
    unregister_endpoint,
)
from headrace.backends.local.kinds import KINDS
from headrace.backends.local.openvino import is_installed
from headrace.client.handlers.running import running
from headrace.stores.models import BOX, EMBEDDER

CHAT, VECTORS = BOX.name, EMBEDDER.name
QUESTION = "What is the capital of France? Answer with one word."
SHORT = {"max_tokens": 8, "temperature": 0.0}


@pytest.fixture(scope="module")
def boxed(box_model) -> Iterator[None]:
    """Handlers start what they need; at the end of these tests it is ended."""
    with pytest.MonkeyPatch.context() as patch:
        # On a busy machine two threads of one engine wait for one another more than they compute.
        patch.setenv("HEADRACE_THREADS", "1")
        yield
        endpoint_handler.close()


@pytest.fixture
def mine() -> Iterator[list[tuple[str, str]]]:
    """What a test registers, to be taken back."""
    registered: list[tuple[str, str]] = []
    yield registered
    for model, type in registered:
        unregister_endpoint(model, type)


# One object.


def test_both_ways_lead_to_one_object():
    handler = endpoint_handler(CHAT, "cpu:0")
    assert handler is endpoint_handler[CHAT]["cpu:0"]
    assert handler is endpoint_handler()[CHAT]["cpu:0"]
    assert handler is endpoint_handler(CHAT)["CPU"]
    assert handler is endpoint_handler(model=CHAT, endpoint_type="CPU")
    assert callable(handler)
    assert (handler.model, handler.endpoint_type, handler.task) == (CHAT, "cpu:0", "chat")
    assert handler is not endpoint_handler(VECTORS, "cpu:0")
    assert (
        endpoint_handler("gpt-5-mini", "remote:openai")
        is endpoint_handler["gpt-5-mini"]["remote:openai"]
    )


def test_without_arguments_it_is_the_mapping():
    mapping = endpoint_handler()
    assert isinstance(mapping, Mapping)
    assert {CHAT, VECTORS} <= set(mapping)
    assert len(mapping) == len(list(mapping))
    assert CHAT in mapping
    assert "nobody's-model" not in mapping
    of_model = mapping[CHAT]
    assert isinstance(of_model, Mapping)
    assert ("openvino:CPU" in of_model) == is_installed()
    assert set(of_model) == {"cpu:0", "openvino:CPU"} if is_installed() else {"cpu:0"}
    assert "OpenVINO" in mapping[CHAT] or not is_installed()
    assert "cuda:0" not in of_model
    assert list(mapping[VECTORS]) == ["cpu:0"]


def test_the_mapping_is_to_be_read_only():
    with pytest.raises(TypeError):
        endpoint_handler()[CHAT] = {}
    with pytest.raises(TypeError):
        endpoint_handler[CHAT]["cpu:0"] = print
    with pytest.raises(TypeError):
        del endpoint_handler[CHAT]["cpu:0"]


def test_to_look_starts_nothing():
    assert repr(endpoint_handler[CHAT]["cpu:0"]) == f"<endpoint handler {CHAT} cpu:0>"
    script = """
        import sys, headrace
        headrace.endpoint_handler("smollm2-135m-instruct", "cpu:0")
        dict(headrace.endpoint_handler())
        heavy = {"torch", "openvino_genai", "xllamacpp", "numpy", "transformers", "onnxruntime"}
        print(sorted(heavy & set(sys.modules)))
    """
    assert run(script) == "[]"


# Real answers.


def test_it_answers_at_once_where_no_loop_runs(boxed):
    response = endpoint_handler(CHAT, "cpu:0")(QUESTION, **SHORT)
    assert isinstance(response, LLMResponse)
    assert "Paris" in response.text
    assert response.usage.completion_tokens > 0
    assert response.provenance.backend_name == CHAT
    assert response.provenance.base_url == f"cpu:0/{CHAT}"


def test_inside_a_loop_it_gives_what_can_be_awaited_and_the_loop_goes_on(boxed):
    async def main():
        handler, turns = endpoint_handler[CHAT]["CPU"], 0

        async def count():
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        counting = asyncio.create_task(count())
        answers = await asyncio.gather(*(handler(QUESTION, **SHORT) for _ in range(3)))
        counting.cancel()
        return answers, turns

    answers, turns = asyncio.run(main())
    assert all("Paris" in each.text for each in answers)
    assert turns > 1


def test_a_call_can_be_given_up(boxed):
    async def main():
        handler = endpoint_handler(CHAT, "cpu:0")
        endless = {"provider_options": {"ignore_eos": True}, "max_tokens": 4000}
        call = asyncio.ensure_future(handler("Tell a long story.", **endless))
        await asyncio.sleep(0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await handler(QUESTION, **SHORT)

    assert "Paris" in asyncio.run(main()).text


def test_from_many_threads(boxed):
    handler = endpoint_handler(CHAT, "cpu:0")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: handler(QUESTION, **SHORT).text, range(4)))
    assert all("Paris" in each for each in answers)


def test_what_a_chat_model_takes(boxed):
    handler = endpoint_handler(CHAT, "cpu:0")
    turn = {"role": "user", "content": QUESTION}
    message = LLMMessage(role="user", content=QUESTION)
    request = LLMRequest(messages=(message,), max_tokens=2, temperature=0.0)
    asked = [
        ((QUESTION,), {}),
        ((), {"text": QUESTION}),
        (([LLMMessage(role="user", content=QUESTION)],), {}),
        (([turn],), {}),
        ((), {"messages": (turn,)}),
        ((request,), None),
    ]
    usual = {"max_tokens": 2, "temperature": 0.0}
    texts = {
        handler(*given, **({} if more is None else {**usual, **more})).text for given, more in asked
    }
    assert len(texts) == 1
    assert texts != {""}


def test_a_whole_request_a_prompt_and_a_shape(boxed):
    handler = endpoint_handler(CHAT, "cpu:0")
    message = LLMMessage(role="user", content=QUESTION)
    request = LLMRequest(messages=(message,), max_tokens=8, temperature=0.0)
    assert "Paris" in handler(request).text
    with pytest.raises(LLMInvalidRequestError, match="beside a whole request"):
        handler(request, max_tokens=3)
    completed = handler(prompt="The capital of France is", max_tokens=4, temperature=0.0)
    assert "Paris" in completed.text
    shaped = handler("Name a number from 1 to 3.", output=list[int], max_tokens=16)
    assert all(isinstance(each, int) for each in shaped.output)


def test_an_embedding_model_takes_texts(boxed, embedding_model):
    handler = endpoint_handler(VECTORS, "CPU")
    assert handler.task == "embeddings"
    texts = ["a river", "a stream", "an invoice"]
    result = handler(texts)
    assert isinstance(result, EmbeddingResult)
    river, stream, invoice = result.vectors
    assert len(river) == EMBEDDER.dimensions
    assert dot(river, stream) > dot(river, invoice) + 0.2
    assert dot(handler("a river").vectors[0], river) == pytest.approx(1, abs=1e-3)
    assert len(handler(inputs=texts).vectors) == 3
    assert len(asyncio.run(awaited(handler, texts)).vectors) == 3


@pytest.mark.skipif(not is_installed(), reason="there are no wheels of OpenVINO for this machine")
def test_openvino_answers_by_itself_and_refuses_by_name(boxed):
    handler = endpoint_handler(CHAT, "OpenVINO")
    assert handler is endpoint_handler[CHAT]["openvino:CPU"]
    response = handler(QUESTION, **SHORT)
    assert "Paris" in response.text
    assert response.provider == "openvino"
    with pytest.raises(LLMCapabilityError, match="response_schema"):
        handler("A number.", response_schema={"type": "integer"})


def test_closed_it_starts_anew(boxed):
    handler = endpoint_handler(CHAT, "cpu:0")
    assert "Paris" in handler(QUESTION, **SHORT).text
    handler.close()
    assert "Paris" in handler(QUESTION, **SHORT).text
    handler.close()
    handler.close()


# What there is not.


@pytest.mark.parametrize("type", ["cuda:0", "CUDA"])
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a CUDA device")
def test_where_there_is_no_cuda_device_that_is_said_with_what_to_do(type):
    for look in (lambda: endpoint_handler(CHAT, type), lambda: endpoint_handler[CHAT][type]):
        with pytest.raises(LLMEndpointNotFoundError, match="no CUDA device") as caught:
            look()
        assert "cpu:0" in str(caught.value)
        assert isinstance(caught.value, KeyError)
    assert endpoint_handler[CHAT].get(type) is None


@pytest.mark.parametrize(
    ("model", "type", "words"),
    [
        ("smollm2-135m-instruckt", "cpu:0", f"did you mean '{CHAT}'"),
        ("smollm2-135m-instruckt", "cpu:0", VECTORS),
        (VECTORS, "openvino:CPU", "it has cpu:0"),
        (CHAT, "openvino:NPU", "openvino:CPU"),
        (CHAT, "cpu:1", "cpu:0"),
        (CHAT, "remote:opneai", "did you mean 'openai'"),
    ],
)
def test_what_is_unknown_raises_and_says_what_there_is(model, type, words):
    if "openvino:CPU" in words and not is_installed():
        pytest.skip("there are no wheels of OpenVINO for this machine")
    with pytest.raises(LLMEndpointNotFoundError, match=words):
        endpoint_handler(model, type)
    with pytest.raises(KeyError):
        endpoint_handler[model][type]


@pytest.mark.parametrize(
    "type", ["cpu", "openvino", "Openvino", "tpu:0", "remote:", "", "cuda:x", 3]
)
def test_what_is_no_type_is_refused_with_those_that_there_are(type):
    with pytest.raises(LLMInvalidRequestError, match=r"remote:<backend>") as caught:
        endpoint_handler(CHAT, type)
    assert caught.value.param == "endpoint_type"


def test_a_type_alone_says_nothing():
    with pytest.raises(LLMInvalidRequestError, match="no model is named"):
        endpoint_handler(endpoint_type="cpu:0")


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        ((), {}, "0 inputs are given"),
        (("a",), {"text": "b"}, "2 inputs are given"),
        ((7,), {}, "messages is a int"),
        (([],), {}, "messages is empty"),
        ((["one", "two"],), {}, r"messages\[0\] is a str"),
        (([{"role": "user"}],), {}, r"\$\.messages\[0\]\.content"),
        (("a",), {"max_token": 3}, "did you mean 'max_tokens'"),
        (("a",), {"stream": True}, "stream"),
    ],
)
def test_a_wrong_call_is_refused_by_name_in_a_loop_and_out_of_one(given, settings, words):
    handler = endpoint_handler(CHAT, "cpu:0")
    with pytest.raises(LLMInvalidRequestError, match=words):
        handler(*given, **settings)
    with pytest.raises(LLMInvalidRequestError, match=words):
        asyncio.run(awaited(handler, *given, **settings))


@pytest.mark.parametrize("given", [7, [], ["a", 3], [["a"]]])
def test_a_wrong_input_for_vectors_is_refused(given):
    with pytest.raises(LLMInvalidRequestError, match="inputs"):
        endpoint_handler(VECTORS, "cpu:0")(given)


# What is registered.


def test_a_callable_answers_as_it_is(mine):
    def shout(text: str, *, mark: str = "!") -> str:
        return text.upper() + mark

    handler = register_endpoint("shouter", "cpu:0", callable=shout)
    mine.append(("shouter", "cpu:0"))
    assert handler is endpoint_handler("shouter", "CPU") is endpoint_handler["shouter"]["cpu:0"]
    assert list(endpoint_handler["shouter"]) == ["cpu:0"]
    assert "shouter" in endpoint_handler
    assert handler("hi") == "HI!"
    assert asyncio.run(awaited(handler, "hi", mark="?")) == "HI?"


def test_an_asynchronous_callable_too(mine):
    async def later(text: str) -> str:
        await asyncio.sleep(0.01)
        return text[::-1]

    handler = register_endpoint("later", "cuda:0", callable=later)
    mine.append(("later", "cuda:0"))
    assert handler("abc") == "cba"
    assert asyncio.run(awaited(handler, "abc")) == "cba"


class Echo:
    """A Backend that says what it was asked."""

    name = "echo"
    closed = 0

    async def stream(self, request: LLMRequest, marks: Any) -> AsyncGenerator[LLMDelta, None]:
        marks.backend = self.name
        yield LLMDelta(text_delta=f"{request.model}: {request.messages[-1].content}")
        yield LLMDelta(finish_reason="stop")

    async def models(self) -> tuple[()]:
        return ()

    async def status(self) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed += 1


def test_a_backend_of_ones_own(mine):
    echo = Echo()
    handler = register_endpoint("echo", "openvino:GPU", backend=echo)
    assert handler("hi").text == "echo: hi"
    assert asyncio.run(awaited(handler, "there")).text == "echo: there"
    assert echo.closed == 0
    unregister_endpoint("echo", "openvino:GPU")
    assert echo.closed == 1
    with pytest.raises(LLMEndpointNotFoundError):
        endpoint_handler("echo", "openvino:GPU")
    with pytest.raises(LLMEndpointNotFoundError, match="was registered"):
        unregister_endpoint("echo", "openvino:GPU")


def test_a_provider_across_http_with_an_address_and_keys_of_its_own():
    with far("one") as (one,):
        handler = register_endpoint(
            "m",
            "remote:lab",
            base_url=f"{one.url}/v1",
            api_keys=["key-a-0123456789", "key-b-0123456789"],
            max_concurrent_requests=2,
        )
        try:
            texts = {handler("hi").text for _ in range(4)}
            assert texts == {"one m key-a-0123456789", "one m key-b-0123456789"}
            other = endpoint_handler("free", "remote:lab")
            assert asyncio.run(awaited(other, "hi")).text.startswith("one free key-")
            assert running().client().endpoints.stats("lab").requests == 5
            with pytest.raises(LLMInvalidRequestError, match="already"):
                register_endpoint("n", "remote:lab", base_url="http://127.0.0.1:1/v1")
        finally:
            unregister_endpoint("m", "remote:lab")
            running().client().endpoints.remove("lab")


def test_a_providers_row_is_enough_for_an_endpoint(monkeypatch):
    handler = endpoint_handler("text-embedding-3-small", "remote:openai")
    assert handler.task == "embeddings"
    assert endpoint_handler("gpt-5-mini", "remote:openai").task == "chat"


def test_a_model_file_of_ones_own(boxed, box_model, mine):
    handler = register_endpoint(str(box_model.path), "cpu:0")
    mine.append((str(box_model.path), "cpu:0"))
    answer = handler(QUESTION, **SHORT)
    assert answer.text
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"model": ""}, "model", "a name is needed"),
        ({"model": "nowhere.gguf"}, "endpoint_type", "neither a known name nor a file"),
        ({"task": "sing"}, "task", "chat or embeddings"),
        ({"callable": 3}, "callable", "can be called"),
        ({"backend": object()}, "backend", "a Backend"),
        ({"backend": Echo(), "task": "embeddings"}, "backend", "embed"),
        ({"engine": 3}, "engine", "EngineConfig"),
        ({"callable": print, "backend": Echo()}, "callable", "one of them answers"),
        ({"base_url": "http://x"}, "base_url", "across HTTP"),
        ({"type": "nowhere"}, "endpoint_type", "is none"),
        ({"model": VECTORS, "task": "chat"}, "task", "was made for embeddings"),
    ],
)
def test_a_wrong_entry_is_refused_when_it_is_registered(given, param, words):
    given = dict(given)
    model, type = given.pop("model", "wrong"), given.pop("type", "cpu:0")
    with pytest.raises(LLMInvalidRequestError, match=words) as caught:
        register_endpoint(model, type, **given)
    assert caught.value.param == param
    assert model not in endpoint_handler or model == VECTORS


def test_an_engine_that_is_not_registered_is_told():
    with pytest.raises(KeyError, match="no engine 'nowhere'"):
        register_endpoint("m", "cpu:0", engine="nowhere")


def test_an_engine_of_ours_that_somebody_else_runs(mine):
    with far("one") as (one,):
        config = EngineConfig(name="theirs", model="m", endpoint=f"{one.url}/v1")
        handler = register_endpoint("m", "cuda:0", engine=config)
        mine.append(("m", "cuda:0"))
        assert handler("hi").text.startswith("one m")
        handler.close()


def test_a_second_one_takes_the_place_only_where_that_is_said(mine):
    register_endpoint("twice", "cpu:0", callable=lambda _: 1)
    mine.append(("twice", "cpu:0"))
    with pytest.raises(LLMInvalidRequestError, match="replace=True"):
        register_endpoint("twice", "cpu:0", callable=lambda _: 2)
    assert endpoint_handler("twice", "cpu:0")("x") == 1
    second = register_endpoint("twice", "cpu:0", callable=lambda _: 2, replace=True)
    assert endpoint_handler["twice"]["cpu:0"] is second
    assert second("x") == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.engine}-{kind.family}")
def test_every_engine_in_the_table_can_be_loaded(kind):
    assert callable(kind.load())
    assert not kind.needs or kind.install


@pytest.mark.parametrize(
    ("architecture", "files", "package", "words"),
    [
        ("LlamaForCausalLM", ["model.safetensors"], "torch", r"pip install 'headrace\[torch\]'"),
        ("BertModel", ["model.onnx"], "onnxruntime", r"pip install 'headrace\[onnx\]'"),
    ],
)
def test_a_folder_of_a_model_is_an_engines_that_takes_it(
    tmp_path, architecture, files, package, words
):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    for name in files:
        (tmp_path / name).touch()
    folder = str(tmp_path)
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed here: make test-local has the handlers themselves")
    with pytest.raises(LLMEndpointNotFoundError, match=words):
        register_endpoint(folder, "cpu:0")
    with pytest.raises(LLMEndpointNotFoundError, match="no endpoint for"):
        endpoint_handler(folder, "cpu:0")


def test_a_model_file_for_embeddings_of_ones_own(boxed, embedding_model, mine):
    path = str(embedding_model.path)
    handler = register_endpoint(path, "cpu:0", task="embeddings")
    mine.append((path, "cpu:0"))
    assert len(handler("a river").vectors[0]) == EMBEDDER.dimensions


# Processes.


def test_a_forked_child_is_told_whose_engine_it_is_and_all_ends_with_the_process(box_model):
    script = """
        import os, sys, warnings, headrace
        from gateway.served import children
        warnings.simplefilter("ignore", DeprecationWarning)
        handler = headrace.endpoint_handler("smollm2-135m-instruct", "cpu:0")
        own = headrace.register_endpoint("own", "cpu:0", callable=str.upper)
        handler("hi", max_tokens=2)
        child = os.fork()
        if child == 0:
            try:
                handler("hi", max_tokens=2)
            except headrace.LLMUnavailableError as error:
                os._exit(0 if "forked" in str(error) and own("a") == "A" else 2)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert handler("hi", max_tokens=2).text is not None
        print(os.waitstatus_to_exitcode(status), *children(os.getpid()))
    """
    code, *pids = run(script).split()
    assert code == "0"
    assert pids
    until(lambda: not any(is_alive(int(pid)) for pid in pids))


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=Path(__file__).parent.parent,
        env={**environment(HEADRACE_THREADS="1"), "PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def awaited(handler: Any, *given: object, **settings: Any) -> Any:
    return await handler(*given, **settings)


def dot(a: Any, b: Any) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_the_names_are_there_from_the_top():
    assert headrace.endpoint_handler is endpoint_handler
