"""Values from expressions: what stands between the braces of a template, as it is and not as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.chains.templates import environment
from headrace.contracts.errors import LLMInvalidRequestError


class Expression:
    """One expression, with or without its braces; ``place`` names it in errors."""

    def __init__(self, source: str, place: str) -> None:
        from jinja2 import TemplateSyntaxError

        bare = source.strip()
        if bare.startswith("{{") and bare.endswith("}}"):
            bare = bare[2:-2].strip()
        self.source, self.place = bare, place
        try:
            self._compiled = environment().compile_expression(bare, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise LLMInvalidRequestError(
                f"{place} is {source!r}: {error.message}", param=place
            ) from error

    def names(self) -> frozenset[str]:
        """The names that it looks up outside of itself."""
        from jinja2 import meta

        parsed = environment().parse("{{ " + self.source + " }}")
        return frozenset(meta.find_undeclared_variables(parsed))

    def value(self, values: Mapping[str, Any]) -> Any:
        """What it is for ``values``; raises LLMInvalidRequestError where it is nothing."""
        from jinja2 import Undefined

        try:
            found = self._compiled(values)
            if isinstance(found, Undefined):
                str(found)  # says which name is missing
            return found
        except Exception as error:
            # What an expression does with a value of the wrong type is the row's own fault.
            raise LLMInvalidRequestError(f"{self.place}: {error}", param=self.place) from error


def expressions_of(said: object, place: str) -> tuple[Expression, ...]:
    """Those of one text, or of several."""
    each = (said,) if isinstance(said, str) else said
    if not isinstance(each, tuple) or not all(isinstance(one, str) and one for one in each):
        raise LLMInvalidRequestError(
            f"{place} is {said!r}, must be an expression such as 'image', or a list of such",
            param=place,
        )
    return tuple(Expression(one, place) for one in each)
