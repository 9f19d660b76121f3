"""Prompts from a file: ShareGPT's JSON, or JSONL of several forms, one object at a time.

A file is read from its beginning to its end and then again, and never held as a whole. Only
shuffling wants to know where everything is: it keeps the places of the objects, not the objects.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import count
from logging import getLogger
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import msgspec
from attrs import frozen

from headrace.bench.load.prompt_forms import Turn, turns_of
from headrace.bench.load.synthetic import draw
from headrace.bench.load.tokenizers import Tokenizer
from headrace.bench.load.workload import as_text
from headrace.contracts.load import Asked, Kind, LoadPlan, Prompts

_LOG = getLogger("headrace.load")
_CHUNK = 1 << 20
_MARK_OF_ORDER = b"\xef\xbb\xbf"
_BRACKET_OR_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)


@frozen
class _Found:
    """One object of the file, by its first line, and where its bytes lie."""

    line: int
    begin: int
    end: int
    value: dict[str, Any]


def prompts_of(
    prompts: Prompts, plan: LoadPlan, tokenizer: Tokenizer | None, part: int, parts: int
) -> Iterator[Asked]:
    """The prompts of the file, over and over; of several ``parts``, one worker's.

    Raises ValueError that names file and line for whatever cannot be read or asked.
    """
    path = Path(prompts.path)
    with path.open("rb"):
        pass  # A file that is not there is told before the load begins.
    groups = _shuffled(path, plan.seed) if prompts.shuffle else _repeated(path)
    return _asked(groups, prompts, plan, tokenizer, part, parts)


def _asked(
    groups: Iterable[list[Turn]],
    prompts: Prompts,
    plan: LoadPlan,
    tokenizer: Tokenizer | None,
    part: int,
    parts: int,
) -> Iterator[Asked]:
    numbers = count()
    for turns in groups:
        talks = plan.kind in ("chat", "responses", "messages")
        for conversation in [turns] if talks else [[turn] for turn in turns]:
            number = next(numbers)
            if number % parts != part:
                continue
            random = Random(f"{plan.seed} prompts {number}")
            for place, turn in enumerate(conversation):
                output = turn.output_tokens
                if output is None and turn.answer is not None and tokenizer is not None:
                    # As vLLM does it: the answer may get as long as the one that was recorded.
                    output = max(1, tokenizer.count(turn.answer))
                if prompts.output is not None:
                    output = draw(prompts.output, random)
                if plan.kind in ("embeddings", "rerank"):
                    output = None
                messages, prompt = _in_kind(turn, plan.kind)
                texts = (
                    *((prompt,) if prompt is not None else (as_text(messages),)),
                    *turn.inputs[1:],
                    *turn.documents,
                )
                yield Asked(
                    messages=messages,
                    prompt=prompt,
                    inputs=turn.inputs if plan.kind == "embeddings" else (),
                    documents=turn.documents if plan.kind == "rerank" else (),
                    output_tokens=output,
                    input_tokens=sum(map(tokenizer.count, texts)) if tokenizer else None,
                    counted=tokenizer is not None and tokenizer.counted and not turn.more_than_text,
                    conversation=number,
                    turn=place,
                    turns=len(conversation),
                    after_s=turn.after_s,
                )


def _in_kind(turn: Turn, kind: Kind) -> tuple[tuple[dict[str, object], ...], str | None]:
    """A turn's messages or its prompt, as that kind of request has it."""
    if kind == "rerank" and not turn.documents:
        raise ValueError(f"{turn.place}: reranking needs query and documents")
    if kind in ("chat", "responses", "messages"):
        if turn.messages:
            return turn.messages, None
        texts = turn.inputs or (turn.prompt or "",)
        content = "\n\n".join([*texts, *turn.documents])
        return ({"role": "user", "content": content},), None
    if turn.more_than_text:
        raise ValueError(f"{turn.place}: {kind} takes text, and this has other content")
    if turn.inputs:
        if kind != "embeddings":
            raise ValueError(f"{turn.place}: {kind} takes one text, and input has several")
        return (), turn.inputs[0]
    return (), turn.prompt if turn.prompt is not None else as_text(turn.messages)


def _repeated(path: Path) -> Iterator[list[Turn]]:
    for again in count():
        found = False
        for objects in _grouped(_objects(path)):
            turns = _turns(path, objects)
            if turns:
                found = True
                yield turns
            elif again == 0:
                _tell_no_question(path, objects[0])
        if not found:
            raise ValueError(f"{path}: there is no prompt in it")


def _shuffled(path: Path, seed: int) -> Iterator[list[Turn]]:
    """Conversations in an order of the seed's, another one in every round."""
    begins, ends, lines, groups = (array("Q") for _ in range(4))
    for objects in _grouped(_objects(path)):
        if not _turns(path, objects):
            _tell_no_question(path, objects[0])
            continue
        groups.append(len(begins))
        for found in objects:
            begins.append(found.begin)
            ends.append(found.end)
            lines.append(found.line)
    if not groups:
        raise ValueError(f"{path}: there is no prompt in it")
    order = array("Q", range(len(groups)))
    groups.append(len(begins))
    with path.open("rb") as file:
        for again in count():
            Random(f"{seed} shuffled {again}").shuffle(order)
            for group in order:
                objects = []
                for place in range(groups[group], groups[group + 1]):
                    file.seek(begins[place])
                    data = file.read(ends[place] - begins[place])
                    objects.append(_object(path, data, lines[place], begins[place]))
                yield _turns(path, objects)


def _turns(path: Path, objects: Iterable[_Found]) -> list[Turn]:
    return [
        turn for found in objects for turn in turns_of(found.value, f"{path}, line {found.line}")
    ]


def _tell_no_question(path: Path, found: _Found) -> None:
    _LOG.warning("%s, line %d: there is no question in it; it is left out", path, found.line)


def _grouped(objects: Iterable[_Found]) -> Iterator[list[_Found]]:
    """Objects that name the same conversation and follow one another are together."""
    group: list[_Found] = []
    for found in objects:
        named = found.value.get("conversation")
        if group and (named is None or named != group[-1].value.get("conversation")):
            yield group
            group = []
        group.append(found)
    if group:
        yield group


def _objects(path: Path) -> Iterator[_Found]:
    with path.open("rb") as file:
        head = file.read(_CHUNK)
        begin = len(_MARK_OF_ORDER) if head.startswith(_MARK_OF_ORDER) else 0
        file.seek(begin)
        if head[begin:].lstrip().startswith(b"["):
            yield from _elements(path, file, begin)
        else:
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield _object(path, text, line, begin)
                begin += len(text)


def _elements(path: Path, file: BinaryIO, base: int) -> Iterator[_Found]:
    """The objects of a JSON array, found by their brackets; only the one at hand is held."""
    # Where the buffer begins in the file and on which line, how far it was looked at, how deep we
    # are there, and where the object at hand begins.
    buffer, line, looked, depth = b"", 1, 0, 0
    begin: int | None = None
    while chunk := file.read(_CHUNK):
        buffer += chunk
        counted = 0
        for match in _BRACKET_OR_TEXT.finditer(buffer, looked):
            mark = match[0]
            if mark == b'"':
                looked = match.start()
                break  # its end has yet to be read
            looked = match.end()
            if mark in (b"{", b"["):
                depth += 1
                if depth == 2:
                    begin = match.start()
                    line += buffer.count(b"\n", counted, begin)
                    counted = begin
            elif mark in (b"}", b"]"):
                depth -= 1
                if depth == 1 and begin is not None:
                    yield _object(path, buffer[begin:looked], line, base + begin)
                    begin = None
            elif depth == 1:
                at = line + buffer.count(b"\n", counted, match.start())
                raise ValueError(f"{path}, line {at}: expected an object, found {mark[:40]!r}")
        else:
            looked = len(buffer)
        keep = looked if begin is None else begin
        line += buffer.count(b"\n", counted, keep)
        buffer, base, looked = buffer[keep:], base + keep, looked - keep
        begin = None if begin is None else 0
    if depth:
        raise ValueError(f"{path}, line {line}: the file ends within its array")


def _object(path: Path, text: bytes, line: int, begin: int) -> _Found:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as wrong:
        raise ValueError(f"{path}, line {line}: no JSON: {wrong}") from wrong
    if not isinstance(value, dict):
        raise ValueError(f"{path}, line {line}: expected an object, found {text[:40]!r}")
    return _Found(line, begin, begin + len(text), value)
