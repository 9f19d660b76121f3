"""Traces of real services: when requests came and how long they were, read as the test goes on.

Nothing of a trace is held but a look ahead, in which lines that are not quite in order are put
right. Formats: Mooncake's JSONL (https://github.com/kvcache-ai/Mooncake, FAST25-release/traces),
BurstGPT's CSV (https://github.com/HPMLL/BurstGPT), Azure's CSV
(https://github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and 2024), and the
records that our own gateway writes.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from attrs import frozen

from headrace.bench.load.synthetic import Text
from headrace.bench.load.tokenizers import Estimate, Tokenizer
from headrace.bench.load.workload import QUERY_TOKENS, said
from headrace.contracts.load import Asked, Kind, LoadPlan, Replay

Form: TypeAlias = Literal["mooncake", "burstgpt", "azure", "records"]

BLOCK_TOKENS = 512
"""How many tokens one of Mooncake's ``hash_ids`` stands for."""
_LOOK_AHEAD = 4096


@frozen(kw_only=True)
class Row:
    """One request of a trace; ``at_s`` counts from the first. ``blocks`` are Mooncake's hash ids."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def rows(replay: Replay) -> Iterator[Row]:
    """The requests of the trace in the order of their times, which are divided by ``speed``.

    A request of no tokens, which BurstGPT has for those that failed, becomes one of one token.
    Raises ValueError that names file, line and column for whatever cannot be read.
    """
    if not (replay.speed > 0 and isfinite(replay.speed)):
        raise ValueError(f"speed must be above 0, and is {replay.speed:g}")
    path = Path(replay.path)
    form = replay.form if replay.form != "auto" else form_of(path)
    return _in_order(path, _READERS[form](path), replay.speed)


def replayed(
    replay: Replay, tokenizer: Tokenizer | None = None, *, kind: Kind = "chat", seed: int = 0
) -> Iterator[tuple[float, Asked]]:
    """When to send what: made-up text of the lengths that the trace has.

    Blocks that are equal in a Mooncake trace are equal in the text, so that a prefix cache finds
    what it would have found there.
    """
    text = Text(tokenizer or Estimate(), seed)
    for number, row in enumerate(rows(replay)):
        yield row.at_s, _asked(row, text, kind, number)


def asked_of_trace(
    replay: Replay, plan: LoadPlan, tokenizer: Tokenizer | None, part: int, parts: int
) -> Iterator[Asked]:
    """What one of several workers sends of a trace, without the times."""
    text = Text(tokenizer or Estimate(), plan.seed)
    numbered = islice(enumerate(rows(replay)), part, None, parts)
    return (_asked(row, text, plan.kind, number) for number, row in numbered)


def form_of(path: Path) -> Form:
    """Which of the forms a file has, by its first line."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline(1_000_000)
    columns = {name.strip() for name in head.strip().split(",")}
    if columns >= _AZURE:
        return "azure"
    if columns >= _BURSTGPT:
        return "burstgpt"
    try:
        first = msgspec.json.decode(head)
    except msgspec.DecodeError:
        first = None
    if isinstance(first, dict) and "timeline" in first:
        return "records"
    if isinstance(first, dict) and "timestamp" in first:
        return "mooncake"
    raise ValueError(
        f"{path}, line 1: no trace that we know begins like this: {head[:80].strip()!r}; expected"
        f" CSV with the columns {', '.join(sorted(_AZURE))} (azure) or"
        f" {', '.join(sorted(_BURSTGPT))} (burstgpt), or JSONL with timestamp, input_length and"
        " output_length (mooncake) or of call records (records)"
    )


def _asked(row: Row, text: Text, kind: Kind, number: int) -> Asked:
    if row.blocks:
        made = text.of_blocks(row.blocks, BLOCK_TOKENS, row.input_tokens)
    else:
        made = text.distinct(row.input_tokens, number)
    if kind == "rerank":
        query = text.distinct(QUERY_TOKENS, number, "query")
        return Asked(
            prompt=query.text,
            documents=(made.text,),
            input_tokens=query.tokens + made.tokens,
            counted=text.tokenizer.counted,
            conversation=number,
        )
    return said(
        kind,
        made.text,
        output_tokens=None if kind == "embeddings" else row.output_tokens,
        input_tokens=made.tokens,
        counted=text.tokenizer.counted,
        conversation=number,
    )


_Read: TypeAlias = Iterator[tuple[int, Row]]


def _in_order(path: Path, read: _Read, speed: float) -> Iterator[Row]:
    """Rows by their times, from 0 on; a call record is written when its call ends, so they are not."""
    waiting: list[tuple[float, int, Row]] = []
    first: float | None = None
    latest = 0.0
    ended = False
    while True:
        while not ended and len(waiting) < _LOOK_AHEAD:
            found = next(read, None)
            if found is None:
                ended = True
            else:
                line, row = found
                heapq.heappush(waiting, (row.at_s, line, row))
        if not waiting:
            return
        at_s, line, row = heapq.heappop(waiting)
        if first is None:
            first = latest = at_s
        if at_s < latest:
            raise ValueError(
                f"{path}, line {line}: its time lies {latest - at_s:g} s before that of a line more"
                f" than {_LOOK_AHEAD} lines up; sort the file by time"
            )
        latest = at_s
        yield Row(
            at_s=(at_s - first) / speed,
            input_tokens=max(1, row.input_tokens),
            output_tokens=max(1, row.output_tokens),
            blocks=row.blocks,
        )


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    decode = msgspec.json.Decoder().decode
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                value = decode(text)
            except msgspec.DecodeError as wrong:
                raise ValueError(f"{path}, line {line}: no JSON: {wrong}") from wrong
            if not isinstance(value, dict):
                raise ValueError(f"{path}, line {line}: expected an object, found {text[:40]!r}")
            yield line, value


def _mooncake(path: Path) -> _Read:
    for line, value in _json_lines(path):
        place = f"{path}, line {line}"
        blocks = value.get("hash_ids") or []
        if not (isinstance(blocks, list) and all(type(block) is int for block in blocks)):
            raise ValueError(f"{place}, hash_ids: expected whole numbers, found {blocks!r:.60}")
        yield (
            line,
            Row(
                at_s=_seconds(place, "timestamp", value.get("timestamp")) / 1000,
                input_tokens=_tokens(place, "input_length", value.get("input_length")),
                output_tokens=_tokens(place, "output_length", value.get("output_length")),
                blocks=tuple(blocks),
            ),
        )


def _records(path: Path) -> _Read:
    for line, value in _json_lines(path):
        place = f"{path}, line {line}"
        timeline = value.get("timeline")
        if not isinstance(timeline, dict):
            raise ValueError(f"{place}, timeline: expected an object, found {timeline!r:.60}")
        anchor = _seconds(place, "timeline.anchor", timeline.get("anchor"))
        wall = _seconds(place, "timeline.wall_anchor", timeline.get("wall_anchor"))
        # When it was meant to come, else when it came.
        name = next((n for n in ("intended", "queued", "sent") if timeline.get(n) is not None), "")
        if not name:
            raise ValueError(
                f"{place}, timeline: expected one of intended, queued and sent, found none"
            )
        came = _seconds(place, f"timeline.{name}", timeline[name])
        # A call that failed may have no usage: it came all the same.
        usage = value.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        yield (
            line,
            Row(
                at_s=wall + came - anchor,
                input_tokens=_tokens(place, "usage.prompt_tokens", prompt or 0),
                output_tokens=_tokens(place, "usage.completion_tokens", completion or 0),
            ),
        )


_AZURE = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
_BURSTGPT = {"Timestamp", "Request tokens", "Response tokens"}


def _azure(path: Path) -> _Read:
    for line, value in _csv_lines(path, _AZURE):
        place = f"{path}, line {line}"
        yield (
            line,
            Row(
                at_s=_date(place, value["TIMESTAMP"]),
                input_tokens=_tokens(place, "ContextTokens", value["ContextTokens"]),
                output_tokens=_tokens(place, "GeneratedTokens", value["GeneratedTokens"]),
            ),
        )


def _burstgpt(path: Path) -> _Read:
    for line, value in _csv_lines(path, _BURSTGPT):
        place = f"{path}, line {line}"
        yield (
            line,
            Row(
                at_s=_seconds(place, "Timestamp", value["Timestamp"]),
                input_tokens=_tokens(place, "Request tokens", value["Request tokens"]),
                output_tokens=_tokens(place, "Response tokens", value["Response tokens"]),
            ),
        )


_READERS: dict[Form, Callable[[Path], _Read]] = {
    "mooncake": _mooncake,
    "burstgpt": _burstgpt,
    "azure": _azure,
    "records": _records,
}


def _csv_lines(path: Path, wanted: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    # Azure's files begin with a byte order mark, some of them.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        head = [name.strip() for name in next(reader, [])]
        missing = wanted - set(head)
        if missing:
            raise ValueError(
                f"{path}, line 1: the columns {', '.join(sorted(missing))} are missing; found"
                f" {', '.join(head) or 'nothing'}"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) < len(head):
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(head)} columns, found {len(cells)}"
                )
            yield reader.line_num, dict(zip(head, cells, strict=False))


def _seconds(place: str, column: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number) or isinstance(value, bool):
        raise ValueError(f"{place}, {column}: expected a number, found {value!r:.60}")
    return number


def _tokens(place: str, column: str, value: object) -> int:
    number = _seconds(place, column, value)
    if number < 0 or number != int(number):
        raise ValueError(
            f"{place}, {column}: expected a whole number from 0 on, found {value!r:.60}"
        )
    return int(number)


def _date(place: str, text: str) -> float:
    try:
        date = datetime.fromisoformat(text.strip())
    except ValueError as wrong:
        raise ValueError(
            f"{place}, TIMESTAMP: expected a date such as 2023-11-16 18:15:46.6805900, found"
            f" {text!r:.60}"
        ) from wrong
    return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
