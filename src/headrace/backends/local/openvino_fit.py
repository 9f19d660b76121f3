"""What OpenVINO can be asked exactly as llama.cpp can, and how it is said to it.

Schemas never: it ignores bounds of length, and a bad schema fails every request that it computes.
"""

from __future__ import annotations

import secrets

from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.contracts.messages import TextPart
from headrace.contracts.requests import LLMRequest

# Where a request does not say, both engines sample alike: these are llama.cpp's own defaults.
_TEMPERATURE, _TOP_P, _TOP_K, _MIN_P = 0.8, 0.95, 40, 0.05
# Divided by less, scores become infinite.
_LEAST_TEMPERATURE = 0.01
_SEEDS = 1 << 32
_RANDOM_SEED = -1  # as llama.cpp has it
_TEXT_FORMATS = ("text", None)


def lacks(request: LLMRequest) -> str | None:
    """The first setting of ``request`` that OpenVINO cannot carry out; ``None``: it can do all."""
    return next((name for name, asks in _asks_for(request) if asks), None)


def _asks_for(request: LLMRequest) -> tuple[tuple[str, object], ...]:
    temperature = request.temperature
    penalised = (
        request.frequency_penalty
        or request.presence_penalty
        or request.repetition_penalty not in (None, 1)
    )
    return (
        ("response_schema", request.response_schema is not None),
        ("response_format", (request.response_format or {}).get("type") not in _TEXT_FORMATS),
        ("tools", request.tools),
        ("tool_choice", request.tool_choice not in (None, "none", "auto")),
        ("logit_bias", request.logit_bias),
        ("top_logprobs", request.top_logprobs),
        # Its log probabilities have the penalties in them, and a stop string's tokens too.
        ("logprobs", request.logprobs and (penalised or request.stop)),
        ("reasoning_effort", request.reasoning_effort not in (None, "none")),
        ("max_tokens", request.max_tokens == 0),
        ("temperature", temperature is not None and 0 < temperature < _LEAST_TEMPERATURE),
        ("top_p", request.top_p == 0),
        ("min_p", request.min_p == 1),
        ("repetition_penalty", request.repetition_penalty == 0),
        ("prompt", request.prompt in ("", ())),
        ("messages", request.prompt is None and not _plain(request)),
        *(
            (name, not (name == "ignore_eos" and isinstance(value, bool)))
            for name, value in request.provider_options.items()
            if value is not None and name not in LLAMA_CPP_SERVER.ignored
        ),
    )


def _plain(request: LLMRequest) -> bool:
    """Whether it is a conversation in text that ends with somebody else's turn.

    An assistant's turn at the end is to be continued, which llama.cpp does in its own way.
    """
    messages = request.messages
    return (
        bool(messages)
        and messages[-1].role != "assistant"
        and all(
            isinstance(message.content, str)
            or all(isinstance(part, TextPart) for part in message.content)
            for message in messages
        )
    )


def generation_settings(
    request: LLMRequest, max_tokens: int, place: int = 0
) -> dict[str, float | int | bool]:
    """GenerationConfig's fields for the answer at ``place`` of those that ``request`` wants."""
    settings: dict[str, float | int | bool] = {"max_new_tokens": max_tokens}
    temperature = _or(request.temperature, _TEMPERATURE)
    if temperature > 0:
        settings["do_sample"] = True
        settings["temperature"] = temperature
        settings["top_p"] = _or(request.top_p, _TOP_P)
        settings["min_p"] = _or(request.min_p, _MIN_P)
        settings["top_k"] = max(0, int(_or(request.top_k, _TOP_K)))
        # Its own default is the same seed every time.
        drawn = request.seed is None or request.seed == _RANDOM_SEED
        seed = secrets.randbelow(_SEEDS) if drawn else (request.seed or 0) + place
        settings["rng_seed"] = seed % _SEEDS
    for name in ("frequency_penalty", "presence_penalty", "repetition_penalty"):
        value = getattr(request, name)
        if value is not None:
            settings[name] = float(value)
    if request.logprobs:
        settings["logprobs"] = 1
    if request.provider_options.get("ignore_eos"):
        # llama.cpp gives the tokens that end an answer no chance at all; to go on after one, as
        # ``ignore_eos`` does here, would be another text.
        settings["min_new_tokens"] = max_tokens
    return settings


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
