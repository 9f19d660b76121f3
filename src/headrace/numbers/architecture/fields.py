"""Reading the fields of a configuration: what is missing or not a number is told by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError


class Fields:
    """A configuration's fields, by the names that they have there."""

    def __init__(self, plain: Mapping[str, Any], where: str) -> None:
        self._plain = plain
        self._where = where

    def whole(self, *names: str, default: int | None = None) -> int:
        """The first of ``names`` that is there and not null, a whole number above 0."""
        found = self.maybe(*names)
        if found is None:
            if default is None:
                raise LLMInvalidRequestError(
                    f"{self._where} has no {' or '.join(names)}; a whole number is needed",
                    param=names[0],
                )
            return default
        return found

    def maybe(self, *names: str) -> int | None:
        """As ``whole``, None where there is none."""
        for name in names:
            value = self._plain.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise LLMInvalidRequestError(
                    f"{self._where}: {name} is {value!r}; a whole number from 0 is needed",
                    param=name,
                )
            return value
        return None

    def flag(self, name: str, default: bool) -> bool:
        """Whether ``name`` is set; null is the default."""
        value = self._plain.get(name)
        return default if value is None else bool(value)

    def text(self, name: str, default: str = "") -> str:
        """``name`` as text."""
        value = self._plain.get(name)
        return default if value is None else str(value)

    def any(self, name: str) -> Any:
        """``name`` as it stands there."""
        return self._plain.get(name)

    def inner(self, name: str) -> Fields:
        """The fields of the object ``name``."""
        value = self._plain.get(name)
        if not isinstance(value, Mapping):
            raise LLMInvalidRequestError(
                f"{self._where}: {name} is {value!r}; an object is needed", param=name
            )
        return Fields(value, f"{self._where}.{name}")

    def plain(self) -> Mapping[str, Any]:
        """All of it."""
        return self._plain

    def complain(self, name: str, right: str) -> LLMInvalidRequestError:
        """An error about ``name``, with its value and what would be right."""
        return LLMInvalidRequestError(
            f"{self._where}: {name} is {self._plain.get(name)!r}; {right}", param=name
        )
