"""The same promises for every provider's row: where it is asked, with which key, and for what."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields

from formats import stream_headers, streamed
from headrace.backends import providers as table
from headrace.backends.providers import (
    PROVIDERS,
    Provider,
    Structured,
    provider,
    read_providers,
    register_provider,
    split_model,
    usual_base_url,
)
from headrace.backends.remote import Remote
from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.messages import LLMMessage, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse
from headrace.net.clock import World
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport
from headrace.net.transport import HttpRequest
from headrace.stores.secret import Secret
from headrace.wire.assemble import assemble

KEY = "a-key-of-nobody-0123456789"
ASK = LLMRequest(messages=(LLMMessage(role="user", content="hello"),), model="some/model")
# A value of each setting that asks for something.
SETTINGS: dict[str, Any] = {
    "temperature": 0.5,
    "max_tokens": 7,
    "tools": (ToolSpec(name="look"),),
    "response_schema": {"type": "object"},
    "response_format": {"type": "json_object"},
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 1,
    "stop": ("x",),
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "logit_bias": {"1": 1.0},
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "reasoning_effort": "low",
    "user": "someone",
    "suffix": "x",
    "echo": True,
}
HIDDEN = {"suffix", "echo"}  # those of text completions
SILENT: dict[str, Any] = {
    "n": 1,
    "logprobs": False,
    "top_k": -1,
    "min_p": 0.0,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": {},
    "tool_choice": "auto",
}

CHATS = [row for row in PROVIDERS.values() if row.chat_path is not None]
every_row = pytest.mark.parametrize("row", CHATS, ids=lambda row: row.name)
hosted_rows = pytest.mark.parametrize(
    "row",
    [row for row in PROVIDERS.values() if row.needs_key],
    ids=[row.name for row in PROVIDERS.values() if row.needs_key],
)


def ask(
    row: Provider,
    request: LLMRequest = ASK,
    *,
    key: str | None = KEY,
    answer: ScriptedAnswer | None = None,
) -> tuple[LLMResponse, HttpRequest, dict[str, Any], Marks]:
    """The answer, the request that went out, its body, and the marks."""

    form = "openai" if request.prompt and row.format.startswith("openai") else row.format
    body = b"".join(streamed(form, "Hi"))
    script = answer or ScriptedAnswer(body=body, headers=stream_headers(form))

    async def main() -> tuple[LLMResponse, HttpRequest, dict[str, Any], Marks]:
        transport = ScriptedTransport([script])
        remote = Remote(
            name="there",
            provider=row,
            base_url=row.base_url or "https://nowhere.example",
            world=World(transport=transport, clock=transport.clock),
            key=key,  # type: ignore[arg-type]
        )
        marks = Marks()
        response = assemble([delta async for delta in remote.stream(request, marks)])
        sent = transport.requests[0]
        assert isinstance(sent.body, bytes)
        return response, sent, json.loads(sent.body), marks

    return asyncio.run(main())


def headers(sent: HttpRequest) -> dict[str, str]:
    return dict(sent.headers)


@every_row
def test_an_answer_is_read_with_its_usage(row):
    response, _, _, marks = ask(row)
    assert (response.text, response.finish_reason) == ("Hi", "stop")
    assert response.usage is not None
    assert response.usage.prompt_tokens == 3  # type: ignore[union-attr]
    assert marks.provider == row.name
    assert marks.dropped == []


@every_row
def test_the_request_goes_where_the_row_says(row):
    _, sent, body, _ = ask(row)
    assert sent.method == "POST"
    path, _, query = (row.stream_path or row.chat_path).partition("?")
    last = path.rpartition("/")[2]
    assert sent.url.target.partition("?")[0].endswith(f"/{last}".replace("{model}", "some%2Fmodel"))
    assert query in sent.url.target
    if "{model}" in last:
        # Both stand in the address.
        assert not {"model", "stream"} & body.keys()
        return
    assert last in ("completions", "messages", "responses", "chat") or row.format == "opea"
    assert body["model"] == "some/model"
    assert body["stream"] is True


@every_row
def test_the_key_is_shown_in_the_rows_header_and_nowhere_else(row):
    _, sent, _, _ = ask(row)
    shown = [name for name, value in sent.headers if KEY in value]
    assert shown == [row.key_header]
    assert headers(sent)[row.key_header] == f"{row.key_scheme}{KEY}"
    assert KEY not in sent.url.target
    assert KEY.encode() not in sent.body
    assert KEY not in repr(sent)


@every_row
def test_without_a_key_none_is_shown(row):
    _, sent, _, _ = ask(row, key=None)
    assert row.key_header not in headers(sent)


@every_row
@pytest.mark.parametrize("own", ["a-key-for-this-call", Secret("a-key-for-this-call")])
def test_a_key_in_the_metadata_takes_its_place_for_that_call(row, own):
    _, sent, body, _ = ask(row, evolve(ASK, metadata={"api_key": own}))
    assert headers(sent)[row.key_header].endswith("a-key-for-this-call")
    assert "a-key-for-this-call" not in json.dumps(body)


@every_row
def test_usage_of_a_stream_is_asked_for_only_where_that_is_understood(row):
    _, _, body, _ = ask(row)
    assert ("stream_options" in body) is row.stream_usage


@every_row
@pytest.mark.parametrize("setting", sorted(SETTINGS.keys() - HIDDEN))
def test_a_setting_is_sent_refused_by_name_or_listed_as_dropped(row, setting):
    if setting in row.unsupported:
        with pytest.raises(LLMCapabilityError) as caught:
            ask(row, evolve(ASK, **{setting: SETTINGS[setting]}))
        assert caught.value.param == setting
        assert repr(setting) in str(caught.value)
        assert caught.value.provider == row.name
        return
    # Alternatives are of log probabilities that are asked for.
    plain = evolve(ASK, logprobs=True) if setting == "top_logprobs" else ASK
    _, _, body, marks = ask(row, evolve(plain, **{setting: SETTINGS[setting]}))
    assert marks.dropped == ([setting] if setting in row.ignored else [])
    assert (body != ask(row, plain)[2]) is (setting not in row.ignored)


@every_row
@pytest.mark.parametrize("setting", sorted(SILENT))
def test_a_value_that_asks_for_nothing_is_no_reason_to_refuse(row, setting):
    _, _, body, marks = ask(row, evolve(ASK, **{setting: SILENT[setting]}))
    assert marks.dropped == []
    if setting in row.unsupported:
        assert setting not in body


@every_row
def test_an_unsupported_setting_among_the_options_is_refused_all_the_same(row):
    for setting in sorted(row.unsupported & SETTINGS.keys()):
        with pytest.raises(LLMCapabilityError):
            ask(row, evolve(ASK, provider_options={setting: SETTINGS[setting]}))


@every_row
def test_a_body_has_one_limit_of_tokens_by_the_rows_name(row):
    _, _, body, _ = ask(row, evolve(ASK, max_tokens=7))
    if row.format == "ollama":
        assert body["options"] == {"num_predict": 7}
        return
    if row.format == "gemini":
        assert body.pop("generationConfig") == {"maxOutputTokens": 7}
        assert body.keys() == {"contents"}
        return
    assert body[row.dialect.max_tokens] == 7
    assert len({"max_tokens", "max_completion_tokens", "max_output_tokens"} & body.keys()) == 1


@every_row
def test_text_completions_are_refused_where_there_are_none(row):
    request = LLMRequest(messages=(), prompt="Once", model="m")
    if row.completions_path is not None:
        _, sent, body, _ = ask(row, request)
        last = row.completions_path.rpartition("/")[2]
        assert sent.url.target.partition("?")[0].endswith(f"/{last}")
        assert last in ("completions", "generate")
        assert body["prompt"] == "Once"
        return
    with pytest.raises(LLMCapabilityError, match="no text completions"):
        ask(row, request)


def test_a_chat_is_refused_where_there_are_none():
    with pytest.raises(LLMCapabilityError, match="answers no chats"):
        ask(PROVIDERS["tei"], ASK)


@every_row
def test_an_error_that_repeats_the_key_does_not_reach_the_caller_with_it(row):
    refusal = {"error": {"message": f"wrong key {KEY}", "type": "invalid_request_error"}}
    answer = ScriptedAnswer(status=401, body=json.dumps(refusal).encode())
    with pytest.raises(LLMError) as caught:
        ask(row, answer=answer)
    said = f"{caught.value!r} {caught.value} {caught.value.provider_message}"
    assert "wrong key" in said
    assert KEY not in said


@every_row
def test_a_row_survives_being_written_and_read(row):
    assert from_plain(to_plain(row), Provider) == row


@hosted_rows
def test_a_hosted_row_names_its_key_and_goes_over_tls(row):
    assert row.key_env
    assert row.base_url is None or row.base_url.startswith("https://")


@every_row
def test_a_row_of_ones_own_server_is_on_this_machine(row):
    if row.base_url is not None and not row.needs_key:
        assert row.base_url.startswith("http://127.0.0.1:")


def test_every_setting_of_a_request_is_looked_at_here():
    no_settings = {"messages", "prompt", "model", "metadata", "provider_options", "request_id"}
    settings = {each.name for each in fields(LLMRequest)} - no_settings
    of_ours = {"priority", "task_profile", "response_mode", "response_instruction"}
    assert settings - of_ours == SETTINGS.keys()


def test_the_rows_name_only_settings_and_fields_that_there_are():
    for row in PROVIDERS.values():
        assert row.unsupported - {"best_of"} <= SETTINGS.keys(), row.name


def test_a_row_in_yaml_says_how_it_is_asked_for_objects():
    (row,) = read_providers(
        "- name: corp\n  like: vllm\n  structured: {modes: [tool, json], models: ['big-*']}\n"
    )
    assert row.structured == Structured(modes=("tool", "json"), models=("big-*",))
    with pytest.raises(LLMInvalidRequestError, match="xml"):
        read_providers("- name: corp\n  structured: {modes: [xml]}\n")


@pytest.mark.parametrize(
    "name",
    [
        *("openai", "azure", "groq", "mistral", "deepseek", "openrouter", "together", "fireworks"),
        *("xai", "vllm", "sglang", "max", "lmstudio", "llama-server", "anthropic"),
        *("openai-responses", "ollama", "ollama-openai"),
    ],
)
def test_there_is_a_row_for(name):
    assert provider(name).name == name


@every_row
def test_the_page_on_providers_names_the_row_and_its_variables(row):
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    (line,) = [each for each in page.splitlines() if each.startswith(f"| `{row.name}` |")]
    for variable in (*row.key_env, *row.base_url_env):
        assert f"`{variable}`" in line


def test_azures_model_stands_in_the_path_and_its_version_in_the_query():
    row = PROVIDERS["azure"]
    _, sent, _, _ = ask(row, evolve(ASK, model="my gpt/4"))
    assert sent.url.target == (
        "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21"
    )
    with pytest.raises(LLMInvalidRequestError, match="needs a model"):
        ask(row, evolve(ASK, model=None))


def test_mistral_knows_a_seed_by_another_name():
    _, _, body, _ = ask(PROVIDERS["mistral"], evolve(ASK, seed=3))
    assert body["random_seed"] == 3
    assert "seed" not in body


@pytest.mark.parametrize(("top", "count"), [(None, 1), (4, 4)])
def test_together_is_told_how_many_alternatives(top, count):
    _, _, body, _ = ask(PROVIDERS["together"], evolve(ASK, logprobs=True, top_logprobs=top))
    assert body["logprobs"] == count
    assert "top_logprobs" not in body


def test_openrouter_is_told_to_refuse_what_it_would_leave_out():
    row = PROVIDERS["openrouter"]
    assert ask(row)[2]["provider"] == {"require_parameters": True}
    order = {"provider": {"order": ["Groq"]}}
    _, _, body, _ = ask(row, evolve(ASK, provider_options=order))
    assert body["provider"] == {"require_parameters": True, "order": ["Groq"]}
    loose = {"provider": {"require_parameters": False}}
    _, _, body, _ = ask(row, evolve(ASK, provider_options=loose))
    assert body["provider"] == {"require_parameters": False}


@pytest.mark.parametrize(
    ("name", "row", "model"),
    [
        ("groq/llama-3.1-8b-instant", "groq", "llama-3.1-8b-instant"),
        ("openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("vllm/meta-llama/Llama-3.1-8B", "vllm", "meta-llama/Llama-3.1-8B"),
        ("llama-server/x", "llama-server", "x"),
    ],
)
def test_a_name_says_provider_and_model(name, row, model):
    found, its = split_model(name)
    assert (found.name, its) == (row, model)


def test_the_default_takes_a_name_without_a_provider():
    found, model = split_model("meta-llama/Llama-3.1-8B", default="together")
    assert (found.name, model) == ("together", "meta-llama/Llama-3.1-8B")


@pytest.mark.parametrize("name", ["gpt-4o", "grok/grok-4", "/x", ""])
def test_a_name_without_a_known_provider_is_refused_with_the_known_ones(name):
    with pytest.raises(
        LLMInvalidRequestError, match=r"azure, .*deepseek, .*fireworks, .*groq"
    ) as caught:
        split_model(name)
    assert repr(name) in str(caught.value)


def test_a_provider_without_a_model_is_refused():
    with pytest.raises(LLMInvalidRequestError, match="expected groq/<model>"):
        split_model("groq/")


@pytest.fixture
def clean_table():
    kept, asked = dict(PROVIDERS), table._asked_installed
    yield
    PROVIDERS.clear()
    PROVIDERS.update(kept)
    table._asked_installed = asked


@pytest.mark.usefixtures("clean_table")
def test_three_lines_of_yaml_are_a_provider():
    (row,) = read_providers(
        "- name: corp\n  base_url: https://llm.corp.example/v1/\n  key_env: [CORP_LLM_KEY]\n"
    )
    register_provider(row)
    found, model = split_model("corp/big")
    _, sent, body, _ = ask(found, evolve(ASK, model=model))
    assert (sent.url.host, sent.url.target) == ("llm.corp.example", "/v1/chat/completions")
    assert body["model"] == "big"


@pytest.mark.usefixtures("clean_table")
def test_a_row_in_yaml_may_be_like_another():
    (row,) = read_providers(
        "- name: azure-sweden\n  like: azure\n  base_url: https://x.openai.azure.com\n"
        "  query: {api-version: 2025-04-01}\n  unsupported: [top_k]\n"
    )
    assert row == evolve(
        PROVIDERS["azure"],
        name="azure-sweden",
        base_url="https://x.openai.azure.com",
        query={"api-version": "2025-04-01"},
        unsupported=frozenset({"top_k"}),
    )


def test_a_row_in_yaml_may_be_like_one_further_up():
    first, second = read_providers(
        "- name: corp\n  base_url: https://corp.example/v1\n  unsupported: [top_k]\n"
        "- name: corp-eu\n  like: corp\n  base_url: https://eu.corp.example/v1\n"
    )
    assert second == evolve(first, name="corp-eu", base_url="https://eu.corp.example/v1")


def test_a_header_in_a_wrong_row_is_not_shown():
    with pytest.raises(LLMInvalidRequestError, match=r"\$\[0\]\.headers") as caught:
        read_providers("- name: corp\n  headers: {x-api-key: 90210}")
    assert "90210" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: corp", "a list of mappings"),
        ("- name: corp\n  base-url: x", r"unknown field 'base-url' @ \$\[0\] .*'base_url'"),
        ("- base_url: https://x", "required field missing"),
        ("- name: corp\n  key_env: KEY", "expected a list, got 'KEY'"),
        ("- name: corp\n  unsupported: top_k", "expected a list, got 'top_k'"),
        ("- name: Corp/x", "no provider's name"),
        ("- name: corp\n  format: soap", "unknown format 'soap'; known: anthropic, .*openai"),
        ("- name: corp\n  chat_path: chat", "must begin with '/'"),
        (
            "- name: corp\n  like: grok",
            r"unknown provider 'grok'; known: anthropic, azure.* @ \$\[0\]\.like",
        ),
        ("- name: corp\n- name: corp", r"two providers 'corp'.* @ \$\[1\]\.name"),
        ("- name: 5", r"expected text, got 5 @ \$\[0\]\.name"),
        ("- like: groq", r"required field missing @ \$\[0\]\.name"),
    ],
)
def test_a_wrong_row_says_what_would_be_right(text, words):
    with pytest.raises(LLMInvalidRequestError, match=words):
        read_providers(text)


@pytest.mark.usefixtures("clean_table")
def test_a_name_is_taken_once_unless_it_is_to_be_replaced():
    row = Provider(name="groq", base_url="https://elsewhere.example")
    with pytest.raises(LLMInvalidRequestError, match="'groq' already"):
        register_provider(row)
    register_provider(row, replace=True)
    assert provider("groq") is row


PLUGIN = """
from headrace.backends.providers import Provider

one = Provider(name="plugged", base_url="https://plugged.example/v1")

def several():
    return [Provider(name="first"), Provider(name="groq", base_url="https://not.groq.example")]

def broken():
    raise RuntimeError("no such thing")

def odd():
    return ["a text"]
"""


@pytest.mark.usefixtures("clean_table")
def test_an_installed_package_offers_rows_and_a_broken_one_does_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "their_plugin.py").write_text(PLUGIN)
    info = tmp_path / "their_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    names = "\n".join(
        f"{name} = their_plugin:{name}" for name in ("one", "several", "broken", "odd")
    )
    (info / "entry_points.txt").write_text(f"[headrace.providers]\n{names}\n")
    monkeypatch.syspath_prepend(tmp_path)
    table._asked_installed = False
    assert split_model("plugged/x")[0].base_url == "https://plugged.example/v1"
    assert provider("first").name == "first"
    assert provider("groq").base_url == "https://api.groq.com/openai/v1"
    assert "their-plugin left out: RuntimeError('no such thing')" in caplog.text
    assert "expected a Provider" in caplog.text
    sys.modules.pop("their_plugin")


def test_the_environment_may_say_where_a_server_is():
    row = PROVIDERS["vllm"]
    assert usual_base_url(row, {"VLLM_BASE_URL": "http://gpu:9000/v1/"}) == "http://gpu:9000/v1"
    assert usual_base_url(row, {"VLLM_BASE_URL": " "}) == "http://127.0.0.1:8000/v1"
    assert usual_base_url(PROVIDERS["azure"], {}) is None


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("gpu", "http://gpu:11434"),
        ("gpu:9000", "http://gpu:9000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":9000", "http://127.0.0.1:9000"),
        ("[::]:9000", "http://127.0.0.1:9000"),
        ("[fd00::1]", "http://[fd00::1]:11434"),
        ("https://ollama.example/", "https://ollama.example"),
        ("http://gpu:9000/behind", "http://gpu:9000/behind"),
    ],
)
def test_ollamas_own_variable_may_name_a_host_alone(said, place):
    assert usual_base_url(PROVIDERS["ollama"], {"OLLAMA_HOST": said}) == place


def test_a_variable_that_names_no_port_says_which_it_is():
    with pytest.raises(LLMInvalidRequestError, match=r"OLLAMA_HOST is 'gpu:x'.*host:port"):
        usual_base_url(PROVIDERS["ollama"], {"OLLAMA_HOST": "gpu:x"})


def test_ollama_is_asked_at_its_root_whichever_base_is_named():
    for base in ("http://gpu:11434", "http://gpu:11434/v1"):
        _, sent, _, _ = ask(evolve(PROVIDERS["ollama"], base_url=base))
        assert (sent.url.port, sent.url.target) == (11434, "/api/chat")


def test_the_key_is_not_in_the_backends_text():
    world = World(transport=ScriptedTransport([]))
    remote = Remote(
        name="there",
        provider=PROVIDERS["groq"],
        base_url="https://x",
        world=world,
        key=KEY,  # type: ignore[arg-type]
    )
    assert KEY not in repr(remote)


def test_a_row_is_the_same_text_in_every_process_and_shows_no_header():
    program = (
        "from attrs import evolve\n"
        "from headrace.backends.providers import PROVIDERS\n"
        f"print(evolve(PROVIDERS['groq'], headers={{'x-team-key': {KEY!r}}}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert KEY not in said.pop()


def test_a_key_in_the_metadata_that_is_no_text_is_refused():
    with pytest.raises(LLMInvalidRequestError, match=r"metadata\.api_key is a int"):
        ask(PROVIDERS["groq"], evolve(ASK, metadata={"api_key": 3}))
