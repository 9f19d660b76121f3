"""Arbitrary requests, answers and streams, as far as OpenAI's formats can carry them."""

from hypothesis import strategies as st

from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
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

texts = st.text(max_size=12)
full_texts = st.text(min_size=1, max_size=12)
words = st.text("abcxyz_-0123456789", min_size=1, max_size=8)
counts = st.integers(0, 2**31 - 1)
json_texts = st.sampled_from(["{}", '{"city":"Zürich"}', '{"q":"a \\"quoted\\" thing"}', "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def maybe(strategy):
    return st.none() | strategy


text_parts = st.builds(TextPart, text=texts)
image_parts = st.builds(
    ImagePart,
    url=st.sampled_from(["http://x.test/a.png", "https://x.test/ü.jpg?a=1,2;3"]),
    detail=maybe(st.sampled_from(["auto", "low", "high"])),
) | st.builds(
    ImagePart,
    data=st.binary(max_size=9),
    media_type=st.sampled_from(["image/png", "image/svg+xml;charset=utf-8"]),
    detail=maybe(st.sampled_from(["auto", "low", "high"])),
)
audio_parts = st.builds(
    AudioPart, data=st.binary(min_size=1, max_size=9), format=st.sampled_from(["wav", "mp3"])
)
file_parts = st.builds(FilePart, file_id=words, filename=maybe(texts)) | st.builds(
    FilePart,
    data=st.binary(min_size=1, max_size=9),
    filename=maybe(texts),
    media_type=maybe(st.just("application/pdf")),
)
any_content = texts | st.lists(
    text_parts | image_parts | audio_parts | file_parts, min_size=1, max_size=3
).map(tuple)
text_content = texts | st.lists(text_parts, min_size=1, max_size=3).map(tuple)
tool_calls = st.builds(ToolCall, name=words, arguments_json=json_texts, call_id=words)
messages = st.one_of(
    st.builds(LLMMessage, role=st.just("system"), content=text_content, name=maybe(words)),
    st.builds(LLMMessage, role=st.just("user"), content=any_content, name=maybe(words)),
    st.builds(
        LLMMessage,
        role=st.just("assistant"),
        content=text_content,
        name=maybe(words),
        tool_calls=st.lists(tool_calls, max_size=2).map(tuple),
        reasoning=maybe(texts),
        refusal=maybe(texts),
    ),
    st.builds(
        LLMMessage,
        role=st.just("tool"),
        content=any_content,
        tool_call_id=words,
        tool_name=maybe(words),
    ),
)

schemas = st.fixed_dictionaries(
    {
        "type": st.just("object"),
        "properties": st.dictionaries(
            words,
            st.sampled_from(
                [
                    {"type": "string"},
                    {"type": ["integer", "null"]},
                    {"type": "array", "items": {"$ref": "#/$defs/a"}},
                    {"anyOf": [{"const": 1}, True]},
                ]
            ),
            max_size=3,
        ),
    },
    optional={"required": st.lists(words, max_size=2), "additionalProperties": st.booleans()},
)
tools = st.builds(
    ToolSpec, name=words, description=texts, input_schema=schemas, strict=maybe(st.booleans())
)

settings_shared = {
    "model": maybe(texts),
    "temperature": maybe(st.floats(0, 2)),
    "max_tokens": maybe(counts),
    "top_p": maybe(st.floats(0, 1)),
    "top_k": maybe(st.integers(-1, 1000)),
    "min_p": maybe(st.floats(0, 1)),
    "seed": maybe(st.integers(-(2**63), 2**64 - 1)),
    "stop": st.lists(texts, max_size=6).map(tuple),
    "frequency_penalty": maybe(st.floats(-2, 2)),
    "presence_penalty": maybe(st.floats(-2, 2)),
    "repetition_penalty": maybe(st.floats(0, 2)),
    "logit_bias": maybe(st.dictionaries(words, st.floats(-100, 100), max_size=3)),
    "n": maybe(st.integers(1, 128)),
    "user": maybe(texts),
    "provider_options": st.dictionaries(words.map("x_{}".format), json_values, max_size=3),
}


@st.composite
def chat_requests(draw):
    offered = draw(st.lists(tools, max_size=3).map(tuple))
    choices = ["auto", "none"]
    if offered:
        choices += ["required", NamedTool(name=offered[0].name)]
    schema = draw(maybe(schemas))
    response_format = draw(maybe(st.sampled_from([{"type": "text"}, {"type": "json_object"}])))
    if schema is not None:
        described = {"name": "answer", "schema": schema, "strict": draw(st.booleans())}
        response_format = {"type": "json_schema", "json_schema": described}
    asks_logprobs = draw(maybe(st.booleans()))
    return LLMRequest(
        messages=draw(st.lists(messages, min_size=1, max_size=4).map(tuple)),
        tools=offered,
        tool_choice=draw(maybe(st.sampled_from(choices))),
        parallel_tool_calls=draw(maybe(st.booleans())),
        response_schema=schema,
        response_format=response_format,
        logprobs=asks_logprobs,
        top_logprobs=draw(maybe(st.integers(0, 20))) if asks_logprobs else None,
        reasoning_effort=draw(maybe(st.sampled_from(["none", "minimal", "high", "max"]))),
        **{name: draw(strategy) for name, strategy in settings_shared.items()},
    )


@st.composite
def completion_requests(draw):
    asks_logprobs = draw(maybe(st.just(True)))
    return LLMRequest(
        messages=(),
        prompt=draw(texts | st.lists(counts, min_size=1, max_size=4).map(tuple)),
        suffix=draw(maybe(texts)),
        echo=draw(maybe(st.booleans())),
        logprobs=asks_logprobs,
        top_logprobs=draw(st.integers(0, 20)) if asks_logprobs else None,
        **{name: draw(strategy) for name, strategy in settings_shared.items()},
    )


logprob_values = st.floats(-100, 0)
tops = st.builds(
    TopLogprob, token=texts, logprob=logprob_values, token_bytes=maybe(st.binary(max_size=4))
)
token_logprobs = st.builds(
    TokenLogprob,
    token=texts,
    logprob=logprob_values,
    token_bytes=maybe(st.binary(max_size=4)),
    top=st.lists(tops, max_size=2).map(tuple),
)
plain_token_logprobs = st.builds(
    TokenLogprob,
    token=texts,
    logprob=logprob_values,
    top=st.dictionaries(texts, logprob_values, max_size=2).map(
        lambda found: tuple(TopLogprob(token=t, logprob=p) for t, p in found.items())
    ),
)


@st.composite
def usages(draw):
    fresh, read, write, text, thought = (draw(st.integers(0, 10**6)) for _ in range(5))
    splits_input, splits_output = draw(st.booleans()), draw(st.booleans())
    return Usage(
        prompt_tokens=fresh + read + write,
        completion_tokens=text + thought,
        total_tokens=fresh + read + write + text + thought,
        input_uncached_tokens=fresh if splits_input else None,
        input_cache_read_tokens=read if splits_input else None,
        input_cache_write_tokens=write if splits_input else None,
        output_text_tokens=text if splits_output else None,
        output_reasoning_tokens=thought if splits_output else None,
    )


def _with_first_fields(choices, **fields):
    first = choices[0]
    return LLMResponse(
        text=first.text,
        finish_reason=first.finish_reason,
        raw_finish_reason=first.raw_finish_reason,
        tool_calls=first.tool_calls,
        reasoning=first.reasoning,
        refusal=first.refusal,
        logprobs=first.logprobs,
        choices=tuple(choices) if len(choices) > 1 else (),
        **fields,
    )


@st.composite
def responses(draw, chat=True):
    """Whole answers; a chat's have calls, reasoning and refusals besides text."""
    found = []
    for index in range(draw(st.integers(1, 3))):
        reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
        said = {}
        if chat:
            said = {
                "tool_calls": draw(st.lists(tool_calls, max_size=2).map(tuple)),
                "reasoning": draw(maybe(full_texts)),
                "refusal": draw(maybe(full_texts)),
            }
        pieces = token_logprobs if chat else plain_token_logprobs
        choice = LLMChoice(
            index=index,
            text=draw(texts),
            finish_reason=reason,
            raw_finish_reason=reason,
            logprobs=draw(maybe(st.lists(pieces, min_size=1, max_size=3).map(tuple))),
            **said,
        )
        found.append(choice)
    return _with_first_fields(
        found,
        model=draw(full_texts),
        response_id=draw(words),
        created=draw(counts),
        usage=draw(maybe(usages())),
    )


@st.composite
def streams(draw):
    """Deltas of a chat with up to two choices, interleaved; each choice comes to its end."""
    queues = []
    for index in range(draw(st.integers(1, 2))):
        pieces = [{"text_delta": text} for text in draw(st.lists(full_texts, max_size=5))]
        pieces += [{"reasoning_delta": text} for text in draw(st.lists(full_texts, max_size=2))]
        pieces += [{"refusal_delta": text} for text in draw(st.lists(full_texts, max_size=1))]
        for number, call in enumerate(draw(st.lists(tool_calls, max_size=2))):
            begin = ToolCallDelta(
                call_id=call.call_id, name=call.name, arguments_json_delta="", index=number
            )
            rest = ToolCallDelta(arguments_json_delta=call.arguments_json, index=number)
            pieces += [{"tool_call_delta": begin}, {"tool_call_delta": rest}]
        reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
        pieces.append({"finish_reason": reason, "raw_finish_reason": reason})
        queues.append([(index, piece) for piece in pieces])
    deltas = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        index, piece = queue.pop(0)
        deltas.append(LLMDelta(index=index, model="m", response_id="id", **piece))
    usage = draw(maybe(usages()))
    if usage is not None:
        deltas.append(LLMDelta(usage_delta=usage, model="m", response_id="id"))
    return deltas


@st.composite
def choppings(draw, data):
    """``data`` in pieces."""
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12).map(sorted))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
