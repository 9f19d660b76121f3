"""What comes of a call to the child, as the rest of the program has it."""

from __future__ import annotations

import sys
import uuid
from array import array
from collections.abc import AsyncGenerator

from attrs import evolve

from headrace.backends.local.folders.frames import Begun, Hello, Output, Vectors
from headrace.backends.local.folders.line import Answer
from headrace.backends.local.inbox import Inbox
from headrace.backends.local.thoughts import Thoughts
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import (
    FinishReason,
    LLMDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from headrace.net.clock import Clock


async def deltas(
    inbox: Inbox[Answer], request: LLMRequest, hello: Hello, model: str, marks: Marks, clock: Clock
) -> AsyncGenerator[LLMDelta, None]:
    """The pieces of the answers to ``request``, by a model that said ``hello``, and their usage."""
    pending = set(range(request.n or 1))
    # What a grammar holds is the answer itself, from its first letter on.
    is_held = bool(request.provider_options.get("grammar"))
    is_parted = hello.reasons and request.prompt is None and not is_held
    thoughts: dict[int, Thoughts] = {}
    made: dict[int, int] = {}
    prompt_tokens = 0
    opening = LLMDelta(
        model=model,
        response_id=f"chatcmpl-{uuid.uuid4().hex}",
        system_fingerprint=hello.fingerprint,
    )
    while pending:
        for message in await inbox.take():
            if isinstance(message, Begun):
                prompt_tokens = message.prompt_tokens
                if is_parted:
                    thoughts = {place: Thoughts(begun=message.thinks) for place in pending}
            if not isinstance(message, Output):
                continue
            if marks.first_byte is None:
                marks.first_byte = clock.monotonic()
            delta = _delta(message, thoughts.get(message.place))
            if message.place not in made:
                delta = evolve(
                    delta,
                    model=opening.model,
                    response_id=opening.response_id,
                    system_fingerprint=opening.system_fingerprint,
                )
            made[message.place] = message.tokens
            yield delta
            if message.reason is not None:
                pending.discard(message.place)
    written = sum(made.values())
    yield LLMDelta(
        usage_delta=Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=written,
            total_tokens=prompt_tokens + written,
        )
    )


def apart(made: Vectors) -> list[array[float]]:
    """The vectors one by one."""
    floats = array("f")
    floats.frombytes(made.floats)
    if sys.byteorder != "little":
        floats.byteswap()
    size = made.dimensions
    return [floats[begin : begin + size] for begin in range(0, len(floats), size)]


def _delta(output: Output, thoughts: Thoughts | None) -> LLMDelta:
    text, reasoning = output.text, ""
    if thoughts is not None:
        said = thoughts.feed(text)
        text, reasoning = said.text, said.reasoning
        if output.reason is not None:
            rest = thoughts.close()
            text, reasoning = text + rest.text, reasoning + rest.reasoning
    logprobs = tuple(
        TokenLogprob(
            token=piece.decode(errors="replace"),
            logprob=logprob,
            token_bytes=piece,
            top=tuple(
                TopLogprob(token=each.decode(errors="replace"), logprob=value, token_bytes=each)
                for each, value in top
            ),
        )
        for piece, logprob, top in output.logprobs
    )
    finish: FinishReason | None = None
    if output.reason is not None:
        finish = "length" if output.reason == "length" else "stop"
    return LLMDelta(
        text_delta=text or None,
        reasoning_delta=reasoning or None,
        logprobs=logprobs or None,
        index=output.place,
        finish_reason=finish,
        raw_finish_reason=output.reason,
        stop_sequence=output.stopped_by,
    )
