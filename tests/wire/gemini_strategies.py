"""Arbitrary requests, answers and streams, as far as Gemini's format can carry them."""

import json

from hypothesis import strategies as st

from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import (
    LLMChoice,
    LLMDelta,
    LLMResponse,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from headrace.wire.gemini_seals import TEXT_SEAL, THOUGHT_SEAL, call_seal

from .strategies import (
    full_texts,
    json_texts,
    json_values,
    logprob_values,
    maybe,
    schemas,
    texts,
    words,
)

limits = st.integers(1, 2**31 - 1)
arguments = st.dictionaries(words, json_values, max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
) | st.sampled_from(["not JSON", '{"cut": "off', "[1]"])
tool_calls = st.builds(ToolCall, name=words, arguments_json=arguments, call_id=words)
seals = st.binary(min_size=1, max_size=9).map(lambda data: "Q" + data.hex())

text_parts = st.builds(TextPart, text=texts)
image_parts = st.builds(
    ImagePart, url=st.sampled_from(["http://x.test/a.png", "https://x.test/ü?a=1"])
) | st.builds(
    ImagePart,
    data=st.binary(min_size=1, max_size=9),
    media_type=st.sampled_from(["image/png", "image/webp"]),
)
audio_parts = st.builds(
    AudioPart, data=st.binary(min_size=1, max_size=9), format=st.sampled_from(["wav", "mp3"])
)
file_parts = st.one_of(
    st.builds(FilePart, file_id=words.map(lambda word: word.replace("_", "-"))),
    st.builds(FilePart, file_id=st.just("gs://bucket/a"), media_type=maybe(st.just("video/mp4"))),
    st.builds(FilePart, url=st.sampled_from(["https://x.test/a.pdf", "https://x.test/b"])),
    st.builds(
        FilePart,
        data=st.binary(min_size=1, max_size=9),
        media_type=st.sampled_from(["application/pdf", "text/markdown"]),
    ),
)


def contents(parts):
    """Text, or parts that are more than one plain text."""
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return texts | several.filter(
        lambda found: len(found) != 1 or not isinstance(found[0], TextPart)
    )


def signed(text, signature, place):
    return ReasoningPart(text=text, signature=signature, part_id=f"{THOUGHT_SEAL}{place}")


@st.composite
def thoughts(draw, calls, has_text):
    """What was thought, with signatures where Gemini puts them: on thoughts, the text or calls."""
    said = draw(st.lists(full_texts, max_size=2))
    parts = [signed(text, draw(seals), place) for place, text in enumerate(said)]
    if has_text and draw(st.booleans()):
        parts.append(ReasoningPart(signature=draw(seals), part_id=TEXT_SEAL))
    for number in range(calls):
        if draw(st.booleans()):
            parts.append(ReasoningPart(signature=draw(seals), part_id=call_seal(number)))
    if not parts and draw(st.booleans()):
        return {"reasoning": draw(full_texts)}
    return {"reasoning": "".join(said) or None, "reasoning_parts": tuple(parts)}


@st.composite
def turns(draw):
    """One turn that is no system prompt; results name their function."""
    role = draw(st.sampled_from(["user", "assistant", "tool"]))
    if role == "assistant":
        calls = draw(st.lists(tool_calls, max_size=2).map(tuple))
        said = draw(texts)
        return LLMMessage(
            role="assistant",
            content=said,
            tool_calls=calls,
            **draw(thoughts(len(calls), bool(said))),
        )
    if role == "user":
        parts = text_parts | image_parts | audio_parts | file_parts
        return LLMMessage(role="user", content=draw(contents(parts)))
    said = draw(json_texts | texts)
    media = draw(st.lists(image_parts, max_size=1))
    return LLMMessage(
        role="tool",
        content=(TextPart(text=said), *media) if media else said,
        tool_call_id=draw(words.map("unlike any {}".format)),
        tool_name=draw(words),
        tool_error=draw(maybe(st.just(True))),
    )


systems = st.builds(LLMMessage, role=st.just("system"), content=contents(text_parts))


@st.composite
def tools(draw):
    strict = draw(maybe(st.just(True)))
    one = st.builds(
        ToolSpec, name=words, description=texts, input_schema=schemas, strict=st.just(strict)
    )
    found = draw(st.lists(one, max_size=3, unique_by=lambda tool: tool.name).map(tuple))
    # A strict tool says so by the mode, which a choice would be in the place of.
    choices = [None] if strict and found else [None, "auto", "none"]
    if found and not strict:
        choices += ["required", NamedTool(name=found[0].name)]
    return found, draw(st.sampled_from(choices))


@st.composite
def gemini_requests(draw):
    opening = draw(maybe(systems))
    said = draw(st.lists(turns(), min_size=1, max_size=4))
    offered, choice = draw(tools())
    asks_logprobs = draw(maybe(st.booleans()))
    schema = draw(maybe(schemas))
    loose = draw(maybe(st.just({"type": "json_object"}))) if schema is None else None
    return LLMRequest(
        messages=(() if opening is None else (opening,)) + tuple(said),
        tools=offered,
        tool_choice=choice,
        response_schema=schema,
        response_format=loose,
        temperature=draw(maybe(st.floats(0, 2))),
        max_tokens=draw(maybe(limits)),
        top_p=draw(maybe(st.floats(0, 1))),
        top_k=draw(maybe(st.integers(1, 1000))),
        seed=draw(maybe(st.integers(-(2**31), 2**31 - 1))),
        stop=draw(st.lists(full_texts, max_size=3).map(tuple)),
        frequency_penalty=draw(maybe(st.floats(-2, 2))),
        presence_penalty=draw(maybe(st.floats(-2, 2))),
        logprobs=asks_logprobs,
        top_logprobs=draw(maybe(st.integers(0, 20))) if asks_logprobs else None,
        n=draw(maybe(st.integers(1, 8))),
        reasoning_effort=draw(
            maybe(st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]))
        ),
        provider_options=draw(
            st.dictionaries(words.map("x_{}".format), json_values, max_size=2)
            | st.just({"safetySettings": [], "mediaResolution": "MEDIA_RESOLUTION_LOW"})
        ),
    )


@st.composite
def usages(draw):
    fresh, read, text, thought = (draw(st.integers(0, 10**6)) for _ in range(4))
    apart, split = draw(st.booleans()), draw(st.booleans())
    return Usage(
        prompt_tokens=fresh + read,
        completion_tokens=text + thought,
        total_tokens=fresh + read + text + thought,
        input_uncached_tokens=fresh if apart else None,
        input_cache_read_tokens=read if apart else None,
        output_text_tokens=text if split else None,
        output_reasoning_tokens=thought if split else None,
    )


endings = st.sampled_from(
    [
        ("stop", "STOP"),
        ("length", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
        ("content_filter", "RECITATION"),
        ("error", "MALFORMED_FUNCTION_CALL"),
        ("other", "LANGUAGE"),
    ]
)
tops = st.builds(TopLogprob, token=texts, logprob=logprob_values)
token_logprobs = st.builds(
    TokenLogprob, token=texts, logprob=logprob_values, top=st.lists(tops, max_size=2).map(tuple)
)


@st.composite
def choices(draw, index):
    calls = draw(st.lists(tool_calls, max_size=2).map(tuple))
    said = draw(texts)
    reason, raw = draw(endings)
    return LLMChoice(
        index=index,
        text=said,
        finish_reason="tool_calls" if calls and reason == "stop" else reason,
        raw_finish_reason=raw,
        tool_calls=calls,
        logprobs=draw(maybe(st.lists(token_logprobs, min_size=1, max_size=3).map(tuple))),
        **draw(thoughts(len(calls), bool(said))),
    )


@st.composite
def answers(draw):
    found = tuple(draw(choices(index)) for index in range(draw(st.integers(1, 3))))
    first = found[0]
    return LLMResponse(
        text=first.text,
        model=draw(full_texts),
        response_id=draw(words),
        finish_reason=first.finish_reason,
        raw_finish_reason=first.raw_finish_reason,
        tool_calls=first.tool_calls,
        logprobs=first.logprobs,
        reasoning=first.reasoning,
        reasoning_parts=first.reasoning_parts,
        choices=found if len(found) > 1 else (),
        usage=draw(usages()),
    )


@st.composite
def streams(draw):
    """Deltas of up to two candidates, interleaved; reasons to stop and usage come last."""
    queues = []
    for index in range(draw(st.integers(1, 2))):
        pieces = []
        for place in range(draw(st.integers(0, 2))):
            said = draw(st.lists(full_texts, min_size=1, max_size=2))
            pieces += [{"reasoning_delta": text} for text in said]
            pieces.append({"reasoning_part": signed("".join(said), draw(seals), place)})
        pieces += [{"text_delta": text} for text in draw(st.lists(full_texts, max_size=5))]
        calls = draw(st.lists(tool_calls, max_size=2))
        for number, call in enumerate(calls):
            if draw(st.booleans()):
                seal = ReasoningPart(signature=draw(seals), part_id=call_seal(number))
                pieces.append({"reasoning_part": seal})
            begin = ToolCallDelta(
                call_id=call.call_id, name=call.name, arguments_json_delta="", index=number
            )
            pieces.append({"tool_call_delta": begin})
            half = len(call.arguments_json) // 2
            for part in (call.arguments_json[:half], call.arguments_json[half:]):
                piece = ToolCallDelta(arguments_json_delta=part, index=number)
                pieces.append({"tool_call_delta": piece})
        reason, raw = draw(endings)
        if calls and reason == "stop":
            reason = "tool_calls"
        pieces.append({"finish_reason": reason, "raw_finish_reason": raw})
        queues.append([(index, piece) for piece in pieces])
    deltas = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        index, piece = queue.pop(0)
        deltas.append(LLMDelta(index=index, model="m", response_id="id", **piece))
    deltas.append(LLMDelta(usage_delta=draw(usages()), model="m", response_id="id"))
    return deltas
