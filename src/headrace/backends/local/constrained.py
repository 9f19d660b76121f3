"""Answers of a shape: held by a grammar while they are made, and judged once they are whole.

The engine's own reading of JSON Schema is wrong in places and says nothing of it. So a schema
becomes a grammar here (``schemas``), and every answer that ended by itself is judged by the schema
that the caller sent. One that fails is asked for again where the caller waits for the whole of it;
where it was streamed, the stream ends with an error. One that its tokens did not suffice for is asked
for again there too, held to less.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from attrs import define, evolve, field, frozen

from headrace.backends.local.forced import (
    as_calls,
    as_json_request,
    callable_tools,
    may_call_several,
    must_call,
)
from headrace.backends.local.schemas.bounds import bounds_for, most_calls
from headrace.backends.local.schemas.grammar import Grammar, Grammars, Part, why_not
from headrace.backends.local.schemas.judge import Judge, Judges
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.messages import ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.wire import json as wire_json

Ask: TypeAlias = Callable[[LLMRequest, Marks], AsyncGenerator[LLMDelta, None]]

MOST_ASKED_AGAIN = 2
_ANY_OBJECT: dict[str, object] = {"type": "object"}
_OF_NO_PARAMETERS = {"$schema", "type", "title", "description", "properties", "required"}


@frozen(kw_only=True)
class Held:
    """A request as the engine is asked it, and the judges of its answer.

    ``judges`` has one for each tool by its name where the answer is ``calls``, else one by "".
    ``caller`` is what the caller asked.
    """

    request: LLMRequest
    caller: LLMRequest
    judges: Mapping[str, Judge]
    calls: bool = False


@define
class Constraints:
    """What one engine needs to hold its answers, and how often that was needed.

    ``asked`` counts the requests that were held, ``wrong`` the answers that failed their schema
    all the same, ``cut`` those that their tokens did not suffice for, and ``again`` how many of
    both were asked for once more. ``takes_grammars`` says that the engine has the llguidance of this
    process; where it is ``None``, llama.cpp's library is looked at.
    """

    takes_grammars: bool | None = None
    asked: int = 0
    wrong: int = 0
    cut: int = 0
    again: int = 0
    _grammars: Grammars = field(factory=Grammars, repr=False)
    _judges: Judges = field(factory=Judges, repr=False)

    async def hold(self, request: LLMRequest) -> Held | None:
        """``request`` with its grammar, or ``None`` where it asks for no shape.

        LLMInvalidRequestError says which keyword of which schema cannot be held.
        """
        _check_own_grammar(request, self._has_llguidance)
        if not must_call(request) and _shape(request) is None:
            return None
        if request.provider_options.get("grammar"):
            raise LLMInvalidRequestError(
                "'grammar' and a schema exclude one another; send one of them", param="grammar"
            )
        # Beside the loop: a large schema takes some milliseconds.
        held = await asyncio.to_thread(self._held, request)
        self.asked += 1
        return held

    async def stream(self, held: Held, ask: Ask, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The pieces of the answer to ``held``; LLMBadResponseError in place of a wrong end."""
        request, left = held.request, MOST_ASKED_AGAIN if marks.whole else 0
        may_tighten = marks.whole and request.max_tokens is not None
        while True:
            watch = _Watch(held)
            pieces = ask(request, marks)
            fault: str | None = None
            tighter: LLMRequest | None = None
            async with aclosing(pieces):
                async for delta in as_calls(pieces) if held.calls else pieces:
                    fault = watch.fault(delta)
                    if delta.finish_reason == "length" and may_tighten:
                        may_tighten = False
                        tighter = await self._tighter(held)
                    if fault is not None or tighter is not None:
                        break
                    yield delta
            if tighter is not None:
                self.cut += 1
            elif fault is None:
                return
            else:
                self.wrong += 1
                if not left:
                    raise LLMBadResponseError(
                        f"the answer does not meet its schema: {fault}; ask again, with another "
                        "seed or a simpler schema",
                        transient=True,
                        code="schema_mismatch",
                    )
                left -= 1
            self.again += 1
            request = evolve(tighter or request, seed=(request.seed or 0) + 1)
            for index in watch.seen:
                yield LLMDelta(index=index, begins_again=True)

    async def _tighter(self, held: Held) -> LLMRequest | None:
        """The request held to what ends within its tokens at worst; ``None``: it is that already."""
        try:
            found = await asyncio.to_thread(self._held, held.caller, tight=True)
        except LLMInvalidRequestError:  # the caller asks for more than that
            return None
        return None if found.request == held.request else found.request

    @property
    def _has_llguidance(self) -> bool:
        return _llamacpp_has_llguidance() if self.takes_grammars is None else self.takes_grammars

    def counts(self) -> dict[str, int]:
        """For diagnostics."""
        return {
            "asked": self.asked,
            "wrong": self.wrong,
            "cut": self.cut,
            "asked_again": self.again,
        }

    def _held(self, request: LLMRequest, *, tight: bool = False) -> Held:
        if must_call(request):
            return self._held_call(request, tight)
        shape = _shape(request)
        assert shape is not None
        judge = self._judges.judge(shape.schema, shape.param)
        bounds = bounds_for(request.max_tokens, shape.schema, tight=tight)
        grammar = self._grammars.grammar(shape, bounds)
        plain = evolve(request, tools=(), tool_choice=None, parallel_tool_calls=None)
        return Held(
            request=_asked_with(plain, grammar, self._has_llguidance),
            caller=request,
            judges={"": judge},
        )

    def _held_call(self, request: LLMRequest, tight: bool) -> Held:
        parts, judges = [], {}
        for place, tool in callable_tools(request):
            schema = _arguments(tool)
            part = Part(schema=schema, param=f"tools[{place}].function.parameters")
            parts.append((tool.name, part))
            judges[tool.name] = self._judges.judge(schema, part.param)
        most = most_calls(request.max_tokens) if may_call_several(request) else 1
        schemas = [part.schema for _, part in parts]
        bounds = bounds_for(request.max_tokens, schemas, most, tight=tight)
        grammar = self._grammars.calls(parts, bounds, most=most)
        asked = _asked_with(as_json_request(request), grammar, self._has_llguidance)
        return Held(request=asked, caller=request, judges=judges, calls=True)


def _arguments(tool: ToolSpec) -> dict[str, object]:
    """The schema of the arguments of ``tool``; one that names no parameters has none.

    OpenAI says so of a function without them, where JSON Schema would let the model make some up.
    """
    schema = {"type": "object", **tool.input_schema}
    if not schema.get("properties") and schema.keys() <= _OF_NO_PARAMETERS:
        return {**schema, "additionalProperties": False}
    return schema


@define
class _Watch:
    """Puts together what each answer says, and has it judged at its end."""

    held: Held
    texts: dict[int, list[str]] = field(factory=dict)
    calls: dict[tuple[int, int], tuple[str, list[str]]] = field(factory=dict)
    seen: set[int] = field(factory=set)

    def fault(self, delta: LLMDelta) -> str | None:
        """What is wrong with the answer that ends with ``delta``, if it does and something is."""
        self.seen.add(delta.index)
        if delta.text_delta:
            self.texts.setdefault(delta.index, []).append(delta.text_delta)
        piece = delta.tool_call_delta
        if piece is not None:
            call = self.calls.setdefault((delta.index, piece.index), (piece.name or "", []))
            call[1].append(piece.arguments_json_delta or "")
        if delta.finish_reason not in ("stop", "tool_calls"):
            return None
        if not self.held.calls:
            return self._judged("", "".join(self.texts.get(delta.index, [])))
        calls = [call for (index, _), call in self.calls.items() if index == delta.index]
        if not calls or delta.finish_reason == "stop":
            return None if self.held.request.stop else "it holds no whole call"
        faults = (self._judged(name, "".join(said)) for name, said in calls)
        return next((fault for fault in faults if fault is not None), None)

    def _judged(self, name: str, text: str) -> str | None:
        judge = self.held.judges.get(name)
        if judge is None:
            return f"there is no tool '{name}'"
        fault = judge.fault(text)
        if fault is not None and self.held.request.stop and not _is_json(text):
            return None  # a stop text of the caller's own cut it, as he asked
        return fault


def _shape(request: LLMRequest) -> Part | None:
    """The schema that the answer must meet, whichever field asks for it."""
    own = request.provider_options.get("json_schema")
    if own is not None:
        return Part(schema=own, param="json_schema")
    if request.response_schema is not None:
        return Part(schema=request.response_schema, param="response_format")
    said = request.response_format or {}
    kind = said.get("type")
    if kind not in ("json_object", "json_schema"):
        return None
    described = said.get("json_schema", said)
    schema = described.get("schema") if isinstance(described, dict) else None
    return Part(schema=_ANY_OBJECT if schema is None else schema, param="response_format")


def _asked_with(request: LLMRequest, grammar: Grammar, has_llguidance: bool) -> LLMRequest:
    """``request`` in the form that the engine enforces."""
    options = {k: v for k, v in request.provider_options.items() if k != "json_schema"}
    if has_llguidance:
        return evolve(
            request,
            response_schema=None,
            response_format=None,
            provider_options={**options, "grammar": grammar.text},
        )
    # Its own reading of the narrowed schema is laxer; the judge has the last word there too.
    described = {"name": "answer", "strict": True, "schema": grammar.schema}
    return evolve(
        request,
        response_schema=grammar.schema,
        response_format={"type": "json_schema", "json_schema": described},
        provider_options=options,
    )


@cache
def _llamacpp_has_llguidance() -> bool:
    """Whether the engine's library was built with llguidance; without it, its grammars kill it."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as bytes_:
            if bytes_.find(b"llg_new_") >= 0:
                return True
    return False


def _check_own_grammar(request: LLMRequest, has_llguidance: bool) -> None:
    """Refuse a caller's llguidance grammar that the engine would leave out without a word."""
    own: Any = request.provider_options.get("grammar")
    if not isinstance(own, str) or not own.startswith("%llguidance"):
        return
    if not has_llguidance:
        raise LLMInvalidRequestError(
            "this build of the engine takes GBNF grammars only", param="grammar", code="unsupported"
        )
    complaint = why_not(own)
    if complaint is not None:
        raise LLMInvalidRequestError(
            f"this grammar cannot be held: {complaint[:300]}", param="grammar", code="invalid_value"
        )


def _is_json(text: str) -> bool:
    try:
        wire_json.decode_reply(text.encode())
    except LLMBadResponseError:
        return False
    return True
