"""What of a request a folder's engine cannot carry out, and how its sampling is said to the child."""

from __future__ import annotations

from collections.abc import Callable

from headrace.backends.local.folders.frames import Sampling
from headrace.backends.local.forced import must_call
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest

_MOST_ALTERNATIVES = 20
_RANDOM_SEED = -1  # as llama.cpp has it
_RANGES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("temperature", "0 or more", lambda value: value >= 0),
    ("top_p", "from 0 to 1", lambda value: 0 <= value <= 1),
    ("min_p", "from 0 to 1", lambda value: 0 <= value <= 1),
    ("repetition_penalty", "above 0", lambda value: value > 0),
    ("max_tokens", "0 or more", lambda value: value >= 0),
)
_GRAMMAR_HEAD = "%llguidance"


def check(request: LLMRequest, name: str, slots: int) -> None:
    """Raises LLMCapabilityError or LLMInvalidRequestError for the first setting that ``name`` cannot
    carry out."""
    if request.tools and not must_call(request) and request.tool_choice != "none":
        raise LLMCapabilityError(
            f"tools are offered, and {name} calls them only where that is demanded (tool_choice "
            "'required' or a tool's name): how a model writes down those that it makes by itself differs from one "
            "to the other",
            param="tools",
        )
    if request.max_tokens == 0:
        raise LLMCapabilityError(
            f"{name} writes at least one token; max_tokens is 0", param="max_tokens"
        )
    if (request.n or 1) > slots:
        raise LLMInvalidRequestError(
            f"n is {request.n}, and {name} writes at most {slots} answers at once", param="n"
        )
    if (request.top_logprobs or 0) > _MOST_ALTERNATIVES:
        raise LLMInvalidRequestError(
            f"top_logprobs is {request.top_logprobs}, must be at most {_MOST_ALTERNATIVES}",
            param="top_logprobs",
        )
    for setting, right, is_right in _RANGES:
        value = getattr(request, setting)
        if value is not None and not is_right(value):
            raise LLMInvalidRequestError(
                f"{setting} is {value!r}, must be {right}", param=setting, code="invalid_value"
            )
    for token in request.logit_bias or ():
        if not token.isdecimal():
            raise LLMInvalidRequestError(
                f"logit_bias names {token!r}, and its names must be token ids", param="logit_bias"
            )
    options = request.provider_options
    ignores = options.get("ignore_eos")
    if ignores is not None and not isinstance(ignores, bool):
        raise LLMInvalidRequestError(
            f"ignore_eos is {ignores!r}, must be true or false", param="ignore_eos"
        )
    grammar = options.get("grammar")
    if grammar and not (isinstance(grammar, str) and grammar.startswith(_GRAMMAR_HEAD)):
        raise LLMInvalidRequestError(
            f"grammar must be a text in llguidance's form, which begins with {_GRAMMAR_HEAD!r}",
            param="grammar",
            code="unsupported",
        )


def sampling_of(request: LLMRequest) -> Sampling:
    """How the tokens of its answers are chosen."""
    options = request.provider_options
    grammar = options.get("grammar")
    seed = None if request.seed == _RANDOM_SEED else request.seed
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=None if request.top_k is None else max(0, request.top_k),
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        seed=seed,
        alternatives=(request.top_logprobs or 0) if request.logprobs else -1,
        grammar=grammar if isinstance(grammar, str) and grammar else None,
        ignore_eos=bool(options.get("ignore_eos")),
    )
