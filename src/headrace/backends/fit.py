"""A request as one provider can carry it out: what it refuses, ignores and adds.

Nothing is left out in silence: a setting that a provider cannot carry out is refused by its name,
and one that it takes and does nothing with is written down as dropped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from difflib import get_close_matches
from functools import lru_cache
from operator import attrgetter

from attrs import evolve, field, fields, frozen

from headrace.backends.row import Provider
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.wire.openai_params import HINTS

# What a request says that is no setting: a provider neither ignores it nor fails to support it.
_NO_SETTINGS = {
    "messages",
    "prompt",
    "model",
    "metadata",
    "provider_options",
    "request_id",
    "priority",
    "task_profile",
    "response_mode",
    "response_instruction",
}
_SETTINGS = {each.name for each in fields(LLMRequest)} - _NO_SETTINGS
_UNSET: tuple[object, ...] = (None, (), [])
_PLAIN = LLMRequest(messages=())
# Settings of one format that others have no place for, and whose absence changes no meaning.
# The values under which a setting asks for nothing that would not happen anyway.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "reasoning_effort": ("none",),
    "tool_choice": ("auto",),
    "suffix": ("",),
}

# What Groq calls the places of a model's reasoning, in llama.cpp's words; to show it in a field of its
# own is what that does unasked, and to hide it is nothing that it can.
_GROQS_WORDS: Mapping[object, str | None] = {"parsed": None, "raw": "none", "hidden": None}


@frozen
class Fit:
    """What the ``provider`` behind the backend ``name`` makes of requests."""

    name: str
    provider: Provider
    _touched: Callable[[LLMRequest], tuple[object, ...]] = field(init=False, repr=False, eq=False)
    """Of a request, all that ``request`` may have to do something about."""

    @_touched.default
    def _what_may_be_touched(self) -> Callable[[LLMRequest], tuple[object, ...]]:
        settings = _settings_among(self.provider.ignored | self.provider.unsupported)
        return attrgetter("provider_options", "echo", "logprobs", *settings)

    def request(self, request: LLMRequest, marks: Marks) -> LLMRequest:
        """``request`` without what the provider ignores, which is written into ``marks``.

        Raises LLMCapabilityError for a setting that it cannot carry out, and
        LLMInvalidRequestError for a field that it does not know.
        """
        provider = self.provider
        if not provider.defaults and self._touched(request) == self._touched(_PLAIN):
            return request
        self._refuse_unsupported(request)
        unheeded = _set_among(provider.ignored, request)
        marks.dropped += [
            name for name in unheeded if not _asks_nothing(name, getattr(request, name), request)
        ]
        request = _without(request, [*unheeded, *_set_among(provider.unsupported, request)])
        if request.echo and not provider.echoes:
            request = evolve(request, echo=None)
        if self.asks_in_vain(request):
            request = evolve(request, top_logprobs=1)
        if not request.provider_options and not provider.defaults:
            return request
        kept: dict[str, object] = dict(provider.defaults)
        for name, value in request.provider_options.items():
            if provider.options is not None and name in provider.options:
                kept |= _in_its_words(name, value, marks)
            elif name in provider.unsupported:
                continue  # it asked for nothing, or we would not be here
            elif name in provider.ignored or self._hints_in_vain(name):
                if value is not None:
                    marks.dropped.append(name)
            elif provider.options is None:
                default = kept.get(name)
                both = isinstance(default, Mapping) and isinstance(value, Mapping)
                kept[name] = {**default, **value} if both else value  # type: ignore[dict-item]
            elif value is not None:
                raise self._unknown(name)
        return evolve(request, provider_options=kept)

    def unheeded(self, request: LLMRequest) -> tuple[list[str], list[str]]:
        """The settings of ``request`` that it does nothing with, and those that it cannot carry out."""

        def among(names: frozenset[str]) -> list[str]:
            found = _set_among(names, request)
            return [n for n in found if not _asks_nothing(n, getattr(request, n), request)]

        return among(self.provider.ignored), among(self.provider.unsupported)

    def asks_in_vain(self, request: LLMRequest) -> bool:
        """Whether no log probabilities would come although ``request`` asks for them."""
        alone = bool(request.logprobs) and not request.top_logprobs
        return alone and not self.provider.logprobs_alone

    def inputs(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingRequest:
        """``request`` without what the provider ignores; refuses what it cannot carry out."""
        for name in ("dimensions", "user"):
            if getattr(request, name) is None:
                continue
            if name in self.provider.unsupported:
                raise self._unsupported(name)
            if name in self.provider.ignored:
                marks.dropped.append(name)
                request = evolve(request, **{name: None})  # type: ignore[arg-type]
        return request

    def _refuse_unsupported(self, request: LLMRequest) -> None:
        unsupported = self.provider.unsupported
        for name in _set_among(unsupported, request):
            if not _asks_nothing(name, getattr(request, name), request):
                raise self._unsupported(name)
        for name, value in request.provider_options.items():
            if name in unsupported and not _asks_nothing(name, value, request):
                raise self._unsupported(name)

    def _hints_in_vain(self, name: str) -> bool:
        """Whether ``name`` is a hint of a format that is not the provider's."""
        return name in HINTS and self.provider.format != "openai-responses"

    def _unsupported(self, name: str) -> LLMCapabilityError:
        return LLMCapabilityError(
            f"{self.name} ({self.provider.name}) does not support {name!r}; leave it out, or ask a "
            "model of another backend",
            param=name,
        )

    def _unknown(self, name: str) -> LLMInvalidRequestError:
        known = [field.name for field in fields(LLMRequest)] + sorted(self.provider.options or ())
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return LLMInvalidRequestError(
            f"{self.name} ({self.provider.name}) knows no field {name[:100]!r}{hint}",
            param=name[:100],
            code="unknown_parameter",
        )


def _in_its_words(name: str, value: object, marks: Marks) -> dict[str, object]:
    """An option of llama.cpp's under its name, also where the value is said in Groq's words."""
    if name != "reasoning_format" or value not in _GROQS_WORDS:
        return {name: value}
    if value == "hidden":
        marks.dropped.append(name)
    word = _GROQS_WORDS[value]
    return {} if word is None else {name: word}


@lru_cache(maxsize=256)
def _settings_among(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(_SETTINGS & names))


def _set_among(names: frozenset[str], request: LLMRequest) -> list[str]:
    """The settings among ``names`` that ``request`` has, in a fixed order."""
    # Most requests set few of them, so the usual look is a short one.
    return [
        name
        for name in _settings_among(names)
        if (value := getattr(request, name)) is not None and value not in _UNSET
    ]


def _without(request: LLMRequest, names: Collection[str]) -> LLMRequest:
    if not names:
        return request
    unset = {name: () if isinstance(getattr(request, name), tuple) else None for name in names}
    return evolve(request, **unset)  # type: ignore[arg-type]


def _asks_nothing(name: str, value: object, request: LLMRequest) -> bool:
    """Whether a setting is at a value under which nothing is to be done for it."""
    if value in _UNSET or value in _NEUTRAL.get(name, ()):
        return True
    if name == "response_format":
        # One that only says the schema, which a request has in a field of its own, or plain text.
        is_text = isinstance(value, Mapping) and value.get("type") == "text"
        return is_text or request.response_schema is not None
    # As many candidates as answers: there is nothing to choose from.
    return name == "best_of" and value in (0, request.n or 1)


async def echoed(
    pieces: AsyncGenerator[LLMDelta, None], request: LLMRequest
) -> AsyncGenerator[LLMDelta, None]:
    """``pieces`` with the prompt before each choice, which has no log probabilities."""
    if not isinstance(request.prompt, str):
        raise LLMCapabilityError(
            "'echo' needs a prompt given as text here: token ids cannot be put into words again",
            param="echo",
        )
    begun: set[int] = set()
    async with aclosing(pieces):
        async for delta in pieces:
            if delta.index not in begun and delta.usage_delta is None:
                begun.add(delta.index)
                yield LLMDelta(
                    text_delta=request.prompt,
                    logprobs=() if request.logprobs else None,
                    index=delta.index,
                    model=delta.model,
                    response_id=delta.response_id,
                    system_fingerprint=delta.system_fingerprint,
                )
            yield delta


async def without_alternatives(
    pieces: AsyncGenerator[LLMDelta, None],
) -> AsyncGenerator[LLMDelta, None]:
    async with aclosing(pieces):
        async for delta in pieces:
            if not delta.logprobs:
                yield delta
                continue
            alone = tuple(evolve(each, top=()) for each in delta.logprobs)
            yield evolve(delta, logprobs=alone)


async def without_stop(
    pieces: AsyncGenerator[LLMDelta, None], stops: Collection[str]
) -> AsyncGenerator[LLMDelta, None]:
    """``pieces`` of one answer without the stop string at its end, which is named instead.

    Text that may be the beginning of one waits until it is known.
    """
    held: list[LLMDelta] = []
    longest = max(map(len, stops))
    async with aclosing(pieces):
        async for delta in pieces:
            held.append(delta)
            if delta.finish_reason is not None:
                for each in _ended(held, stops):
                    yield each
                held = []
                continue
            # A piece can go once more text than any stop string has come behind it.
            while len(held) > 1 and sum(len(d.text_delta or "") for d in held[1:]) >= longest:
                yield held.pop(0)
        for each in held:
            yield each


def _ended(held: list[LLMDelta], stops: Collection[str]) -> list[LLMDelta]:
    """The last pieces of an answer, of which the last has the reason, without its stop string."""
    last = held[-1]
    text = "".join(each.text_delta or "" for each in held)
    found = [stop for stop in stops if stop and text.endswith(stop)]
    if last.finish_reason != "stop" or not found:
        return held
    stop = max(found, key=len)
    left, kept = len(text) - len(stop), []
    for each in held:
        said = (each.text_delta or "")[:left]
        left -= len(said)
        kept.append(evolve(each, text_delta=said or None))
    kept[-1] = evolve(kept[-1], stop_sequence=stop)
    return kept
