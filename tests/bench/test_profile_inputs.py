"""Prompts and instructions from a folder; pictures are with the tests that need pillow."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bench.profile.inputs import find_inputs
from headrace.contracts.errors import LLMInvalidRequestError


def test_prompts_come_from_text_files_and_lines_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second\n")
    (tmp_path / "a.jsonl").write_text('"first"\n\n{"prompt": "then"}\n{"text": "and"}\n')
    (tmp_path / "ignored.md").write_text("not a prompt")
    found = find_inputs(tmp_path, sees=False, model="m")
    assert [(each.name, each.text) for each in found] == [
        ("a.jsonl:1", "first"),
        ("a.jsonl:3", "then"),
        ("a.jsonl:4", "and"),
        ("b.txt", "second"),
    ]


def test_a_model_that_sees_can_be_given_prompts_alone(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("a question")
    (given,) = find_inputs(tmp_path, sees=True, model="m")
    assert given.picture is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "  \n", "is empty"),
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", '"fine"\n{"question": "?"}', "line 2 has no text"),
        ("a.jsonl", "7", "line 1 has no text"),
        ("a.csv", "x", "holds no .txt or .jsonl prompts"),
    ],
)
def test_a_file_that_is_no_prompt_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LLMInvalidRequestError, match=said) as raised:
        find_inputs(tmp_path, sees=False, model="m")
    assert raised.value.param == "input_dir"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(LLMInvalidRequestError, match="is a file; a directory"):
        find_inputs(tmp_path / "a.txt", sees=False, model="m")
