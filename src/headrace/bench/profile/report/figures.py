"""Figures of the page, each taken from the report's own JSON by its path.

On the page a figure is a ``data`` element: its value is the JSON's, its ``data-path`` says where
that stands, and what it holds is the value as people read it. So no figure can be another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import frozen

from headrace.bench.report.svg import text_of
from headrace.bench.report.words import NOTHING

Tell: TypeAlias = Callable[[float | None], str]


@frozen
class Figures:
    """The figures of one report, as plain values."""

    plain: Mapping[str, Any]

    def value(self, path: str) -> float | None:
        """The number at ``path``, as in ``stages[0].time_ms.mean``; None where there is none."""
        found: Any = self.plain
        for step in _steps(path):
            if found is None:
                return None
            found = found[step]
        if found is None or (isinstance(found, (int, float)) and not isinstance(found, bool)):
            return found
        raise TypeError(f"{path} is {found!r}; a number is needed")

    def html(self, path: str, tell: Tell) -> str:
        """The figure as an element of the page."""
        value = self.value(path)
        if value is None:
            return NOTHING
        return f'<data value="{value!r}" data-path="{path}">{text_of(tell(value))}</data>'

    def cell(self, path: str, tell: Tell) -> str:
        """The figure as a cell of a table that sorts."""
        value = self.value(path)
        key = "" if value is None else repr(value)
        return f'<td data-v="{key}">{self.html(path, tell)}</td>'

    def spread(self, path: str, tell: Tell) -> str:
        """A mean and its sample standard deviation."""
        if self.plain_at(path) is None:
            return NOTHING
        return f"{self.html(f'{path}.mean', tell)} ± {self.html(f'{path}.std', tell)}"

    def plain_at(self, path: str) -> Any:
        """Whatever stands at ``path``."""
        found: Any = self.plain
        for step in _steps(path):
            found = found[step]
        return found


def _steps(path: str) -> list[str | int]:
    return [
        int(part[1:]) if part.startswith("#") else part
        for part in path.replace("[", ".#").replace("]", "").split(".")
    ]
