"""How answers as objects are asked for."""

from __future__ import annotations

from typing import get_args

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import ResponseMode

_MODES = get_args(ResponseMode)


def _known_mode(_: object, __: object, mode: object) -> None:
    if mode not in _MODES:
        raise LLMInvalidRequestError(
            f"output mode is {mode!r}, must be one of {', '.join(_MODES)}", param="output_settings"
        )


def _count(_: object, attribute: object, value: object) -> None:
    if type(value) is not int or value < 0:
        name = getattr(attribute, "name", "")
        raise LLMInvalidRequestError(
            f"{name} is {value!r}, must be a whole number from 0", param="output_settings"
        )


@frozen(kw_only=True)
class OutputSettings:
    """How answers as objects are asked for.

    ``mode`` forces one way (see ResponseMode). An answer that is not what was asked for is asked
    for again at most ``more_asks`` times, and only while the tokens of those further asks together,
    prompts and answers, stay within ``budget_tokens``. ``repair`` allows mending an answer's JSON
    before that. Where the schema has to be told in words, ``instruction`` are these words; ours, if it
    is None, and nothing is told if it is empty.
    """

    mode: ResponseMode = field(default="auto", validator=_known_mode)
    more_asks: int = field(default=2, validator=_count)
    budget_tokens: int = field(default=20_000, validator=_count)
    repair: bool = True
    instruction: str | None = None
