"""Files of prompts are asked as they stand, line by line, and what is wrong with one is named."""

from __future__ import annotations

import json
import logging
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.load import prompt_files
from headrace.bench.load.tokenizers import Estimate
from headrace.bench.load.workload import asked, conversations
from headrace.contracts.load import Asked, Kind, Length, LoadPlan, Prompts

SHAREGPT = [
    {
        "id": "a",
        "conversations": [
            {"from": "human", "value": "one?"},
            {"from": "gpt", "value": "1"},
            {"from": "human", "value": "two?"},
            {"from": "gpt", "value": "2 and a good deal more of it"},
        ],
    },
    {"id": "b", "conversations": []},
    {
        "id": "c",
        "conversations": [
            {"from": "system", "value": "be brief"},
            {"from": "human", "value": 'a "quote" and a ] bracket'},
            {"from": "gpt", "value": "yes\\"},
        ],
    },
]


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def of(
    path: Path, text: str, n: int, kind: Kind = "chat", *, counted: bool = False, **prompts: object
) -> list[Asked]:
    path.write_text(text)
    workload = Prompts(path=path, **prompts)  # type: ignore[arg-type]
    plan = LoadPlan(url="http://127.0.0.1:1", kind=kind, workload=workload)
    return list(islice(asked(plan, Estimate() if counted else None), n))


def said(one: Asked) -> list[tuple[object, object]]:
    return [(m["role"], m["content"]) for m in one.messages]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompts"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_sharegpt_conversation_is_asked_turn_by_turn(path: Path, indent: int | None) -> None:
    first, second, third, again = of(path, json.dumps(SHAREGPT, indent=indent), 4)
    assert said(first) == [("user", "one?")]
    assert said(second) == [("user", "two?")]
    assert said(third) == [("system", "be brief"), ("user", 'a "quote" and a ] bracket')]
    assert [(o.conversation, o.turn, o.turns) for o in (first, second, third)] == [
        (0, 0, 2),
        (0, 1, 2),
        (1, 0, 1),
    ]
    assert said(again) == said(first)
    assert again.conversation == 2


def test_the_recorded_answer_says_how_long_the_new_one_may_be(path: Path) -> None:
    text = json.dumps(SHAREGPT)
    assert [one.output_tokens for one in of(path, text, 2, counted=True)] == [1, 7]
    assert [one.output_tokens for one in of(path, text, 2)] == [None, None]
    set_by_us = of(path, text, 2, output=Length(mean=9))
    assert [one.output_tokens for one in set_by_us] == [9, 9]


def test_a_conversation_without_a_question_is_left_out_and_that_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "headrace.load"):
        of(path, json.dumps(SHAREGPT, indent=1), 30)
    (record,) = caplog.records
    assert "there is no question in it" in record.getMessage()


def test_each_form_of_a_line_is_asked(path: Path) -> None:
    found = of(
        path,
        lines(
            {"prompt": "p", "max_tokens": 5},
            {"text": "t", "output_length": 6},
            {"messages": [{"role": "user", "content": "m"}, {"role": "assistant", "content": "a"}]},
            {
                "custom_id": "1",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "x",
                    "messages": [{"role": "user", "content": "b"}],
                    "max_completion_tokens": 7,
                },
            },
            {"input": [{"role": "user", "content": "r"}], "max_output_tokens": 8},
        ),
        5,
    )
    assert [said(one) for one in found] == [[("user", text)] for text in "ptmbr"]
    assert [one.output_tokens for one in found] == [5, 6, None, 7, 8]


def test_a_line_is_asked_as_the_kind_of_request_wants_it(path: Path) -> None:
    chat = lines(
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    )
    (one,) = of(path, chat, 1, "completions")
    assert (one.prompt, one.messages) == ("system: s\n\nuser: u", ())
    (one,) = of(path, lines({"input": ["a", "b"]}), 1, "embeddings")
    assert (one.prompt, one.inputs, one.output_tokens) == ("a", ("a", "b"), None)
    (one,) = of(path, lines({"query": "q", "documents": ["d", {"text": "e"}]}), 1, "rerank")
    assert (one.prompt, one.documents) == ("q", ("d", "e"))


def test_lines_of_one_conversation_are_its_turns(path: Path) -> None:
    text = lines(
        {"conversation": 7, "prompt": "a"},
        {"conversation": 7, "prompt": "b", "after_s": 2},
        {"conversation": 8, "prompt": "c"},
        {"prompt": "d"},
    )
    groups = conversations(of(path, text, 8))
    assert [[said(one)[0][1] for one in group] for group in groups] == [
        ["a", "b"],
        ["c"],
        ["d"],
    ] * 2
    assert of(path, text, 2)[1].after_s == 2
    shuffled = [
        [said(one)[0][1] for one in group]
        for group in conversations(of(path, text, 40, shuffle=True))
    ]
    assert sorted(shuffled[:3]) == [["a", "b"], ["c"], ["d"]]
    assert any(shuffled[n : n + 3] != shuffled[:3] for n in range(3, 27, 3))


def test_workers_share_a_file(path: Path) -> None:
    path.write_text(lines(*({"prompt": str(n)} for n in range(5))))
    plan = LoadPlan(url="http://127.0.0.1:1", workload=Prompts(path=path))
    found = [list(islice(asked(plan, part=part, parts=2), 5)) for part in range(2)]
    assert [said(one)[0][1] for one in found[0]] == ["0", "2", "4", "1", "3"]
    assert [said(one)[0][1] for one in found[1]] == ["1", "3", "0", "2", "4"]


@pytest.mark.parametrize(
    ("text", "kind", "complaint"),
    [
        ("", "chat", "there is no prompt in it"),
        ("[]", "chat", "there is no prompt in it"),
        (lines({"prompt": "a"}) + "{x", "chat", "line 2: no JSON"),
        (lines({"prompt": "a"}, 3), "chat", "line 2: expected an object, found b'3"),
        (lines({"prompt": "a"}, {"foo": 1}), "chat", "line 2: expected one of .* found foo"),
        (lines({"prompt": "a", "max_tokens": 0}), "chat", "line 1, max_tokens: expected a number"),
        (lines({"prompt": 3}), "chat", "line 1, prompt: expected text, found 3"),
        (lines({"messages": [3]}), "chat", r"line 1, messages\[0\]: expected an object"),
        (lines({"prompt": "a", "after_s": -1}), "chat", "line 1, after_s: expected 0 or more"),
        (lines({"prompt": "a"}), "rerank", "line 1: reranking needs query and documents"),
        (lines({"input": ["a", "b"]}), "completions", "line 1: completions takes one text"),
        (
            lines({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "completions",
            "line 1: completions takes text",
        ),
        (
            '[\n{"conversations": [\n{"from": "cat", "value": "x"}]}]',
            "chat",
            r"line 2, conversations\[0\].from: expected one of human, .* found 'cat'",
        ),
        ('[\n{"prompt": "a"},\n"b"]', "chat", "line 3: expected an object, found b'\"b\"'"),
        ('[\n{"prompt": "a"},\n{"prom', "chat", "line 3: the file ends within its array"),
    ],
)
def test_what_cannot_be_asked_is_named_with_its_line(
    path: Path, text: str, kind: Kind, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        of(path, text, 9, kind)


def test_a_file_that_is_not_there_is_told_before_the_load_begins(path: Path) -> None:
    plan = LoadPlan(url="http://127.0.0.1:1", workload=Prompts(path=path))
    with pytest.raises(FileNotFoundError):
        asked(plan)


@given(
    texts=st.lists(st.text(st.sampled_from('a"\\[]{},\n é')), min_size=1, max_size=6),
    indent=st.sampled_from([None, 1]),
    shuffle=st.booleans(),
    ascii_only=st.booleans(),
)
def test_an_array_is_read_whole_wherever_the_reads_fall(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    indent: int | None,
    shuffle: bool,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "array.json"
    array = [{"deep": {"er": [1, "}"]}, "prompt": text} for text in texts]
    text = json.dumps(array, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_files, "_CHUNK", 7)
        found = [said(one)[0][1] for one in of(path, text, len(texts), shuffle=shuffle)]
    assert sorted(map(str, found)) == sorted(texts) if shuffle else found == texts


@pytest.mark.parametrize("shape", ["array", "lines"])
def test_a_large_file_is_not_held_in_memory(path: Path, shape: str) -> None:
    with path.open("w") as file:
        file.write("[\n" if shape == "array" else "")
        for n in range(20_000):
            end = ",\n" if shape == "array" and n < 19_999 else "\n"
            file.write(json.dumps({"prompt": "x" * 1000}) + end)
        file.write("]" if shape == "array" else "")
    plan = LoadPlan(url="http://127.0.0.1:1", workload=Prompts(path=path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(asked(plan), 20_000)) == 20_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5_000_000 < path.stat().st_size
