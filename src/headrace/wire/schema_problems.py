"""What of a JSON value does not meet a JSON Schema, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError, OutputProblem

_MOST_PROBLEMS = 10
_LONGEST_MESSAGE = 300


def checker(schema: Mapping[str, Any]) -> Callable[[Any], tuple[OutputProblem, ...]]:
    """A function from a value to its problems, the first ten; none where it meets ``schema``.

    Raises LLMInvalidRequestError for what is no JSON Schema. References to other documents are not
    followed: a schema with one is refused.
    """
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(dict(schema), offline=True)
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise LLMInvalidRequestError(
            f"output is no JSON Schema that can be held to: {reason}", param="output"
        ) from error

    def problems(value: Any) -> tuple[OutputProblem, ...]:
        found = []
        for error in validator.iter_errors(value):
            found.append(
                OutputProblem(path=path_of(error.instance_path), message=_shortened(error.message))
            )
            if len(found) == _MOST_PROBLEMS:
                break
        return tuple(found)

    return problems


def path_of(steps: Sequence[str | int]) -> str:
    """The place that ``steps`` lead to, as in ``$.items[2].price``."""
    return "$" + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps)


def _shortened(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "..."
