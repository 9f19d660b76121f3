"""What streams cost, reckoned a second time: by the script's own truth and the published prices.

Each provider's stream is written here from the numbers that it is to tell, goes through a client in
pieces cut anywhere, and the record has to say the same tokens and, to the last decimal, the same
money. ``HEADRACE_FULL_COSTS=1`` plays 10,000 of them (make test-costs).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from attrs import frozen
from genai_prices.data_snapshot import get_snapshot

from headrace import AsyncClient, CallRecord
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport

STREAMS = 10_000 if os.environ.get("HEADRACE_FULL_COSTS") == "1" else 400
AT_ONCE = 50
Json = dict[str, Any]
ASK = LLMRequest(messages=(LLMMessage(role="user", content="Hello"),))


@frozen(kw_only=True)
class Truth:
    """What one stream is about: tokens of each kind, and how far its caller listens."""

    fresh: int
    read: int
    wrote: int
    thought: int
    text: int
    calls: bool
    tells_usage: bool
    leaves: bool

    @property
    def prompt(self) -> int:
        return self.fresh + self.read + self.wrote

    @property
    def answer(self) -> int:
        return self.thought + self.text


@frozen(kw_only=True)
class Script:
    """One provider: who is asked, who has its prices, and how it streams.

    ``begins_with`` says how many tokens of output are told before the first was made, where usage
    is told at a stream's beginning.
    """

    model: str
    priced_at: tuple[str, str] | None
    stream: Callable[[Truth], list[bytes]]
    caches: bool = True
    writes_cache: bool = False
    thinks: bool = True
    begins_with: int | None = None
    type: str = "text/event-stream"


def event(value: Json, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


WORDS = ["Well", ", ", "it ", "flows", "."]
ARGUMENTS = ['{"ci', 'ty": "Zürich"}']


def openai(truth: Truth) -> list[bytes]:
    def chunk(delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})

    said = [chunk({"role": "assistant", "content": ""})]
    if truth.calls:
        function = {"name": "weather", "arguments": ""}
        call: Json = {"index": 0, "id": "call_1", "type": "function", "function": function}
        said.append(chunk({"tool_calls": [call]}))
        for piece in ARGUMENTS:
            said.append(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
    else:
        said += [chunk({"content": word}) for word in WORDS]
    said.append(chunk({}, "tool_calls" if truth.calls else "stop"))
    if truth.tells_usage:
        usage = {
            "prompt_tokens": truth.prompt,
            "completion_tokens": truth.answer,
            "total_tokens": truth.prompt + truth.answer,
            "prompt_tokens_details": {"cached_tokens": truth.read},
            "completion_tokens_details": {"reasoning_tokens": truth.thought},
        }
        said.append(event({"id": "c", "choices": [], "usage": usage}))
    return [*said, b"data: [DONE]\n\n"]


def responses(truth: Truth) -> list[bytes]:
    said: list[bytes] = []

    def tell(kind: str, **fields: Any) -> None:
        wire = {"type": kind, "sequence_number": len(said), **fields}
        said.append(event(wire, kind))

    begun = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    tell("response.created", response=begun)
    if truth.calls:
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather"}
        tell("response.output_item.added", output_index=0, item={**item, "arguments": ""})
        for piece in ARGUMENTS:
            kind = "response.function_call_arguments.delta"
            tell(kind, item_id="fc_1", output_index=0, delta=piece)
        whole = {**item, "arguments": "".join(ARGUMENTS)}
    else:
        item = {"type": "message", "id": "msg_1", "role": "assistant"}
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        tell("response.output_item.added", output_index=0, item={**item, "content": []})
        for word in WORDS:
            tell("response.output_text.delta", **place, delta=word)
        text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
        whole = {**item, "content": [text]}
    tell("response.output_item.done", output_index=0, item=whole)
    usage = {
        "input_tokens": truth.prompt,
        "input_tokens_details": {"cached_tokens": truth.read},
        "output_tokens": truth.answer,
        "output_tokens_details": {"reasoning_tokens": truth.thought},
        "total_tokens": truth.prompt + truth.answer,
    }
    ended = {**begun, "status": "completed", "output": [whole]}
    ended["usage"] = usage if truth.tells_usage else None
    tell("response.completed", response=ended)
    return said


def anthropic(truth: Truth) -> list[bytes]:
    said: list[bytes] = []

    def tell(kind: str, **fields: Any) -> None:
        said.append(event({"type": kind, **fields}, kind))

    message: Json = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    if truth.tells_usage:
        message["usage"] = {
            "input_tokens": truth.fresh,
            "cache_read_input_tokens": truth.read,
            "cache_creation_input_tokens": truth.wrote,
            "output_tokens": 1,
        }
    tell("message_start", message=message)
    if truth.calls:
        block: Json = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
        pieces: list[Json] = [{"type": "input_json_delta", "partial_json": a} for a in ARGUMENTS]
    else:
        block = {"type": "text", "text": ""}
        pieces = [{"type": "text_delta", "text": word} for word in WORDS]
    tell("content_block_start", index=0, content_block=block)
    tell("ping")
    for piece in pieces:
        tell("content_block_delta", index=0, delta=piece)
    tell("content_block_stop", index=0)
    reason = "tool_use" if truth.calls else "end_turn"
    usage = {"usage": {"output_tokens": truth.answer}} if truth.tells_usage else {}
    tell("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, **usage)
    tell("message_stop")
    return said


def gemini(truth: Truth) -> list[bytes]:
    # What is thought of is counted beside the candidates' tokens, and told with every piece.
    usage = {
        "promptTokenCount": truth.prompt,
        "cachedContentTokenCount": truth.read,
        "candidatesTokenCount": truth.text,
        "thoughtsTokenCount": truth.thought,
        "totalTokenCount": truth.prompt + truth.answer,
    }

    def piece(parts: list[Json], reason: str | None = None) -> bytes:
        candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
        if reason is not None:
            candidate["finishReason"] = reason
        told: Json = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash-lite"}
        if truth.tells_usage and reason is not None:
            told["usageMetadata"] = usage
        return event(told)

    if truth.calls:
        call = {"name": "weather", "args": json.loads("".join(ARGUMENTS)), "id": "call_1"}
        said = [piece([{"text": "I look."}]), piece([{"functionCall": call}])]
    else:
        said = [piece([{"text": word}]) for word in WORDS]
    return [*said, piece([{"text": ""}], "STOP")]


def ollama(truth: Truth) -> list[bytes]:
    def line(message: Json, **more: Any) -> bytes:
        told = {"model": "m", "created_at": "2026-11-29T10:00:00Z", "done": False}
        message = {"role": "assistant", "content": "", **message}
        return json.dumps({**told, "message": message, **more}).encode() + b"\n"

    if truth.calls:
        arguments = json.loads("".join(ARGUMENTS))
        call = {"function": {"name": "weather", "arguments": arguments}}
        said = [line({"content": "I look."}), line({"tool_calls": [call]})]
    else:
        said = [line({"content": word}) for word in WORDS]
    counts = {"prompt_eval_count": truth.prompt, "eval_count": truth.answer}
    times = {"total_duration": 9_000_000, "eval_duration": 5_000_000}
    told = {**counts, **times} if truth.tells_usage else times
    return [*said, line({}, **{"done": True, "done_reason": "stop", **told})]


SCRIPTS = {
    "openai": Script(model="openai/gpt-5-mini", priced_at=("openai", "gpt-5-mini"), stream=openai),
    "openai-responses": Script(
        model="openai-responses/gpt-5-mini",
        priced_at=("openai", "gpt-5-mini"),
        stream=responses,
    ),
    "anthropic": Script(
        model="anthropic/claude-haiku-4-5",
        priced_at=("anthropic", "claude-haiku-4-5"),
        stream=anthropic,
        writes_cache=True,
        thinks=False,
        begins_with=1,
    ),
    "gemini": Script(
        model="gemini/gemini-2.5-flash-lite",
        priced_at=("google", "gemini-2.5-flash-lite"),
        stream=gemini,
    ),
    # What runs at home has no price that anybody publishes, and tells no parts.
    "ollama": Script(
        model="ollama/qwen3",
        priced_at=None,
        stream=ollama,
        caches=False,
        thinks=False,
        type="application/x-ndjson",
    ),
}


def truth_of(script: Script, chance: Random) -> Truth:
    cached = script.caches and chance.random() < 0.5
    return Truth(
        fresh=chance.randrange(1, 20_000),
        read=chance.randrange(0, 20_000) if cached else 0,
        wrote=chance.randrange(0, 20_000) if cached and script.writes_cache else 0,
        thought=chance.randrange(0, 9_000) if script.thinks and chance.random() < 0.5 else 0,
        text=chance.randrange(1, 9_000),
        calls=chance.random() < 0.3,
        tells_usage=chance.random() < 0.85,
        leaves=chance.random() < 0.2,
    )


def cut(data: bytes, chance: Random) -> tuple[bytes, ...]:
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(6)))
    return tuple(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))


def cost(script: Script, fresh: int, read: int, wrote: int, answer: int) -> Fraction | None:
    """By the published table, which has US dollars for a million tokens."""
    if script.priced_at is None:
        return None
    provider, model = script.priced_at
    (found,) = [each for each in get_snapshot().providers if each.id == provider]
    info = found.find_model(model)
    assert info is not None
    assert not isinstance(info.prices, list)
    listed = info.prices
    rates = [listed.input_mtok, listed.cache_read_mtok, listed.cache_write_mtok, listed.output_mtok]
    counts = [fresh, read, wrote, answer]
    total = Fraction(0)
    for count, rate in zip(counts, rates, strict=True):
        if count:
            assert isinstance(rate, Decimal)
            total += count * Fraction(rate)
    return total / 1_000_000


async def play(script: Script, truth: Truth, chance: Random) -> CallRecord:
    """One stream through a client; the record that it left."""
    records: list[CallRecord] = []
    said = script.stream(truth)
    if truth.leaves:  # its caller hears the beginning, and the rest never comes
        body = cut(b"".join(said[: max(1, len(said) - 3)]), chance)
        answer = ScriptedAnswer(headers=(("content-type", script.type),), body=body, fault="hang")
    else:
        body = cut(b"".join(said), chance)
        answer = ScriptedAnswer(headers=(("content-type", script.type),), body=body)
    client = AsyncClient(
        script.model,
        api_key="sk-not-real",
        transport=ScriptedTransport([answer]),
        sinks=[records.append],
    )
    stream = client.stream(ASK)
    async for _ in stream:
        if truth.leaves:
            break
    await stream.aclose()
    (record,) = records
    return record


def check(script: Script, truth: Truth, record: CallRecord) -> None:
    usage = record.usage
    if truth.leaves:
        assert record.error_kind == "LLMCancelledError"
    else:
        assert record.error_kind is None
    answer: int | None = truth.answer
    if truth.leaves:
        answer = script.begins_with
    if not truth.tells_usage or answer is None:
        assert usage is None
        assert record.price_usd is None
        return
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (truth.prompt, answer)
    assert (usage.input_cache_read_tokens or 0) == truth.read
    assert (usage.input_cache_write_tokens or 0) == truth.wrote
    if script.thinks:
        assert (usage.output_reasoning_tokens or 0) == truth.thought
    expected = cost(script, truth.fresh, truth.read, truth.wrote, answer)
    if expected is None:
        assert record.price_usd is None
    else:
        assert record.price_usd is not None
        assert Fraction(record.price_usd) == expected


@pytest.mark.parametrize("name", SCRIPTS)
def test_tokens_and_cost_of_scripted_streams_are_right_to_the_last_decimal(name: str) -> None:
    script, chance = SCRIPTS[name], Random(f"costs of {name}")
    count = STREAMS // len(SCRIPTS)

    async def all_of_them() -> list[tuple[Truth, CallRecord]]:
        found = []
        for begin in range(0, count, AT_ONCE):
            truths = [truth_of(script, chance) for _ in range(min(AT_ONCE, count - begin))]
            records = await asyncio.gather(*(play(script, truth, chance) for truth in truths))
            found += list(zip(truths, records, strict=True))
        return found

    played = asyncio.run(all_of_them())
    for truth, record in played:
        check(script, truth, record)
    # The script has all that it is to have.
    assert any(truth.leaves and truth.tells_usage for truth, _ in played)
    assert any(not truth.leaves and not truth.tells_usage for truth, _ in played)
    assert any(truth.calls and bool(truth.read) is script.caches for truth, _ in played)
