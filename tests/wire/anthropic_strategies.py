"""Arbitrary requests, answers and streams, as far as Anthropic's format can carry them."""

import json

from hypothesis import strategies as st

from headrace.contracts.messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.contracts.responses import LLMDelta, LLMResponse, ToolCallDelta, Usage

from .strategies import counts, full_texts, json_values, maybe, schemas, texts, words

caches = maybe(st.sampled_from(["5m", "1h"]))
# A key of this name alone is how arguments that are no object are handed back.
arguments = st.dictionaries(words, json_values, max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
) | st.sampled_from(["not JSON", '{"cut": "off', "[1]"])
tool_calls = st.builds(ToolCall, name=words, arguments_json=arguments, call_id=words)
image_parts = st.builds(
    ImagePart, url=st.sampled_from(["http://x.test/a.png", "https://x.test/ü.jpg"]), cache=caches
) | st.builds(
    ImagePart,
    data=st.binary(min_size=1, max_size=9),
    media_type=st.sampled_from(["image/png", "image/webp"]),
    cache=caches,
)
file_parts = st.one_of(
    st.builds(FilePart, file_id=words, filename=maybe(texts), cache=caches),
    st.builds(FilePart, file_id=words, media_type=st.just("image/*"), cache=caches),
    st.builds(FilePart, url=st.just("https://x.test/a.pdf"), filename=maybe(texts)),
    st.builds(
        FilePart,
        data=st.binary(min_size=1, max_size=9),
        media_type=st.just("application/pdf"),
        filename=maybe(texts),
        cache=caches,
    ),
    st.builds(
        FilePart, data=full_texts.map(str.encode), media_type=st.just("text/plain"), cache=caches
    ),
)
text_parts = st.builds(TextPart, text=full_texts, cache=caches)


def contents(parts, least=1):
    """Text, or parts that are more than one plain text."""
    several = st.lists(parts, min_size=least, max_size=3).map(tuple)
    return texts | several.filter(
        lambda found: len(found) != 1 or not isinstance(found[0], TextPart) or found[0].cache
    )


def _reasoned(parts):
    parts = tuple(parts)
    return {
        "reasoning_parts": parts,
        "reasoning": "".join(part.text for part in parts) or None,
    }


sealed = st.builds(ReasoningPart, text=texts, signature=words)
hidden = st.builds(ReasoningPart, encrypted=words)
thoughts = st.lists(sealed | hidden, max_size=2).map(_reasoned)


@st.composite
def turns(draw):
    """One turn that is no system prompt; results and what follows them are turns of their own."""
    role = draw(st.sampled_from(["user", "assistant", "tool"]))
    if role == "assistant":
        calls = draw(st.lists(tool_calls, max_size=2).map(tuple))
        thought = draw(thoughts)
        content = draw(contents(text_parts))
        if not calls and not thought["reasoning_parts"] and content == "":
            content = "something"
        return LLMMessage(role="assistant", content=content, tool_calls=calls, **thought)
    content = draw(contents(text_parts | image_parts | file_parts))
    if role == "user":
        return LLMMessage(role="user", content=content)
    if not isinstance(content, str):
        # Only a result as a whole can be marked, which its last part says here.
        content = tuple(
            _unmarked(part) if i < len(content) - 1 else part for i, part in enumerate(content)
        )
    return LLMMessage(
        role="tool",
        content=content,
        tool_call_id=draw(words),
        tool_error=draw(maybe(st.booleans())),
    )


def _unmarked(part):
    from attrs import evolve

    return evolve(part, cache=None)


systems = st.builds(LLMMessage, role=st.just("system"), content=contents(text_parts))
tools = st.builds(
    ToolSpec,
    name=words,
    description=texts,
    input_schema=schemas,
    strict=maybe(st.booleans()),
    cache=caches,
)


@st.composite
def reasoning(draw):
    """Effort, alone or with Anthropic's own settings beside it."""
    effort = draw(maybe(st.sampled_from(["none", "low", "medium", "high", "xhigh", "max"])))
    kind = draw(st.sampled_from(["plain", "plain", "budget", "display"]))
    if kind == "plain":
        return effort, {}
    if kind == "display":
        word = draw(st.sampled_from(["low", "high", "max"]))
        return word, {"thinking": {"type": "adaptive", "display": "omitted"}}
    budget = draw(st.integers(1024, 50000))
    word = "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"
    return word, {"thinking": {"type": "enabled", "budget_tokens": budget}}


@st.composite
def messages_requests(draw):
    offered = draw(st.lists(tools, max_size=3).map(tuple))
    choices = ["auto"]
    if offered:
        choices += ["required", NamedTool(name=offered[0].name)]
    choice = draw(maybe(st.sampled_from([*choices, "none"])))
    parallel = draw(maybe(st.booleans())) if choice not in (None, "none") else None
    opening = draw(maybe(systems))
    said = draw(st.lists(turns(), min_size=1, max_size=4))
    effort, options = draw(reasoning())
    return LLMRequest(
        messages=(() if opening is None else (opening,)) + tuple(said),
        model=draw(texts),
        max_tokens=draw(counts),
        tools=offered,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_schema=draw(maybe(schemas)),
        temperature=draw(maybe(st.floats(0, 1))),
        top_p=draw(maybe(st.floats(0, 1))),
        top_k=draw(maybe(st.integers(1, 1000))),
        stop=draw(st.lists(texts, max_size=3).map(tuple)),
        user=draw(maybe(texts)),
        reasoning_effort=effort,
        provider_options={
            **draw(st.dictionaries(words.map("x_{}".format), json_values, max_size=2)),
            **options,
        },
    )


@st.composite
def usages(draw):
    fresh, read, write, text, thought = (draw(st.integers(0, 10**6)) for _ in range(5))
    apart, split = draw(st.booleans()), draw(st.booleans())
    return Usage(
        prompt_tokens=fresh + read + write,
        completion_tokens=text + thought,
        total_tokens=fresh + read + write + text + thought,
        input_uncached_tokens=fresh if apart else None,
        input_cache_read_tokens=read if apart else None,
        input_cache_write_tokens=write if apart else None,
        output_text_tokens=text if split else None,
        output_reasoning_tokens=thought if split else None,
    )


endings = st.sampled_from(
    [
        ("stop", "end_turn", None),
        ("stop", "stop_sequence", "###"),
        ("length", "max_tokens", None),
        ("tool_calls", "tool_use", None),
        ("content_filter", "refusal", None),
        ("other", "pause_turn", None),
        ("length", "model_context_window_exceeded", None),
    ]
)


@st.composite
def answers(draw):
    reason, raw, stop_sequence = draw(endings)
    return LLMResponse(
        text=draw(texts),
        model=draw(full_texts),
        response_id=draw(words),
        finish_reason=reason,
        raw_finish_reason=raw,
        stop_sequence=stop_sequence,
        tool_calls=draw(st.lists(tool_calls, max_size=2).map(tuple)),
        usage=draw(usages()),
        **draw(thoughts),
    )


@st.composite
def streams(draw):
    """Deltas of one answer, pieces in any order; the reason to stop and the usage come last."""
    pieces = []
    number = 0
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["text", "thought", "hidden", "call"]))
        if kind == "text":
            pieces += [{"text_delta": text} for text in draw(st.lists(full_texts, max_size=4))]
        elif kind == "thought":
            said = draw(st.lists(full_texts, max_size=2))
            pieces += [{"reasoning_delta": text} for text in said]
            seal = ReasoningPart(text="".join(said), signature=draw(words))
            pieces.append({"reasoning_part": seal})
        elif kind == "hidden":
            pieces.append({"reasoning_part": draw(hidden)})
        else:
            first = ToolCallDelta(
                call_id=draw(words), name=draw(words), arguments_json_delta="", index=number
            )
            pieces.append({"tool_call_delta": first})
            for part in draw(st.lists(full_texts, min_size=1, max_size=3)):
                piece = ToolCallDelta(arguments_json_delta=part, index=number)
                pieces.append({"tool_call_delta": piece})
            number += 1
    reason, raw, stop_sequence = draw(endings)
    pieces.append(
        {"finish_reason": reason, "raw_finish_reason": raw, "stop_sequence": stop_sequence}
    )
    pieces.append({"usage_delta": draw(usages())})
    return [LLMDelta(model="m", response_id="id", **piece) for piece in pieces]
