"""One answer as an object: what is asked, and whether what came will do.

Nothing here does I/O: the client makes each ask as a call of its own and shows what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, Generic, TypeVar

from headrace.client.structured.kinds import OutputKind, Unfit, kind_of
from headrace.client.structured.partial import PartialReader
from headrace.client.structured.reading import Reading, Unreadable, read_text
from headrace.client.structured.results import Structured
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.errors import (
    LLMContentFilterError,
    LLMInvalidRequestError,
    LLMOutputError,
    OutputProblem,
)
from headrace.contracts.messages import LLMMessage
from headrace.contracts.quick import changed
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.numbers.usage import add_usages

T = TypeVar("T")

# An answer is text of its own kind: calls, or several of them, are asked for in other ways.
_NOT_BESIDE = ("tools", "response_schema", "response_format", "prompt", "echo", "suffix")
_beside = attrgetter(*_NOT_BESIDE)
_LONGEST_QUOTE = 16_000
"""Characters of a failed answer that are shown to the model again."""
_CHARS_PER_TOKEN = 3
"""For what nobody has counted: on the safe side of the usual 4."""
_TURN_TOKENS = 16


class Asking(Generic[T]):
    """The state of asking for one object: ``request`` is what is to be asked next."""

    def __init__(self, request: LLMRequest, output: Any, settings: OutputSettings) -> None:
        _refuse_beside(request)
        self._kind: OutputKind[T] = kind_of(output)
        self._settings = settings
        self.asks = 1
        self.request = self._first = changed(
            request,
            response_schema=self._kind.schema,
            response_mode=settings.mode,
            response_instruction=settings.instruction,
        )
        self._partial = PartialReader()
        self._usages: list[Usage | None] = []
        self._prices: list[Decimal | None] = []
        self._spent = 0

    def feed(self, text: str) -> object:
        """What of the object can be seen after ``text``; ``None`` where that is nothing new."""
        return self._seen(self._partial.feed(text))

    def rest(self) -> object:
        """What of the object can be seen at the end, where that was not given yet."""
        return self._seen(self._partial.rest())

    def judge(self, response: LLMResponse) -> Structured[T] | None:
        """The object in ``response``; ``None`` where ``request`` is to be asked next.

        Raises LLMOutputError where there is none and it is not asked for again, and
        LLMContentFilterError where the model or its provider refused to answer.
        """
        self._usages.append(response.usage if isinstance(response.usage, Usage) else None)
        self._prices.append(response.price_usd)
        _refuse_refusal(response)
        whole = response.finish_reason == "stop"
        try:
            reading = read_text(response.text, whole=whole and self._settings.repair)
            reading = self._wrapped(reading, whole)
            output = self._kind.read(reading.value)
        except Unreadable as error:
            problems: tuple[OutputProblem, ...] = (OutputProblem(path="$", message=str(error)),)
        except Unfit as error:
            problems = error.problems
        else:
            return Structured(
                output=output,
                response=response,
                asks=self.asks,
                repaired=reading.repaired,
                usage=self._usage(),
                price_usd=self._price(),
            )
        self._ask_again(response, problems)
        return None

    def _seen(self, value: Any) -> object:
        if value is None:
            return None
        try:
            return self._kind.view(value)
        except Unfit:  # the wrapping has only begun
            return None

    def _wrapped(self, reading: Reading, whole: bool) -> Reading:
        """What came without its wrapping, in it; a model that is only told may forget it."""
        if whole and self._settings.repair and self._kind.is_bare(reading.value):
            return Reading(self._kind.wrap(reading.value), repaired=True)
        return reading

    def _ask_again(self, response: LLMResponse, problems: Sequence[OutputProblem]) -> None:
        reason = self._reason_to_stop(response)
        if reason is not None:
            code, advice = reason
            listed = "; ".join(f"{each.path}: {each.message}" for each in problems)
            times = "once" if self.asks == 1 else f"{self.asks} times"
            raise LLMOutputError(
                f"the answer is not what was asked for (asked {times}): {listed}. {advice}",
                text=response.text,
                problems=problems,
                asks=self.asks,
                provider=response.provider,
                request_id=response.request_id,
                code=code,
            )
        self.asks += 1
        self._partial = PartialReader()
        self.request = changed(
            self._first, messages=(*self._first.messages, *_objection(response.text, problems))
        )

    def _reason_to_stop(self, response: LLMResponse) -> tuple[str | None, str] | None:
        """The error's code and what to do, where asking again would not help or is not allowed."""
        settings = self._settings
        if response.finish_reason == "length":
            limit = self._first.max_tokens
            named = "the model's own limit" if limit is None else f"max_tokens={limit}"
            return "cut_by_length", f"It was cut at {named}: allow more, or ask for less"
        if self.asks > settings.more_asks:
            return None, (
                "Ask another model or in another mode, say more of what is wanted in the "
                f"descriptions of its fields, or allow more than more_asks={settings.more_asks}"
            )
        if self.asks > 1:
            self._spent += self._cost(response)
        next_one = self._cost(response) + len(response.text) // _CHARS_PER_TOKEN + 2 * _TURN_TOKENS
        if self._spent + next_one > settings.budget_tokens:
            return None, (
                f"Asking again would take about {next_one} tokens, and {self._spent} of "
                f"budget_tokens={settings.budget_tokens} are spent"
            )
        return None

    def _cost(self, response: LLMResponse) -> int:
        """Tokens of the ask that ``response`` answered, reckoned from their length if not told."""
        usage = self._usages[-1]
        if usage is not None and usage.total_tokens is not None:
            return usage.total_tokens
        said = sum(
            len(message.content) if isinstance(message.content, str) else 4096
            for message in self.request.messages
        )
        return (said + len(response.text)) // _CHARS_PER_TOKEN

    def _usage(self) -> Usage | None:
        if len(self._usages) == 1:
            return self._usages[0]
        known = [each for each in self._usages if each is not None]
        return add_usages(known) if len(known) == len(self._usages) else None

    def _price(self) -> Decimal | None:
        if len(self._prices) == 1:
            return self._prices[0]
        known = [each for each in self._prices if each is not None]
        return sum(known, Decimal(0)) if len(known) == len(self._prices) else None


def _refuse_beside(request: LLMRequest) -> None:
    for name, value in zip(_NOT_BESIDE, _beside(request), strict=True):
        if value:
            raise LLMInvalidRequestError(
                f"{name!r} and output cannot be asked for together; leave one of them out",
                param=name,
            )
    if request.n not in (None, 1):
        raise LLMInvalidRequestError(
            f"n is {request.n}; an answer as an object is one answer: leave n out", param="n"
        )
    if request.response_mode is not None:
        raise LLMInvalidRequestError(
            "response_mode is said in output_settings, as in "
            f"output_settings=OutputSettings(mode={request.response_mode!r})",
            param="response_mode",
        )


def _refuse_refusal(response: LLMResponse) -> None:
    refused = response.refusal or response.finish_reason == "content_filter"
    if refused:
        said = f": {response.refusal}" if response.refusal else ""
        raise LLMContentFilterError(
            f"the model or its provider refused to answer{said}",
            provider=response.provider,
            provider_message=response.refusal,
            request_id=response.request_id,
        )


def _objection(text: str, problems: Sequence[OutputProblem]) -> tuple[LLMMessage, ...]:
    """The last answer and what is wrong with it, as the conversation's next turns."""
    listed = "\n".join(f"- {each.path}: {each.message}" for each in problems)
    objection = LLMMessage(
        role="user",
        content=f"That is not what was asked for:\n{listed}\n"
        "Answer again: the whole JSON object, corrected, and nothing else.",
    )
    if not text.strip():
        return (objection,)
    quoted = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + " ..."
    return (LLMMessage(role="assistant", content=quoted), objection)
