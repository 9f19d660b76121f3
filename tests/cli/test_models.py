"""``headrace models``: what is known of every provider's models, and what a server lists."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from backends.tiny_llama import write_tiny_llama
from gateway.served import MODEL, free_port, run_headrace

KEY = "sk-a-key-that-is-nobodys-000000"


@pytest.fixture
def home(tmp_path):
    """Variables of a user who has no keys anywhere."""
    (tmp_path / "home").mkdir()
    names = ("OPENAI_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY", "OPENROUTER_API_KEY")
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": "", **dict.fromkeys(names, "")}


def listed(*arguments, **variables):
    done = run_headrace("models", "--json", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def only(rows, **wanted):
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    return row


def test_a_known_model_is_told_with_its_context_abilities_and_prices(home):
    said = listed("--provider", "openai", **home)
    model = only(said["models"], model="gpt-4o-mini")
    assert model["provider"] == "openai"
    assert model["context_window"] == 128_000
    assert (model["tools"], model["json_mode"]) == ("native", "native")
    assert model["vision"] is True
    assert model["audio"] is False
    assert model["reasoning"] is False
    assert Decimal(model["usd_per_million_input"]) == Decimal("0.15")
    assert Decimal(model["usd_per_million_output"]) == Decimal("0.6")


def test_without_a_provider_there_are_all_of_them_and_the_models_in_the_box(home):
    said = listed(**home)
    assert {"box", "openai", "groq", "vllm", "llama-server"} <= {
        row["provider"] for row in said["providers"]
    }
    assert only(said["models"], provider="box", model=MODEL)["key"] == "not needed"
    assert only(said["models"], model="all-minilm-l6-v2")["embeddings"] is True
    counted = {row["provider"]: row["models"] for row in said["providers"]}
    for provider, count in counted.items():
        assert count == sum(model["provider"] == provider for model in said["models"])


def test_every_model_has_the_same_fields(home):
    forms = {tuple(model) for model in listed(**home)["models"]}
    assert len(forms) == 1


def test_a_key_is_told_as_present_with_its_place_and_never_shown(home):
    variables = {**home, "GROQ_API_KEY": KEY}
    said = run_headrace("models", "--provider", "groq", "--json", **variables).stdout
    (row,) = json.loads(said)["providers"]
    assert row["key"] == "present"
    assert row["key_source"] == "GROQ_API_KEY in the environment"
    assert KEY not in said
    table = run_headrace("models", **variables)
    assert "GROQ_API_KEY in the environment" in table.stdout
    assert KEY not in table.stdout + table.stderr


def test_a_missing_key_is_told_with_the_name_that_it_would_have(home):
    done = run_headrace("models", **home)
    assert done.returncode == 0, done.stderr
    assert "missing: MISTRAL_API_KEY" in done.stdout


def test_the_table_shows_models_that_can_be_called_and_any_that_are_asked_for(home):
    without = run_headrace("models", **home).stdout
    assert f"box/{MODEL}" in without
    assert "mistral/" not in without
    assert "mistral/" in run_headrace("models", "--provider", "mistral", **home).stdout
    assert "mistral/" in run_headrace("models", **{**home, "MISTRAL_API_KEY": KEY}).stdout


def test_a_piped_table_cuts_no_name_short(home):
    said = run_headrace("models", "--provider", "openrouter", **home).stdout
    names = {m["model"] for m in listed("--provider", "openrouter", **home)["models"]}
    assert names
    shown = {line.split()[0] for line in said.splitlines() if line.startswith("openrouter/")}
    assert shown == {f"openrouter/{name}" for name in names}


def test_an_unknown_provider_is_said_in_one_line_with_the_known_ones():
    done = run_headrace("models", "--provider", "grok")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "'grok'" in done.stderr
    assert "groq" in done.stderr


@pytest.mark.parametrize("tail", ["", "/", "/v1"])
def test_a_server_is_asked_what_it_lists(gateway, tail):
    said = listed("--url", gateway.url + tail)
    model = only(said["models"], model_id=MODEL)
    assert model["owned_by"] == "headrace"
    table = run_headrace("models", "--url", gateway.url + tail)
    assert MODEL in table.stdout


def test_a_server_that_is_not_there_is_said_in_one_line():
    done = run_headrace("models", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_providers_key_is_never_sent_to_a_server_of_another_name():
    done = run_headrace("models", "--provider", "openai", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "exclude" in done.stderr


def test_the_model_in_the_box_is_told_with_its_context_window(home, empty_cache):
    # Before it is fetched as well.
    said = listed("--provider", "box", **home, HEADRACE_CACHE=str(empty_cache))
    assert only(said["models"], model=MODEL)["context_window"] == 8192
    assert only(said["models"], model="all-minilm-l6-v2")["context_window"] == 256


def test_a_gateways_models_are_told_as_its_configuration_has_them(home, tmp_path):
    tiny = write_tiny_llama(tmp_path / "tiny.gguf")
    path = tmp_path / "headrace.yaml"
    path.write_text(
        f"engine: {{model: {tiny}, name: little}}\n"
        "embeddings: {enabled: false}\n"
        "providers: [{name: corp, like: openai, base_url: 'https://llm.corp.example/v1'}]\n"
        "backends:\n"
        "- {name: far, provider: openai, models: [gpt-4o-mini]}\n"
        "- {name: near, provider: corp, model: gpt-4o, models: [mine], api_key_env: CORP_KEY}\n"
        "- {name: plain, base_url: 'http://127.0.0.1:9/v1'}\n"
    )
    said = listed("--config", str(path), "--provider", "gateway", **home, CORP_KEY=KEY)
    told = {row["model"]: (row["context_window"], row["key"]) for row in said["models"]}
    assert told == {
        "little": (4096, "not needed"),
        "gpt-4o-mini": (128_000, "missing"),
        "mine": (128_000, "present"),
        "plain": (None, "not needed"),
    }
    table = run_headrace("models", **home, HEADRACE_CONFIG=str(path))
    assert "gateway/gpt-4o-mini" in table.stdout
    assert KEY not in table.stdout


def test_a_gateway_bounds_its_models_window(home, tmp_path):
    path = tmp_path / "headrace.yaml"
    path.write_text("inference: {context_length: 2048}")
    said = listed("--config", str(path), "--provider", "gateway", **home)
    assert only(said["models"], model=MODEL)["context_window"] == 2048


def test_a_gateways_models_need_its_configuration(home):
    done = run_headrace("models", "--provider", "gateway", **home)
    assert done.returncode == 1
    assert "--config" in done.stderr
