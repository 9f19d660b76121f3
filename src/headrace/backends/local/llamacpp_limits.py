"""What would hang llama.cpp's grammar compiler, refused before it gets there.

It compiles schemas and grammars on the thread that generates for everyone, and without an end to
its patience: a repetition whose bounds are crossed (``a{5,2}``) fills the memory, and thousands of
alternatives hold every other request up for seconds to minutes. Whatever else is wrong with a
schema it finds and says itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest

# At these sizes a schema holds the others up for about two seconds on two cores.
MOST_ALTERNATIVES = 1000
MOST_OPTIONAL = 500

_BOUNDS = (("minLength", "maxLength"), ("minItems", "maxItems"))
_REPETITION = re.compile(r"\{\s*(\d+)\s*,\s*(\d+)\s*\}")
_DATA = ("const", "default", "enum", "examples")


def check_grammars(request: LLMRequest) -> None:
    """Refuse a request whose schemas or grammar would hang the engine; the error names the place."""
    if request.response_schema is not None:
        _check_schema(request.response_schema, "response_format")
    for i, tool in enumerate(request.tools):
        _check_schema(tool.input_schema, f"tools[{i}].function.parameters")
    options = request.provider_options
    _check_schema(options.get("json_schema"), "json_schema")
    grammar = options.get("grammar")
    if isinstance(grammar, str):
        _check_repetitions(grammar, "grammar")
        _check_alternatives(grammar.count("|"), "grammar")


def _check_schema(schema: Any, param: str) -> None:
    alternatives = optional = 0
    for node in _nodes(schema):
        for low, high in _BOUNDS:
            least, most = node.get(low), node.get(high)
            if isinstance(least, int) and isinstance(most, int) and least > most:
                _refuse_crossed(f"'{low}' {least} is above '{high}' {most}", param)
        pattern = node.get("pattern")
        if isinstance(pattern, str):
            _check_repetitions(pattern, param)
            alternatives += pattern.count("|")
        for name in ("enum", "anyOf", "oneOf"):
            several = node.get(name)
            alternatives += len(several) if isinstance(several, list) else 0
        properties, required = node.get("properties"), node.get("required")
        if isinstance(properties, dict):
            needed = len(required) if isinstance(required, list) else 0
            optional += max(0, len(properties) - needed)
    _check_alternatives(alternatives, param)
    if optional > MOST_OPTIONAL:
        raise LLMCapabilityError(
            f"the schema has {optional} optional properties, more than the {MOST_OPTIONAL} that "
            "this engine takes; name them as required, or leave some out",
            param=param,
        )


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in ``schema`` but those that are data."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += [
                child
                for name, child in node.items()
                if not (name in _DATA and isinstance(child, list))
            ]
        elif isinstance(node, list):
            waiting += node


def _check_repetitions(text: str, param: str) -> None:
    for match in _REPETITION.finditer(text):
        least, most = (digits.lstrip("0") for digits in match.groups())
        # As text, because Python refuses to read numbers of thousands of digits.
        if (len(least), least) > (len(most), most):
            _refuse_crossed(f"the repetition {match[0][:60]} ends below its beginning", param)


def _check_alternatives(count: int, param: str) -> None:
    if count > MOST_ALTERNATIVES:
        raise LLMCapabilityError(
            f"{count} alternatives are more than the {MOST_ALTERNATIVES} that this engine takes",
            param=param,
        )


def _refuse_crossed(what: str, param: str) -> NoReturn:
    raise LLMInvalidRequestError(
        f"nothing can meet this: {what}", param=param, code="invalid_value"
    )
