"""Answers as objects."""

from __future__ import annotations

from decimal import Decimal
from typing import Generic, Literal, TypeAlias, TypeVar

from attrs import frozen

from headrace.contracts.responses import LLMResponse, Usage

T = TypeVar("T")
StructuredEventKind: TypeAlias = Literal["partial", "completed"]


@frozen(kw_only=True)
class Structured(Generic[T]):
    """An answer read as what was asked for.

    ``output`` is the object, ``response`` the answer that it was read from (the last, if there were
    several). ``asks`` counts how often the model was asked; ``repaired`` says that the answer's JSON
    had to be mended first (a fence or prose around it, a comma too many). ``usage`` and
    ``price_usd`` are those of all asks together, ``None`` where one of them is unknown.
    """

    output: T
    response: LLMResponse
    asks: int = 1
    repaired: bool = False
    usage: Usage | None = None
    price_usd: Decimal | None = None


@frozen(kw_only=True)
class StructuredEvent(Generic[T]):
    """One event of ``stream_output``: a ``partial`` value so far, or ``completed`` with the result.

    ``partial`` is plain JSON (dict, list, text, ...) and a new object each time: what has come of it
    stays, and only its end grows. ``ask`` counts from 1; where the model is asked again the partials
    begin anew.
    """

    kind: StructuredEventKind
    ask: int = 1
    partial: object = None
    result: Structured[T] | None = None
