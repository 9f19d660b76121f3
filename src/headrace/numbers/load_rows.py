"""Every measured request of a load test as a row of typed columns: 125 bytes each.

Times are ms; ``begin`` and ``sent`` are seconds from the run's beginning. A float that is unknown
is NaN here and a count that is unknown is -1; ``columns`` makes None of both.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from math import isnan

from headrace.contracts.load_report import Columns

OK, FAILED, CUT = 0, 1, 2

FLOATS = (
    "intended",
    "sent",
    "latency",
    "service",
    "ttft",
    "service_ttft",
    "tpot",
    "worst_gap",
    "connect",
    "speed",
)
COUNTS = ("index", "input_tokens", "output_tokens", "chunks")
SMALL = ("status", "error", "scenario")
_TYPES = (
    dict.fromkeys(FLOATS, "d")
    | dict.fromkeys(COUNTS, "q")
    | dict.fromkeys(SMALL, "i")
    | {"fate": "b"}
)
UNKNOWN = float("nan")


class Names:
    """Texts by number, so that a row can hold one in a few bytes; None is -1."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = list(texts)
        self._numbers = {text: i for i, text in enumerate(self.texts)}

    def number(self, text: str | None) -> int:
        if text is None:
            return -1
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return found

    def text(self, number: int) -> str | None:
        return None if number < 0 else self.texts[number]


class Rows:
    """The columns; ``append`` takes a row in the order of FLOATS, COUNTS, SMALL and the fate."""

    def __init__(self) -> None:
        self.data: dict[str, array[float]] = {name: array(t) for name, t in _TYPES.items()}
        self.errors = Names()
        self.scenarios = Names()
        self._appends = tuple(column.append for column in self.data.values())

    def __len__(self) -> int:
        return len(self.data["fate"])

    def append(self, row: tuple[float, ...]) -> None:
        for append, value in zip(self._appends, row, strict=True):
            append(value)

    def row(self, i: int) -> tuple[float, ...]:
        return tuple(column[i] for column in self.data.values())

    def values(self, name: str, scenario: int | None = None) -> list[float]:
        """What is known in column ``name`` of the requests that ended well, in one scenario."""
        known, fates = self.data[name], self.data["fate"]
        if scenario is None:
            pairs = zip(known, fates, strict=True)
            return [v for v, fate in pairs if fate == OK and not isnan(v) and v != -1]
        triples = zip(known, fates, self.data["scenario"], strict=True)
        return [
            v for v, fate, s in triples if s == scenario and fate == OK and not isnan(v) and v != -1
        ]

    def translated(self, other: Rows) -> Iterable[tuple[float, ...]]:
        """The rows of ``other``, in our numbers for its names."""
        names = list(self.data)
        error, scenario = names.index("error"), names.index("scenario")
        for i in range(len(other)):
            row = list(other.row(i))
            row[error] = self.errors.number(other.errors.text(int(row[error])))
            row[scenario] = self.scenarios.number(other.scenarios.text(int(row[scenario])))
            yield tuple(row)

    def columns(self) -> Columns:
        """All rows, in the order in which they began."""
        d = self.data
        starts = [s if isnan(i) else i for i, s in zip(d["intended"], d["sent"], strict=True)]
        order = sorted(
            range(len(self)), key=lambda i: (_last(starts[i]), d["index"][i], _last(d["sent"][i]))
        )

        def real(name: str) -> tuple[float | None, ...]:
            column = d[name]
            return tuple(None if isnan(v := column[i]) else v for i in order)

        def whole(name: str) -> tuple[int | None, ...]:
            column = d[name]
            return tuple(None if (v := column[i]) == -1 else int(v) for i in order)

        return Columns(
            index=tuple(int(d["index"][i]) for i in order),
            intended_s=real("intended"),
            sent_s=real("sent"),
            latency_ms=real("latency"),
            service_ms=real("service"),
            ttft_ms=real("ttft"),
            tpot_ms=real("tpot"),
            worst_gap_ms=real("worst_gap"),
            connect_ms=real("connect"),
            input_tokens=whole("input_tokens"),
            output_tokens=whole("output_tokens"),
            chunks=tuple(int(d["chunks"][i]) for i in order),
            status=whole("status"),
            error=tuple(self.errors.text(int(d["error"][i])) for i in order),
            scenario=tuple(self.scenarios.text(int(d["scenario"][i])) for i in order),
        )

    def to_plain(self) -> dict[str, object]:
        """All of it as bytes, little end first, and names."""
        return {
            "errors": self.errors.texts,
            "scenarios": self.scenarios.texts,
            "columns": {name: _swapped(column).tobytes() for name, column in self.data.items()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> Rows:
        """What ``to_plain`` wrote; ValueError where its columns are not of one length."""
        made = cls()
        columns, errors, scenarios = plain["columns"], plain["errors"], plain["scenarios"]
        if not (
            isinstance(columns, Mapping)
            and isinstance(errors, list)
            and isinstance(scenarios, list)
            and set(columns) == set(_TYPES)
        ):
            raise ValueError(f"rows have columns {columns!r:.80}; expected {', '.join(_TYPES)}")
        for name, column in made.data.items():
            column.frombytes(columns[name])
            if sys.byteorder == "big":
                column.byteswap()
        if len({len(column) for column in made.data.values()}) > 1:
            raise ValueError("rows have columns of different lengths; expected one length")
        made.errors, made.scenarios = Names(errors), Names(scenarios)
        return made


def _swapped(column: array[float]) -> array[float]:
    if sys.byteorder == "little":
        return column
    turned = array(column.typecode, column)
    turned.byteswap()
    return turned


def _last(instant: float) -> float:
    """An unknown instant comes after all others; NaN would leave the order to chance."""
    return float("inf") if isnan(instant) else instant
