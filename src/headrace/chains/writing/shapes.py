"""How one result looks: nested, flat, or by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from headrace.chains.reading.rows import Row

Shape: TypeAlias = Literal["nested", "flat", "value"]


class Shaping:
    """``nested``: ``id``, ``input`` and ``output``; ``flat``: the input's columns and the output's
    fields side by side; ``value``: the output alone.

    Where a field of the output is called as a column of the input is, it is ``output.`` and its
    name from there on.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._both: set[str] = set()

    def one(self, row: Row, value: Any) -> Any:
        """One result as it is written."""
        if self.shape == "value":
            return value
        return self.columns(row, value)

    def columns(self, row: Row, value: Any) -> dict[str, Any]:
        """One result as columns: a value alone is the column ``output``."""
        if self.shape == "nested":
            return {"id": row.id, "input": row.value, "output": value, **row.beside}
        fields = value if isinstance(value, Mapping) else {"output": value}
        if self.shape == "value":
            return dict(fields)
        taken = {**({} if "id" in row.value else {"id": row.id}), **row.value}
        self._both.update(name for name in fields if name in taken)
        for name, each in fields.items():
            taken[self._name(name, taken)] = each
        for at, of in row.beside.items():
            for name, each in of.items():
                taken[self._name(f"{at}.{name}", taken)] = each
        return taken

    def _name(self, name: str, taken: Mapping[str, Any]) -> str:
        if name in self._both:
            name = f"output.{name}"
        while name in taken:
            name = f"output.{name}"
        return name
