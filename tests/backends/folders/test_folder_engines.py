"""What may be said of an engine that takes a model's folder, without any of its packages."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from headrace.backends.local.folders.asked import check, sampling_of
from headrace.backends.local.folders.conversation import prompt_of
from headrace.backends.local.folders.engine import FolderEngine
from headrace.backends.local.folders.files import check_weights, context_tokens, ends_of
from headrace.backends.local.folders.rows import FOLDER_ENGINES, engine_for, model_of, name_of
from headrace.backends.managed.adapters import adapter_for
from headrace.backends.managed.launch import ProgramMissingError
from headrace.backends.managed.opening import check_engine, open_engine
from headrace.contracts.engine_entries import engine_of
from headrace.contracts.errors import (
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.contracts.messages import ImagePart, LLMMessage, TextPart, ToolCall, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.net.clock import World
from headrace.net.scripted import ScriptedTransport

TOOL = ToolSpec(name="look", description="Looks.", input_schema={"type": "object"})
HELLO = LLMMessage(role="user", content="Hi")


def entry(**fields):
    return engine_of({"name": "tiny", "backend": "transformers", "model": "/nowhere", **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"port": 8000}, "port is 8000"),
        ({"endpoint": "http://127.0.0.1:1/v1"}, "endpoint is"),
        ({"api_key": "sk-secret"}, "api_key is given"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size is 2"),
        ({"extra_serve_flags": ["--x"]}, "extra_serve_flags is"),
        ({"device": "tpu"}, "device is 'tpu'; cpu, cuda or cuda:0"),
        ({"dtype": "int4"}, "dtype is 'int4'; one of auto, bfloat16"),
        ({"task": "translate"}, "task is 'translate'; one of generate, embed, rerank"),
        ({"slots": 0}, "slots is 0"),
        ({"backend": "onnx", "attention": "eager"}, "onnx has no such setting"),
        ({"backend": "onnx", "trust_remote_code": True}, "onnx has no such setting"),
        ({"backend": "llama-server", "device": "cpu"}, "device"),
        ({"backend": "transformer"}, "did you mean 'transformers'"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_carried_out_is_refused_by_its_name(fields, said):
    def take():
        config = entry(**fields)
        check_engine(config)
        adapter_for(config.backend).launch(config, "127.0.0.1", 1)

    with pytest.raises(LLMInvalidRequestError) as refused:
        take()
    assert said in str(refused.value)
    assert "sk-secret" not in str(refused.value)


def test_the_model_is_a_folder_here_or_a_name_of_the_hub(tmp_path):
    assert model_of(entry(model=str(tmp_path))) == str(tmp_path)
    assert model_of(entry(model="owner/some-model.v1")) == "owner/some-model.v1"
    file = tmp_path / "model.gguf"
    file.touch()
    for wrong in (str(file), "/nowhere", "../x/y", "a/b/c", "plain"):
        with pytest.raises(LLMInvalidRequestError, match="model is"):
            model_of(entry(model=wrong))


def test_a_folder_says_which_engine_takes_it_and_what_it_is_called(tmp_path):
    folder = tmp_path / "My model (v1)"
    (folder / "onnx").mkdir(parents=True)
    assert name_of(folder) == "My-model-v1"
    assert engine_for(folder).name == "transformers"
    (folder / "onnx/model.onnx").touch()
    assert engine_for(folder).name == "onnx"
    (folder / "model.safetensors").touch()
    assert engine_for(folder).name == "transformers"


def test_weights_that_can_bring_a_program_along_are_refused_by_name(tmp_path):
    with pytest.raises(LLMInvalidRequestError, match="no weights"):
        check_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(LLMInvalidRequestError, match=r"pytorch_model\.bin.*safetensors"):
        check_weights(tmp_path)
    (tmp_path / "model.safetensors").touch()
    check_weights(tmp_path)


def test_lengths_and_ends_are_those_of_the_models_files(tmp_path):
    def write(name, **said):
        (tmp_path / f"{name}.json").write_text(json.dumps(said))

    write("config", max_position_embeddings=2048, eos_token_id=7)
    assert (context_tokens(tmp_path, None), ends_of(tmp_path)) == (2048, {7})
    write("tokenizer_config", model_max_length=int(1e30))
    write("generation_config", eos_token_id=[7, 9])
    assert (context_tokens(tmp_path, 100), ends_of(tmp_path)) == (100, {7, 9})
    write("tokenizer_config", model_max_length=512)
    assert context_tokens(tmp_path, None) == 512
    write("config", model_type="xlm-roberta", max_position_embeddings=514, pad_token_id=1)
    write("tokenizer_config")
    assert context_tokens(tmp_path, None) == 512
    write("config", model_type="gemma3", text_config={"max_position_embeddings": 99})
    assert context_tokens(tmp_path, None) == 99


@pytest.mark.parametrize("backend", FOLDER_ENGINES)
def test_where_its_packages_are_missing_it_says_what_to_install(backend, tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.backends.local.folders.rows.find_spec", lambda package: None)
    engine = open_engine(
        entry(backend=backend, model=str(tmp_path)), World(transport=ScriptedTransport([]))
    )
    assert isinstance(engine, FolderEngine)
    extra = FOLDER_ENGINES[backend].extra

    async def use():
        assert (await engine.status()).ok
        with pytest.raises(ProgramMissingError, match=rf"headrace\[{extra}\]"):
            await engine.ensure_running()
        with pytest.raises(LLMUnavailableError, match="pip install") as failed:
            async for _ in engine.stream(LLMRequest(messages=(HELLO,)), Marks()):
                pass
        assert not failed.value.transient
        assert not (await engine.status()).ok
        assert engine.snapshot().state == "failed"
        await engine.aclose()

    asyncio.run(use())


def test_a_folder_that_is_none_fails_for_good_and_says_why(tmp_path):
    """The real child, as far as it comes without any package."""
    (tmp_path / "config.json").write_text('{"architectures": ["SomethingElse"]}')
    config = entry(model=str(tmp_path), program=sys.executable)
    engine = open_engine(config, World(transport=ScriptedTransport([])))

    async def use():
        with pytest.raises(LLMUnavailableError, match="SomethingElse") as failed:
            await engine.ensure_running()
        assert not failed.value.transient
        await engine.aclose()

    asyncio.run(use())


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"tools": (TOOL,)}, "tools"),
        ({"tools": (TOOL,), "tool_choice": "auto"}, "tools"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"logit_bias": {"the": 1.0}}, "logit_bias"),
        ({"provider_options": {"ignore_eos": 1}}, "ignore_eos"),
        ({"provider_options": {"grammar": 'root ::= "a"'}}, "grammar"),
    ],
    ids=str,
)
def test_what_it_cannot_carry_out_of_a_request_is_refused_by_its_name(settings, param):
    request = LLMRequest(messages=(HELLO,), **settings)
    with pytest.raises(LLMInvalidRequestError) as refused:
        check(request, "tiny", 16)
    assert refused.value.param == param
    assert param in str(refused.value)


def test_what_it_can_is_said_to_the_child():
    settings = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3}
    request = LLMRequest(
        messages=(HELLO,),
        tools=(TOOL,),
        tool_choice=NamedTool(name="look"),
        logit_bias={"5": -100.0},
        logprobs=True,
        top_logprobs=2,
        repetition_penalty=1.1,
        **settings,
    )
    check(request, "tiny", 16)
    said = sampling_of(request)
    assert {name: getattr(said, name) for name in settings} == settings
    assert (said.logit_bias, said.alternatives, said.repetition_penalty) == ({5: -100.0}, 2, 1.1)
    plain = sampling_of(LLMRequest(messages=(HELLO,), top_k=-1, seed=-1))
    assert (plain.top_k, plain.seed, plain.alternatives) == (0, None, -1)


def test_a_conversation_is_put_in_the_words_of_templates():
    call = ToolCall(name="look", arguments_json='{"at": "sea"}', call_id="c1")
    turns = (
        LLMMessage(role="user", content=(TextPart(text="a"), TextPart(text="b"))),
        LLMMessage(role="assistant", content="", tool_calls=(call,), reasoning="hm"),
        LLMMessage(role="tool", content="blue", tool_call_id="c1", tool_name="look"),
    )
    prompt = prompt_of(
        LLMRequest(
            messages=turns,
            tools=(TOOL,),
            provider_options={"chat_template_kwargs": {"enable_thinking": False}},
        )
    )
    user, assistant, tool = prompt.messages
    assert user == {"role": "user", "content": "ab"}
    assert assistant["tool_calls"][0]["function"] == {"name": "look", "arguments": {"at": "sea"}}
    assert assistant["reasoning_content"] == "hm"
    assert (tool["tool_call_id"], tool["name"]) == ("c1", "look")
    assert prompt.tools[0]["function"]["name"] == "look"
    assert (prompt.more, prompt.continues) == ({"enable_thinking": False}, False)
    none = prompt_of(LLMRequest(messages=turns, tools=(TOOL,), tool_choice="none"))
    assert none.tools is None
    begun = LLMMessage(role="assistant", content="It is")
    assert prompt_of(LLMRequest(messages=(HELLO, begun))).continues


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (LLMMessage(role="user", content=(ImagePart(url="data:,"),)), r"part of the kind 'image'"),
        (
            LLMMessage(
                role="assistant",
                content="",
                tool_calls=(ToolCall(name="f", arguments_json="{", call_id="c"),),
            ),
            "arguments is no JSON",
        ),
    ],
)
def test_a_message_that_no_template_has_a_place_for_is_refused(message, said):
    with pytest.raises(LLMInvalidRequestError, match=said):
        prompt_of(LLMRequest(messages=(message,)))


def test_template_variables_are_an_object():
    options = {"chat_template_kwargs": [1]}
    with pytest.raises(LLMInvalidRequestError, match="must be an object"):
        prompt_of(LLMRequest(messages=(HELLO,), provider_options=options))
