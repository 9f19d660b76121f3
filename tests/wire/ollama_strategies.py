"""Arbitrary requests, answers and streams, as far as Ollama's format can carry them."""

import json

from hypothesis import strategies as st

from headrace.contracts.messages import ImagePart, LLMMessage, TextPart, ToolCall, ToolSpec
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import LLMDelta, LLMResponse, ToolCallDelta, Usage

from .strategies import full_texts, json_values, maybe, schemas, texts, token_logprobs, words

arguments = st.dictionaries(words, json_values, max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
)
tool_calls = st.builds(ToolCall, name=words, arguments_json=arguments, call_id=words)
images = st.builds(
    ImagePart,
    data=st.binary(max_size=9).map(b"\x89PNG".__add__),
    media_type=st.just("image/png"),
)
seen = st.builds(
    lambda said, shown: (TextPart(text=said), *shown) if said else tuple(shown),
    texts,
    st.lists(images, min_size=1, max_size=2),
)


@st.composite
def turns(draw):
    role = draw(st.sampled_from(["system", "user", "assistant", "tool"]))
    if role == "system":
        return LLMMessage(role=role, content=draw(texts))
    if role == "assistant":
        return LLMMessage(
            role=role,
            content=draw(texts),
            tool_calls=draw(st.lists(tool_calls, max_size=2).map(tuple)),
            reasoning=draw(maybe(full_texts)),
        )
    content = draw(texts | seen)
    if role == "user":
        return LLMMessage(role=role, content=content)
    # With its own name, or what is called by that id would be told.
    return LLMMessage(role=role, content=content, tool_call_id=draw(words), tool_name=draw(words))


tools = st.builds(ToolSpec, name=words, description=texts, input_schema=schemas.filter(bool))
settings_shared = {
    "temperature": maybe(st.floats(0, 2)),
    "max_tokens": maybe(st.integers(1, 2**31 - 1)),
    "top_p": maybe(st.floats(0, 1)),
    "top_k": maybe(st.integers(-1, 1000)),
    "min_p": maybe(st.floats(0, 1)),
    "seed": maybe(st.integers(-(2**63), 2**63 - 1)),
    "stop": st.lists(texts, max_size=3).map(tuple),
    "frequency_penalty": maybe(st.floats(-2, 2)),
    "presence_penalty": maybe(st.floats(-2, 2)),
    "repetition_penalty": maybe(st.floats(0, 2)),
}
own_fields = st.fixed_dictionaries(
    {},
    optional={
        "keep_alive": st.sampled_from(["5m", 0, -1, "24h"]),
        "num_ctx": st.integers(1, 2**20),
        "use_mmap": st.booleans(),
        "typical_p": st.floats(0, 1),
        "truncate": st.booleans(),
        "options": st.dictionaries(words.map("y_{}".format), json_values, min_size=1, max_size=2),
    },
)


@st.composite
def _requests(draw, **fields):
    asks_logprobs = draw(maybe(st.booleans()))
    schema = draw(maybe(schemas))
    loose = {"type": "json_object"} if schema is None and draw(st.booleans()) else None
    return LLMRequest(
        model=draw(words),
        response_schema=schema,
        response_format=loose,
        logprobs=asks_logprobs,
        top_logprobs=draw(maybe(st.integers(0, 20))) if asks_logprobs else None,
        reasoning_effort=draw(maybe(st.sampled_from(["none", "low", "medium", "high", "max"]))),
        provider_options={
            **draw(st.dictionaries(words.map("x_{}".format), json_values, max_size=2)),
            **draw(own_fields),
        },
        **{name: draw(strategy) for name, strategy in settings_shared.items()},
        **fields,
    )


@st.composite
def chat_requests(draw):
    return draw(
        _requests(
            messages=draw(st.lists(turns(), min_size=1, max_size=4).map(tuple)),
            tools=draw(st.lists(tools, max_size=2).map(tuple)),
        )
    )


@st.composite
def prompt_requests(draw):
    suffix = draw(maybe(full_texts))
    return draw(_requests(messages=(), prompt=draw(texts), suffix=suffix))


counts = st.integers(0, 2**31 - 1)
usages = st.builds(
    lambda prompt, answer: Usage(
        prompt_tokens=prompt, completion_tokens=answer, total_tokens=prompt + answer
    ),
    counts,
    counts,
)
durations = st.dictionaries(
    st.sampled_from(["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"]),
    st.integers(0, 2**62),
    min_size=1,
)


@st.composite
def endings(draw, called):
    if called:
        return draw(st.sampled_from([("tool_calls", "stop"), ("length", "length")]))
    return draw(
        st.sampled_from(
            [("stop", "stop"), ("length", "length"), ("content_filter",) * 2, ("stop", "load")]
        )
    )


@st.composite
def answers(draw, chat=True):
    calls = draw(st.lists(tool_calls, max_size=2).map(tuple)) if chat else ()
    reason, raw = draw(endings(bool(calls)))
    return LLMResponse(
        text=draw(texts),
        model=draw(full_texts),
        created=draw(st.integers(0, 2**31)),
        finish_reason=reason,
        raw_finish_reason=raw,
        tool_calls=calls,
        reasoning=draw(maybe(full_texts)),
        logprobs=draw(maybe(st.lists(token_logprobs, min_size=1, max_size=3).map(tuple))),
        usage=draw(usages),
        provider_fields=draw(maybe(durations)),
    )


@st.composite
def streams(draw):
    """Deltas of one answer, pieces in any order, calls' among one another; the end comes last."""
    pieces = [{"text_delta": text} for text in draw(st.lists(full_texts, max_size=5))]
    pieces += [{"reasoning_delta": text} for text in draw(st.lists(full_texts, max_size=3))]
    queues = [[piece] for piece in pieces]
    calls = draw(st.lists(tool_calls, max_size=3))
    for number, call in enumerate(calls):
        half = draw(st.integers(0, len(call.arguments_json)))
        first = ToolCallDelta(call_id=call.call_id, name=call.name, index=number)
        parts = [call.arguments_json[:half], call.arguments_json[half:]]
        queue = [{"tool_call_delta": first}]
        for part in parts:
            piece = ToolCallDelta(arguments_json_delta=part, index=number)
            queue.append({"tool_call_delta": piece})
        queues.append(queue)
    deltas = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        deltas.append(LLMDelta(model="m", **queue.pop(0)))
    reason, raw = draw(endings(bool(calls)))
    deltas.append(
        LLMDelta(model="m", finish_reason=reason, raw_finish_reason=raw, usage_delta=draw(usages))
    )
    return deltas


embedding_requests = st.builds(
    EmbeddingRequest,
    inputs=st.lists(texts, min_size=1, max_size=3).map(tuple),
    model=words,
    dimensions=maybe(st.integers(1, 4096)),
    provider_options=st.fixed_dictionaries(
        {},
        optional={
            "keep_alive": st.just("5m"),
            "truncate": st.booleans(),
            "options": st.fixed_dictionaries({"num_ctx": st.integers(1, 4096)}),
        },
    ),
)
