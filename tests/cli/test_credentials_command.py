"""``headrace credentials``: a template for keys, and which are found where."""

from __future__ import annotations

import json
import stat

import pytest

from gateway.served import run_headrace
from headrace.backends.providers import PROVIDERS
from headrace.stores.credentials import OTHER_KEYS, template

KEY = "sk-a-key-that-is-nobodys-000000"
NAMES = {
    *(name for row in PROVIDERS.values() for name in row.key_env),
    *(name for names in OTHER_KEYS.values() for name in names),
}


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def run(home):
    """Runs the command for a user who has keys only where a test puts them."""
    nobody = {"HOME": str(home), "XDG_CONFIG_HOME": "", **dict.fromkeys(NAMES, "")}

    def run(*arguments, **variables):
        return run_headrace("credentials", *arguments, **{**nobody, **variables})

    return run


def keys(done):
    assert done.returncode == 0, done.stderr
    return {each["provider"]: each for each in json.loads(done.stdout)["keys"]}


def test_the_template_is_written_for_its_owner_alone(home, run):
    done = run("template")
    path = home / ".ipfs_api_credentials"
    assert done.returncode == 0
    assert str(path) in done.stdout
    assert path.read_text() == template()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_template_goes_where_it_is_told(tmp_path, run):
    path = tmp_path / "of" / "mine"
    assert run("template", str(path)).returncode == 0
    assert path.read_text() == template()


def test_a_file_with_keys_is_not_overwritten(home, run):
    path = home / ".ipfs_api_credentials"
    path.write_text(f"OPENAI_API_KEY={KEY}\n")
    done = run("template")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "there already" in line
    assert str(path) in line
    assert path.read_text() == f"OPENAI_API_KEY={KEY}\n"


def test_a_template_that_cannot_be_written_is_one_line(tmp_path, run):
    (tmp_path / "file").touch()
    done = run("template", str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_what_is_filled_in_is_found_and_masked(home, run):
    run("template")
    path = home / ".ipfs_api_credentials"
    path.write_text(path.read_text().replace("GROQ_API_KEY=", f"GROQ_API_KEY={KEY}"))
    done = run("list", "--json", OPENAI_API_KEY=KEY)
    found = keys(done)
    assert (found["groq"]["name"], found["groq"]["source"]) == ("GROQ_API_KEY", str(path))
    assert (found["openai"]["name"], found["openai"]["source"]) == (
        "OPENAI_API_KEY",
        "the environment",
    )
    assert found["groq"]["key"] == found["openai"]["key"] == "***"
    assert (found["mistral"]["source"], found["mistral"]["key"]) == (None, None)
    shown = run("list", OPENAI_API_KEY=KEY)
    assert KEY not in done.stdout + shown.stdout + done.stderr + shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("groq")]
    assert line.split() == ["groq", "***", "GROQ_API_KEY", str(path)]


def test_every_provider_is_listed_with_the_names_of_its_key(run):
    found = keys(run("list", "--json"))
    assert {name for each in found.values() for name in each["names"]} == NAMES
    assert found["google"]["names"] == ["GOOGLE_API_KEY", "GEMINI_API_KEY"]


def test_a_file_that_others_can_read_is_named_with_what_mends_it(home, run):
    path = home / ".ipfs_api_credentials"
    path.write_text(f"OPENAI_API_KEY={KEY}\n")
    path.chmod(0o644)
    assert keys(run("list", "--json"))["openai"]["remedies"] == [f"chmod 600 {path}"]
    shown = run("list").stdout
    assert f"{path}: not read" in shown
    assert f"chmod 600 {path}" in shown
    assert KEY not in shown


def test_a_key_that_no_header_can_carry_is_told_without_showing_it(run):
    wrong = "sk-ключ-00000000000"
    found = keys(run("list", "--json", OPENAI_API_KEY=wrong))["openai"]
    assert found["key"] is None
    assert "no header can carry" in found["fault"]
    shown = run("list", OPENAI_API_KEY=wrong).stdout
    assert "cannot be used" in shown
    assert wrong not in shown
