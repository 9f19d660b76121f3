"""Prompts from templates: Jinja in its sandbox, and a name that is not there is an error.

A template sees the fields of the value that comes to its step, ``row`` (the input row as it was
read) and what each earlier step gave, by the step's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

_MOST_CHARACTERS = 8_000_000


class Template:
    """One prompt's template; ``place`` names it in errors."""

    def __init__(self, source: str, place: str) -> None:
        from jinja2 import TemplateError, TemplateSyntaxError

        self.source, self.place = source, place
        try:
            self._compiled = environment().from_string(source)
        except TemplateSyntaxError as error:
            raise LLMInvalidRequestError(
                f"{place}, line {error.lineno}: {error.message}", param=place
            ) from error
        self._globals, self._own_error = dict(self._compiled.globals), TemplateError

    def __reduce__(self) -> tuple[type[Template], tuple[str, str]]:
        return Template, (self.source, self.place)  # for another process; code does not travel

    def names(self) -> frozenset[str]:
        """The names that it looks up outside of itself."""
        from jinja2 import meta

        return frozenset(meta.find_undeclared_variables(environment().parse(self.source)))

    def render(self, values: Mapping[str, Any]) -> str:
        """The prompt for ``values``; raises LLMInvalidRequestError where it cannot be written."""
        try:
            # As its own render, but for the chain of mappings that it makes of what all templates see.
            context = self._compiled.new_context({**self._globals, **values}, shared=True)
            text = "".join(self._compiled.root_render_func(context))
        except Exception as error:
            # What a template does with a value of the wrong type is the row's own fault.
            kind = "" if isinstance(error, self._own_error) else f"{type(error).__name__}: "
            raise LLMInvalidRequestError(
                f"{self.place}: {kind}{error}", param=self.place
            ) from error
        if len(text) > _MOST_CHARACTERS:
            raise LLMInvalidRequestError(
                f"{self.place} renders to {len(text)} characters, at most {_MOST_CHARACTERS} are sent",
                param=self.place,
            )
        return text


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """What templates and expressions are compiled in."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from headrace.wire.json import encode

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
    )
    environment.filters["tojson"] = lambda value: encode(value).decode()
    return environment
