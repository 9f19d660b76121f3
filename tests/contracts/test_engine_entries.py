"""Engines are read alike from Python and both forms of YAML, and a mistake is told of where it is."""

from __future__ import annotations

import pytest

from headrace.contracts.engine_entries import engine_of, read_engines
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

LIST = """\
engines:
  - name: gpt4o
    backend: openai
    model: gpt-4.1-mini
    endpoint: https://api.openai.com/v1
    api_key_env: OPENAI_API_KEY
  - name: local
    model: mistralai/Mixtral-8x7B
    backend: vllm_api
    persistent: true
    port: 8001
    extra_serve_flags: [--enforce-eager, --max-num-seqs, 32]
    env: {OMP_NUM_THREADS: 2, CUDA_VISIBLE_DEVICES: "0,1"}
"""
MAPPING = """\
gpt4o:
  backend: openai
  model: gpt-4.1-mini
  endpoint: https://api.openai.com/v1
  api_key_env: OPENAI_API_KEY
local:
  model: mistralai/Mixtral-8x7B
  backend: vllm_api
  lazy: false
  port: 8001
  extra_serve_flags: [--enforce-eager, --max-num-seqs, "32"]
  extra_env: {OMP_NUM_THREADS: "2", CUDA_VISIBLE_DEVICES: "0,1"}
"""


def read(text):
    return read_engines(text, "engines.yaml", EngineConfig)


def test_both_forms_of_a_file_say_the_same():
    gpt4o, local = read(LIST)
    assert (gpt4o, local) == read(MAPPING)
    assert gpt4o.endpoint == "https://api.openai.com/v1"
    assert (local.lazy, local.port) == (False, 8001)
    assert local.extra_serve_flags == ("--enforce-eager", "--max-num-seqs", "32")
    assert local.extra_env == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0,1"}


def test_a_file_may_hold_the_list_alone():
    assert read("- {name: a, model: m}\n") == (EngineConfig(name="a", model="m"),)


def test_fields_given_in_python_are_read_as_those_of_a_file():
    said = engine_of({"name": "a", "model": "m", "persistent": True, "env": {"A": 1}})
    assert said == EngineConfig(name="a", model="m", lazy=False, extra_env={"A": "1"})


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "engines:\n  - name: a\n    model: m\n    port: eighty\n",
            4,
            "expected a whole number or null, got 'eighty' @ $.engines[0].port",
        ),
        ("a:\n  model: m\n  portt: 1\n", 3, "unknown field 'portt' @ $.a (nearest: 'port')"),
        ("- name: a\n- model: m\n", 1, "required field missing @ $[0].model"),
        ("- name: a\n  model: m\n  port: 0\n", 3, "port is 0; a whole number from 1 to 65535"),
        (
            "- name: a\n  model: m\n  gpu_memory_utilization: 90\n",
            3,
            "gpu_memory_utilization is 90.0; a number above 0, 1 at most,",
        ),
        ("- name: a\n  model: m\n  gpu_ids: [0, 0]\n", 3, "gpu_ids is (0, 0); "),
        ("- name: a\n  model: m\n  max_model_len: 0\n", 3, "max_model_len is 0; "),
        ("- name: a\n  model: m\n  startup_timeout_s: 0\n", 3, "startup_timeout_s is 0.0; "),
        (
            "- name: a\n  model: m\n  endpoint: there\n",
            3,
            "endpoint is 'there'; an address such as",
        ),
        (
            "- name: a\n  model: m\n  input_price_usd: -1\n  output_price_usd: 1\n",
            3,
            "input_price_usd is -1.0; a number from 0 on",
        ),
        (
            "- name: a\n  model: m\n  input_price_usd: 1\n",
            1,
            "output_price_usd is left out, and input_price_usd is given; both are needed",
        ),
        ("- name: a b\n  model: m\n", 1, "name is 'a b'; letters, digits"),
        ("- name: a\n  model: ''\n", 2, "model is ''; it must not be empty"),
        ("- name: a\n  model: m\n  lazy: 1\n", 3, "expected true or false, got 1"),
        (
            "- name: a\n  model: m\n  lazy: true\n  persistent: true\n",
            4,
            "persistent is true and lazy is true",
        ),
        ("- name: a\n  model: m\n  persistent: 1\n", 3, "persistent is 1, must be true or false"),
        (
            "- name: a\n  model: m\n  env: {}\n  extra_env: {}\n",
            3,
            "env is another name for extra_env, and both are given",
        ),
        ("- name: a\n  model: m\n  env: {A: true}\n", 3, "expected text, got true"),
        ("- name: a\n  model: m\n- name: a\n  model: n\n", 3, "there are two engines 'a'"),
        ("a:\n  name: b\n  model: m\n", 2, "name is 'b', and the engine stands under 'a'"),
        (
            "- name: a\n  model: m\n  endpoint: http://h/v1\n  dtype: auto\n",
            4,
            "dtype is given beside endpoint, where nothing is started",
        ),
        (
            "- name: a\n  model: m\n  api_key: k\n  api_key_env: K\n",
            4,
            "api_key_env is given beside api_key",
        ),
        ("- name: a\n  model: m\n  backend: command\n", 1, "command is empty; "),
        (
            "- name: a\n  model: m\n  command: [x]\n",
            3,
            "command is given, and backend is 'vllm_api'; it must be 'command' then",
        ),
        (
            "- name: a\n  model: m\n  enable_reasoning: false\n  reasoning_parser: x\n",
            4,
            "reasoning_parser is 'x', and enable_reasoning is false",
        ),
        (
            "- name: a\n  model: m\n  gpu_ids: [1]\n  tensor_parallel_size: 2\n",
            4,
            "tensor_parallel_size is 2, and gpu_ids names 1",
        ),
        ("engines: 3\n", 1, "engines are a list of mappings"),
    ],
)
def test_a_mistake_is_told_of_with_file_line_field_and_what_would_be_right(text, line, words):
    with pytest.raises(LLMInvalidRequestError) as wrong:
        read(text)
    assert str(wrong.value).startswith(f"engines.yaml:{line}: ")
    assert words in str(wrong.value)


def test_what_is_no_yaml_is_told_of_with_its_line():
    with pytest.raises(LLMInvalidRequestError, match=r"^engines\.yaml: not YAML: .* at line 2"):
        read("- name: a\n  model: ]\n")


def test_no_error_and_no_repr_shows_a_key_or_a_variables_value():
    said = EngineConfig(name="a", model="m", api_key="sk-1", extra_env={"TOKEN": "sk-2"})
    assert "sk-" not in repr(said)
    with pytest.raises(LLMInvalidRequestError) as wrong:
        engine_of(
            {"name": "a", "model": "m", "extra_env": {"TOKEN": ["sk-2"]}, "api_key": ["sk-1"]}
        )
    assert "sk-" not in str(wrong.value)
