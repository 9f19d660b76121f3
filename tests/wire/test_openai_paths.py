"""OpenAI's paths: the table is the specification's, and finds what it says and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.openai_paths import GROUPS, MARKED, find

SPEC = Path(__file__).parents[2].parent / "shared" / "specs" / "openai.json"
METHODS = {"get", "post", "put", "patch", "delete"}
ENTRIES = [
    (method, entry.split()[-1], group)
    for group in GROUPS
    for entry in group.entries
    for method in entry.split()[:-1]
]


def test_the_table_is_the_specifications():
    if not SPEC.is_file():
        pytest.skip(f"there is no specification at {SPEC}")
    paths = json.loads(SPEC.read_text(encoding="utf-8"))["paths"]
    theirs = {
        (method.upper(), path.partition("?")[0])
        for path, methods in paths.items()
        for method in methods
        if method in METHODS
    }
    assert {(method, path) for method, path, _ in ENTRIES} == theirs


def test_every_path_stands_in_one_place():
    known = [(method, path) for method, path, _ in ENTRIES]
    assert len(known) == len(set(known)) == 281
    assert len({group.name for group in GROUPS}) == len(GROUPS)
    assert set(MARKED) <= {group.name for group in GROUPS}


ids = st.text(min_size=1, max_size=20).filter(
    lambda text: "/" not in text and text not in (".", "..") and text.isprintable()
)


@pytest.mark.parametrize(("method", "template", "group"), ENTRIES, ids=lambda each: str(each)[:60])
def test_a_path_is_found_with_any_id(method, template, group):
    path = "/".join("id-1" if part.startswith("{") else part for part in template.split("/"))
    known = find(method, path)
    assert known is not None
    assert known.template == template
    assert known.group is group
    assert method in known.methods
    assert known.target == path


@given(id_=ids)
def test_an_id_is_quoted_in_what_a_backend_is_asked(id_):
    known = find("GET", f"/threads/{id_}/messages")
    assert known is not None
    assert known.target.isascii()
    assert not set(known.target) & set(" ?#\\\"'<>\r\n")
    assert known.target.count("/") == 3
    assert known.target.startswith("/threads/")
    assert known.target.endswith("/messages")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "threads",
        "/threads/",
        "/threads//messages",
        "/threads/../vector_stores",
        "/threads/./messages",
        "/threads/a\nb",
        "/threads/" + "a" * 600,
        "/threads/a/messages/b/c",
        "/http://elsewhere.example/threads",
        "//elsewhere.example/threads",
        "/nothing",
    ],
)
def test_what_is_no_path_of_the_table_is_not_found(path):
    assert find("GET", path) is None
    assert find("POST", path) is None


def test_a_word_of_the_table_goes_before_an_id():
    assert find("POST", "/threads/runs").template == "/threads/runs"
    assert find("GET", "/threads/runs").template == "/threads/{thread_id}"
    assert find("POST", "/responses/compact").group.treatment == "by_model"


def test_another_method_says_which_would_be_right():
    known = find("PUT", "/assistants")
    assert known.methods == ("GET", "POST")
