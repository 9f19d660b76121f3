"""Requests with everything in them that we write, each by what is special about it."""

from __future__ import annotations

from typing import Any

from headrace import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    LLMRequest,
    NamedTool,
    TextPart,
    ToolCall,
    ToolSpec,
)

_USER = LLMMessage(role="user", content="What is the weather in Bergen?")
_PLACE: dict[str, object] = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}
_WEATHER = ToolSpec(name="weather", description="The weather at a place.", input_schema=_PLACE)
_CALL = ToolCall(name="weather", arguments_json='{"place": "Bergen"}', call_id="call_1")
_PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 24


def _chat(*messages: LLMMessage, **settings: Any) -> LLMRequest:
    return LLMRequest(messages=messages or (_USER,), **settings)


def _said(*parts: TextPart | ImagePart | AudioPart | FilePart) -> LLMMessage:
    return LLMMessage(role="user", content=(TextPart(text="What is this?"), *parts))


CHATS: dict[str, LLMRequest] = {
    "chat with nothing but a message": _chat(),
    "chat with every setting of sampling": _chat(
        temperature=0.7,
        top_p=0.9,
        max_tokens=64,
        seed=7,
        n=2,
        stop=("END", "\n\n"),
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"50256": -100, "15339": 5.0},
        logprobs=True,
        top_logprobs=5,
        user="user-1",
    ),
    "chat with one stop": _chat(stop=("END",)),
    "chat with logprobs alone": _chat(logprobs=True),
    "chat with every role": _chat(
        LLMMessage(role="system", content="Be brief.", name="house"),
        LLMMessage(role="user", content="Weather?", name="ann"),
        LLMMessage(role="assistant", content="", tool_calls=(_CALL,)),
        LLMMessage(role="tool", content="rain", tool_call_id="call_1", tool_name="weather"),
        LLMMessage(role="assistant", content="Rain.", reasoning="It said rain.", name="bot"),
        LLMMessage(role="assistant", content="", refusal="I would rather not."),
        LLMMessage(role="user", content="Thanks."),
        tools=(_WEATHER,),
    ),
    "chat with a failed tool": _chat(
        _USER,
        LLMMessage(role="assistant", content="I will look.", tool_calls=(_CALL, _CALL)),
        LLMMessage(role="tool", content="no such place", tool_call_id="call_1", tool_error=True),
        tools=(_WEATHER,),
    ),
    "chat with tools": _chat(
        tools=(
            _WEATHER,
            ToolSpec(name="now"),
            ToolSpec(name="strict", input_schema=_PLACE, strict=True),
        ),
        tool_choice="auto",
        parallel_tool_calls=False,
    ),
    "chat with a tool that must be called": _chat(
        tools=(_WEATHER,), tool_choice=NamedTool(name="weather")
    ),
    "chat with some tool that must be called": _chat(tools=(_WEATHER,), tool_choice="required"),
    "chat with tools that may not be called": _chat(tools=(_WEATHER,), tool_choice="none"),
    "chat with images": _chat(
        _said(
            ImagePart(data=_PNG, media_type="image/png", detail="low"),
            ImagePart(data=_PNG),
            ImagePart(url="https://example.com/cat.png", detail="high"),
        )
    ),
    "chat with a recording": _chat(
        _said(AudioPart(data=b"RIFF0000WAVE", format="wav")), model="gpt-4o-audio-preview"
    ),
    "chat with files": _chat(
        _said(
            FilePart(data=b"%PDF-1.7", filename="a.pdf", media_type="application/pdf"),
            FilePart(file_id="file-1"),
        )
    ),
    "chat with a schema": _chat(response_schema=_PLACE),
    "chat with a response format": _chat(response_format={"type": "json_object"}),
    "chat with a schema of its own name": _chat(
        response_schema=_PLACE,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "place", "schema": _PLACE, "strict": True},
        },
    ),
    **{
        f"chat with reasoning effort {effort}": _chat(model="gpt-5", reasoning_effort=effort)
        for effort in ("minimal", "low", "medium", "high", "xhigh", "none", "max")
    },
    "chat with the provider's own fields": _chat(
        provider_options={
            "service_tier": "auto",
            "store": False,
            "metadata": {"job": "1"},
            "prompt_cache_key": "k",
            "verbosity": "low",
            "modalities": ["text"],
            "prediction": {"type": "content", "content": "rain"},
        }
    ),
}

COMPLETIONS: dict[str, LLMRequest] = {
    "completion with nothing but a prompt": LLMRequest(
        messages=(), prompt="Once upon", model="gpt-3.5-turbo-instruct"
    ),
    "completion with everything": LLMRequest(
        messages=(),
        model="gpt-3.5-turbo-instruct",
        prompt="Once upon",
        suffix="The end.",
        echo=True,
        temperature=0.5,
        top_p=0.5,
        max_tokens=16,
        n=2,
        seed=3,
        stop=("END",),
        frequency_penalty=0.1,
        presence_penalty=0.1,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=3,
        user="user-1",
        provider_options={"best_of": 2},
    ),
    "completion with log probabilities alone": LLMRequest(
        messages=(), prompt="Once", logprobs=True, model="gpt-3.5-turbo-instruct"
    ),
    "completion of token ids": LLMRequest(
        messages=(), prompt=(7454, 2402), model="gpt-3.5-turbo-instruct"
    ),
}

EMBEDDINGS: dict[str, dict[str, Any]] = {
    "embedding of one text": {"inputs": "rain", "model": "text-embedding-3-small"},
    "embedding with everything": {
        "inputs": ["rain", "snow"],
        "model": "text-embedding-3-small",
        "dimensions": 256,
        "user": "user-1",
    },
}

_OWN: dict[str, object] = {"keep_alive": "5m", "num_ctx": 4096, "repeat_last_n": 32}

OLLAMA_CHATS: dict[str, LLMRequest] = {
    "chat with nothing but a message": _chat(),
    "chat with every setting": _chat(
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        max_tokens=64,
        seed=7,
        stop=("END", "\n\n"),
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        repetition_penalty=1.1,
        logprobs=True,
        top_logprobs=5,
        provider_options=_OWN,
    ),
    "chat with every role": _chat(
        LLMMessage(role="system", content="Be brief."),
        _USER,
        LLMMessage(role="assistant", content="", reasoning="Hm.", tool_calls=(_CALL, _CALL)),
        LLMMessage(role="tool", content="rain", tool_call_id="call_1", tool_name="weather"),
        LLMMessage(role="assistant", content="Rain."),
        LLMMessage(role="user", content="Thanks."),
        tools=(_WEATHER, ToolSpec(name="now")),
    ),
    "chat with images": _chat(
        _said(ImagePart(data=_PNG, media_type="image/png"), ImagePart(data=_PNG))
    ),
    "chat with a schema": _chat(response_schema=_PLACE),
    "chat with a response format": _chat(response_format={"type": "json_object"}),
    "chat that stays in memory": _chat(provider_options={"keep_alive": -1}),
    **{
        f"chat with effort {effort}": _chat(reasoning_effort=effort)
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    },
}

OLLAMA_PROMPTS: dict[str, LLMRequest] = {
    "prompt to be continued": LLMRequest(messages=(), prompt="Once upon"),
    "prompt with everything": LLMRequest(
        messages=(),
        prompt="Once upon",
        suffix="The end.",
        temperature=0.5,
        max_tokens=16,
        seed=3,
        stop=("END",),
        logprobs=True,
        top_logprobs=3,
        provider_options=_OWN,
    ),
}

OLLAMA_EMBEDDINGS: dict[str, dict[str, Any]] = {
    "embedding of one text": {"inputs": "rain", "model": "embeddinggemma"},
    "embedding of several, shortened": {
        "inputs": ["rain", "snow"],
        "model": "embeddinggemma",
        "dimensions": 256,
    },
}
RECORDINGS: dict[str, dict[str, Any]] = {
    "a recording": {"audio": b"RIFF", "file_name": "a.wav"},
    "a recording, all settings": {
        "audio": b"RIFF",
        "file_name": "a.wav",
        "language": "en",
        "prompt": "Names: Ada.",
        "temperature": 0.5,
        "granularities": ("word", "segment"),
        "provider_options": {"include": ["logprobs"], "chunking_strategy": "auto"},
    },
    "a recording, into English": {"audio": b"RIFF", "file_name": "a.mp3", "translate": True},
}
"""What a recording is transcribed with."""

SPEECHES: dict[str, dict[str, Any]] = {
    "a text read aloud": {"text": "Hello.", "voice": "alloy"},
    "a text read aloud, all settings": {
        "text": "Hello.",
        "voice": "alloy",
        "response_format": "wav",
        "speed": 1.5,
        "instructions": "Softly.",
    },
}
"""What a text is read aloud with."""

PICTURES: dict[str, dict[str, Any]] = {
    "a picture": {"prompt": "A cat"},
    "a picture, all settings": {
        "prompt": "A cat",
        "model": "gpt-image-1",
        "n": 2,
        "size": "1024x1024",
        "quality": "high",
        "provider_options": {"background": "opaque", "output_format": "webp"},
    },
}
"""What a picture is drawn with."""

JUDGED: dict[str, dict[str, Any]] = {
    "a text, judged": {"inputs": "Hello"},
    "texts, judged": {"inputs": ["Hello", "Bye"], "model": "omni-moderation-latest"},
    "a message, judged": {
        "inputs": [TextPart(text="Hello"), ImagePart(data=b"\x89PNG", media_type="image/png")]
    },
}
"""What is judged."""
