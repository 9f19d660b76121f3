"""What stands behind a request's path, read with the refusals of its body's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Scope

from headrace.wire.openai_fields import boolean


class Query:
    """What stands behind the path."""

    def __init__(self, scope: Scope) -> None:
        self._found: Mapping[str, list[str]] = parse_qs(
            scope["query_string"].decode("latin-1"), keep_blank_values=True
        )

    def first(self, name: str) -> str | None:
        return next(iter(self._found.get(name, ())), None)

    def several(self, name: str) -> list[str]:
        """All of that name; some clients write them as ``name[]``."""
        return [*self._found.get(name, ()), *self._found.get(f"{name}[]", ())]

    def flag(self, name: str) -> bool:
        given = self.first(name)
        known = {"true": True, "false": False}
        return given is not None and boolean(known.get(given, given), name)

    def number(self, name: str, check: Any, default: int) -> int:
        given = self.first(name)
        if given is None:
            return default
        whole = given.isascii() and given.removeprefix("-").isdigit() and len(given) < 12
        number: int = check(int(given) if whole else given, name)
        return number

    def word(self, name: str, check: Any, default: str) -> str:
        given = self.first(name)
        return default if given is None else str(check(given, name))
