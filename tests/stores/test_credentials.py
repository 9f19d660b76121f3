"""Where a key is found, in which order, and what is said where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.backends.providers import PROVIDERS
from headrace.contracts.errors import LLMAuthError
from headrace.stores.credentials import OTHER_KEYS, Credentials, template, write_template
from headrace.stores.secret import Secret

NAMES = ("FIRST_KEY", "SECOND_KEY")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("dotenv", "config", "seed")}


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def credentials(places: dict[str, Path], **environment: str) -> Credentials:
    return Credentials(environment=environment, **places)


def test_the_places_go_in_their_order(places):
    for name, path in places.items():
        write(path, f"FIRST_KEY=from-{name}\n")
    environment = {"FIRST_KEY": "from-environment"}
    seen = [credentials(places, **environment).find(NAMES, given="from-argument")]
    seen.append(credentials(places, **environment).find(NAMES))
    for name in places:
        seen.append(credentials(places).find(NAMES))
        places[name].unlink()
    seen.append(credentials(places).find(NAMES))
    assert [found and found.secret.reveal() for found in seen] == [
        "from-argument",
        "from-environment",
        "from-dotenv",
        "from-config",
        "from-seed",
        None,
    ]


def test_an_earlier_place_goes_before_an_earlier_name(places):
    write(places["dotenv"], "FIRST_KEY=from-file\n")
    found = credentials(places, SECOND_KEY="from-environment").find(NAMES)
    assert found is not None
    assert (found.name, found.source) == ("SECOND_KEY", "the environment")


def test_an_earlier_name_goes_before_a_later_one_of_the_same_place(places):
    found = credentials(places, SECOND_KEY="second", FIRST_KEY="first").find(NAMES)
    assert found is not None
    assert found.secret == Secret("first")


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_value_is_as_good_as_none(places, empty):
    write(places["seed"], "FIRST_KEY=from-seed\n")
    found = credentials(places, FIRST_KEY=empty).find(NAMES)
    assert found is not None
    assert found.source == str(places["seed"])


def test_the_syntax_is_that_of_dotenv_files(places):
    write(
        places["dotenv"],
        "# a comment\n\nexport FIRST_KEY='quoted # no comment' # a comment\n"
        'SECOND_KEY="${PREFIX}-${FROM_OUTSIDE}-${MISSING:-else}"\nPREFIX=pre\n',
    )
    held = credentials(places, FROM_OUTSIDE="out")
    assert [held.find((name,)).secret.reveal() for name in NAMES] == [  # type: ignore[union-attr]
        "quoted # no comment",
        "-out-else",
    ]


def test_a_foreign_line_in_a_dotenv_file_is_passed_over(places):
    write(places["dotenv"], "this is no assignment = = '\nFIRST_KEY=one\n", mode=0o644)
    found = credentials(places).find(NAMES)
    assert found is not None
    assert found.secret.reveal() == "one"


@pytest.mark.parametrize("place", ["config", "seed"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(places, place, mode):
    write(places[place], "FIRST_KEY=sk-very-secret\n", mode=mode)
    with pytest.raises(LLMAuthError) as caught:
        credentials(places).find(NAMES)
    assert f"chmod 600 {places[place]}" in str(caught.value)
    assert "sk-very-secret" not in str(caught.value)


def test_a_file_that_is_not_reached_is_not_complained_about(places):
    write(places["seed"], "FIRST_KEY=x\n", mode=0o644)
    assert credentials(places, FIRST_KEY="from-environment").find(NAMES) is not None


def test_a_broken_line_in_a_credentials_file_is_refused_by_its_number_alone(places):
    write(places["config"], "FIRST_KEY=one\nsk-pasted-without-a-name 'x\n")
    with pytest.raises(LLMAuthError, match="line 2: expected NAME=value") as caught:
        credentials(places).find(NAMES)
    assert "sk-pasted" not in str(caught.value)


def test_what_is_no_text_is_refused(places):
    places["config"].write_bytes(b"FIRST_KEY=\xff\xfe\n")
    places["config"].chmod(0o600)
    with pytest.raises(LLMAuthError, match="not UTF-8"):
        credentials(places).find(NAMES)


def test_a_missing_key_is_an_error_that_names_every_name_and_place(places):
    with pytest.raises(LLMAuthError) as caught:
        credentials(places).require("groq", NAMES)
    said = str(caught.value)
    for word in ("groq", *NAMES, "api_key", "the environment", *map(str, places.values())):
        assert word in said


@pytest.mark.parametrize("bad", ["two\nlines", "tab\there", "kéy"])
def test_a_key_that_no_header_can_carry_is_refused_by_its_place(places, bad):
    with pytest.raises(LLMAuthError, match="FIRST_KEY in the environment") as caught:
        credentials(places, FIRST_KEY=bad).find(NAMES)
    assert bad not in str(caught.value)


def test_the_line_end_of_a_pasted_key_is_cut_off(places):
    found = credentials(places, FIRST_KEY=" sk-pasted\n").find(NAMES)
    assert found is not None
    assert found.secret.reveal() == "sk-pasted"


def test_each_file_is_read_once(places):
    write(places["config"], "FIRST_KEY=one\n")
    held = credentials(places)
    held.find(NAMES)
    write(places["config"], "FIRST_KEY=two\n")
    found = held.find(NAMES)
    assert found is not None
    assert found.secret.reveal() == "one"


def test_a_report_says_where_keys_are_and_shows_none(places):
    write(places["config"], "SECOND_KEY=sk-secret\n")
    write(places["seed"], "FIRST_KEY=sk-secret\n", mode=0o644)
    report = credentials(places).report(NAMES)
    assert [(each.state, each.name) for each in report] == [
        ("nothing", None),
        ("absent", None),
        ("found", "SECOND_KEY"),
        ("refused", None),
    ]
    assert report[-1].remedy == f"chmod 600 {places['seed']}"
    assert "sk-secret" not in repr(report)


def test_no_key_is_in_the_text_of_the_credentials_or_of_what_they_find(places):
    held = credentials(places, FIRST_KEY="sk-environment")
    found = held.find(NAMES)
    assert "sk-environment" not in f"{held!r} {found!r} {found}"


def test_the_configuration_folder_is_where_the_environment_says(tmp_path):
    folder = tmp_path / "xdg" / "headrace"
    folder.mkdir(parents=True)
    write(folder / "credentials", "FIRST_KEY=one\n")
    held = Credentials(
        environment={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, dotenv=None, seed=None
    )
    assert held.find(NAMES) is not None


def test_the_dotenv_file_is_that_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("FIRST_KEY=one\n")
    monkeypatch.chdir(tmp_path)
    held = Credentials(environment={}, config=None, seed=None)
    monkeypatch.chdir("/")
    assert held.find(NAMES) is not None


def test_the_template_is_for_its_owner_alone_and_holds_every_name_and_no_key(tmp_path):
    path = write_template(tmp_path / "new" / "credentials")
    assert path.stat().st_mode & 0o777 == 0o600
    names = {name for row in PROVIDERS.values() for name in row.key_env}
    names |= {name for several in OTHER_KEYS.values() for name in several}
    held = Credentials(environment={}, dotenv=None, config=path, seed=None)
    for name in names:
        assert f"{name}=" in template() or f"or {name}" in template(), name
        assert held.find((name,)) is None
    with pytest.raises(FileExistsError):
        write_template(path)


def test_a_service_may_have_several_names():
    assert OTHER_KEYS["google"] == ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    assert set(OTHER_KEYS["huggingface"]) == {"HF_API_TOKEN", "HF_TOKEN"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_we_cannot_read_is_refused(places):
    write(places["config"], "FIRST_KEY=one\n", mode=0o000)
    with pytest.raises(LLMAuthError, match="cannot be read"):
        credentials(places).find(NAMES)
