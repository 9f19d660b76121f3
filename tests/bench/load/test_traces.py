"""A trace is replayed at its own times with its own lengths, however long the file is."""

from __future__ import annotations

import json
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from headrace import CallRecord, JsonlFile, Timeline, Usage
from headrace.bench.load.arrivals import schedule, share
from headrace.bench.load.traces import BLOCK_TOKENS, form_of, replayed, rows
from headrace.bench.load.workload import asked
from headrace.contracts.load import Asked, LoadPlan, Replay

# The first lines of the published traces, as their repositories show them.
MOONCAKE = """\
{"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]}
{"timestamp": 0, "input_length": 7319, "output_length": 490, "hash_ids": [0, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]}
{"timestamp": 3052, "input_length": 2287, "output_length": 316, "hash_ids": [0, 42, 43, 44, 45]}
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,API log
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 23:59:59.500000+00:00,374,44
2024-05-11 00:00:00.500000+00:00,396,109
"""


def written(folder: Path, text: str, name: str = "trace") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def text_of(one: Asked) -> str:
    return str(one.messages[0]["content"])


def flat(path: Path) -> list[tuple[float, int, int]]:
    return [(r.at_s, r.input_tokens, r.output_tokens) for r in rows(Replay(path=path))]


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (MOONCAKE, "mooncake", [(0, 6755, 500), (0, 7319, 490), (3.052, 2287, 316)]),
        (BURSTGPT, "burstgpt", [(0, 472, 18), (40.5, 1087, 230), (113, 417, 1)]),
        (AZURE, "azure", [(0, 374, 44), (pytest.approx(4.314579, abs=1e-5), 396, 109)]),
        (AZURE_2024, "azure", [(0, 374, 44), (1, 396, 109)]),
    ],
)
def test_a_published_trace_is_known_by_its_first_line(
    tmp_path: Path, text: str, form: str, expected: list[tuple[float, int, int]]
) -> None:
    path = written(tmp_path, text)
    assert form_of(path) == form
    assert flat(path) == expected


def test_columns_may_stand_in_any_order_and_others_between_them(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeffSession ID,Response tokens,Timestamp,Elapsed time,Request tokens\r\ns,7,3,0.1,5\r\n",
    )
    assert flat(path) == [(0, 5, 7)]


def test_the_gateways_records_are_replayed_as_they_came_not_as_they_ended(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with JsonlFile(str(path)) as sink:
        for queued, done, tokens in ((11.0, 12.0, 20), (10.0, 19.0, 10), (12.5, 20.0, None)):
            sink(
                CallRecord(
                    call_id="1",
                    operation="chat",
                    usage=None
                    if tokens is None
                    else Usage(prompt_tokens=tokens, completion_tokens=2 * tokens),
                    timeline=Timeline(
                        anchor=done, wall_anchor=1e9 + done, queued=queued, done=done
                    ),
                )
            )
    assert form_of(path) == "records"
    assert flat(path) == [(0, 10, 20), (1, 20, 40), (2.5, 1, 1)]


def test_equal_blocks_are_equal_text_and_others_are_not(tmp_path: Path) -> None:
    first, second, third = (
        text_of(one).split(" ") for _, one in replayed(Replay(path=written(tmp_path, MOONCAKE)))
    )
    assert [len(words) for words in (first, second, third)] == [6755, 7319, 2287]
    assert first[:BLOCK_TOKENS] == second[:BLOCK_TOKENS] == third[:BLOCK_TOKENS]
    assert first[BLOCK_TOKENS] != second[BLOCK_TOKENS] != third[BLOCK_TOKENS]


def test_twice_the_speed_is_half_the_time(tmp_path: Path) -> None:
    replay = Replay(path=written(tmp_path, BURSTGPT), speed=2)
    assert list(schedule(replay, 0)) == [0, 20.25, 56.5]


def test_times_and_texts_go_in_step_and_workers_share_them(tmp_path: Path) -> None:
    replay = Replay(path=written(tmp_path, BURSTGPT))
    plan = LoadPlan(url="http://127.0.0.1:1", arrivals=replay, seed=4)
    whole = list(replayed(replay, seed=4))
    assert [one for _, one in whole] == list(asked(plan))
    assert [at for at, _ in whole] == list(schedule(replay, 0))
    for part in range(2):
        of_part = list(asked(plan, part=part, parts=2))
        assert of_part == [one for _, one in share(whole, part, 2)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "trace, line 1: no trace that we know begins like this"),
        ("a,b\n1,2\n", "expected CSV with the columns"),
        (BURSTGPT + "x,ChatGPT,1,1,2,a\n", "line 5, Timestamp: expected a number, found 'x'"),
        (BURSTGPT + "119,ChatGPT\n", "line 5: expected 6 columns, found 2"),
        (AZURE + "yesterday,1,1\n", "line 4, TIMESTAMP: expected a date such as 2023"),
        (AZURE + "2023-11-16 18:16:00,-4,1\n", "line 4, ContextTokens: expected a whole number"),
        (MOONCAKE + "{", "line 4: no JSON"),
        (MOONCAKE + "[]", "line 4: expected an object"),
        (MOONCAKE + '{"timestamp": 1, "output_length": 3}', "line 4, input_length: .* found None"),
        (
            MOONCAKE + '{"timestamp": 1, "input_length": 3, "output_length": 3, "hash_ids": "x"}',
            "line 4, hash_ids: expected whole numbers, found 'x'",
        ),
        ('{"timeline": 3}', "line 1, timeline: expected an object"),
        ('{"timeline": {"anchor": 0, "wall_anchor": 0}}', "expected one of intended, queued"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_column(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        flat(written(tmp_path, text))


def test_a_form_that_was_named_is_held_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the columns ContextTokens, .* are missing"):
        list(rows(Replay(path=written(tmp_path, BURSTGPT), form="azure")))


def test_a_speed_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="speed must be above 0, and is 0"):
        rows(Replay(path=written(tmp_path, BURSTGPT), speed=0))


def test_a_line_far_out_of_order_is_an_error_and_not_a_request_too_late(tmp_path: Path) -> None:
    lines = [f"{n},m,1,1" for n in range(10, 6000)] + ["0,m,1,1"]
    path = written(tmp_path, "Timestamp,Model,Request tokens,Response tokens\n" + "\n".join(lines))
    with pytest.raises(ValueError, match=r"line 5992: its time lies .* sort the file by time"):
        list(rows(Replay(path=path)))


def test_a_long_trace_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for n in range(60_000):
            line = {"timestamp": n, "input_length": 9, "output_length": 9, "hash_ids": [n, n]}
            file.write(json.dumps(line) + "\n")
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows(Replay(path=path))) == 60_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4_000_000 < path.stat().st_size


def test_an_unread_trace_gives_its_first_request_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, MOONCAKE)
    assert [at for at, _ in islice(replayed(Replay(path=path)), 1)] == [0]
