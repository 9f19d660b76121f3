"""Answers in progress: what is written at which instant, with what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.bench.mock.amounts import read_duration
from headrace.bench.mock.connection import Connection, head
from headrace.bench.mock.faces import (
    ANSWER_ID,
    LAST_CHUNK,
    Face,
    Words,
    chunk,
    ending,
    opening,
    pieces,
)
from headrace.bench.mock.plan import Plan, gap_s

if TYPE_CHECKING:
    from headrace.bench.mock.server import Mock

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
NOT_JSON = b"<html><body>this is no answer</body></html>"

_LEAST_ENDLESS_GAP_S = 0.001


class Exchange:
    """One answer: from its place among those served to its end."""

    def __init__(self, mock: Mock, connection: Connection, plan: Plan) -> None:
        self._mock = mock
        self._connection = connection
        self._plan = plan
        self._ended = False
        self.served = False
        connection.answer = self

    def begin(self, start: float) -> None:
        """Its turn has come, at ``start``."""
        raise NotImplementedError

    def leave(self) -> None:
        """The caller has gone."""
        if not self._ended:
            self._ended = True
            self._mock.left(self, self._mock.clock())

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._ended

    def _end(self, due: float) -> None:
        """All is written."""
        self._ended = True
        self._mock.done(self, due)
        self._connection.finished()

    def _break_off(self, due: float, by: Callable[[], None]) -> None:
        self._ended = True
        self._mock.done(self, due)
        self._connection.answer = None
        by()


class Whole(Exchange):
    """An answer that comes in one piece, when the last of its ``gaps`` is over."""

    def __init__(
        self, mock: Mock, connection: Connection, plan: Plan, data: bytes, gaps: int
    ) -> None:
        super().__init__(mock, connection, plan)
        self._data = data
        self._gaps = gaps

    def begin(self, start: float) -> None:
        plan, fault = self._plan, self._plan.fault
        gap = self._mock.extra_gap_s()
        takes_s = plan.ttft_s + sum(gap_s(plan) + gap for _ in range(self._gaps))
        if fault is not None and fault.kind == "stall":
            takes_s += read_duration(fault.lasts)
        if fault is not None and fault.kind == "endless":
            self._mock.schedule.at(start + plan.ttft_s, self._begin_endless)
        else:
            self._mock.schedule.at(start + takes_s, self._write)

    def _write(self, due: float) -> None:
        if self._ended:
            return
        fault = self._plan.fault
        if fault is not None and fault.kind in ("reset", "cut"):
            half = self._data[: len(self._data) // 2]
            self._connection.send(half)
            connection = self._connection
            self._break_off(due, connection.reset if fault.kind == "reset" else connection.close)
            return
        self._connection.send(self._data)
        self._mock.count_lateness(self._mock.clock() - due)
        self._end(due)

    def _begin_endless(self, due: float) -> None:
        self._connection.send(head(200, JSON, None))
        self._mock.schedule.at(due, self._go_on)

    def _go_on(self, due: float) -> float | None:
        """White space, which may stand before any JSON."""
        if self._ended:
            return None
        if not self._connection.paused:
            self._connection.send(chunk(b" "))
        return due + max(gap_s(self._plan), _LEAST_ENDLESS_GAP_S)


class Stream(Exchange):
    """An answer token by token; each instant counts from the one before, not from its writing."""

    def __init__(
        self,
        mock: Mock,
        connection: Connection,
        plan: Plan,
        face: Face,
        model: str,
        include_usage: bool,
        prompt_tokens: int,
        answer_id: bytes,
        words: Words = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(mock, connection, plan)
        self._id = answer_id
        self._index = 0
        self._pieces = pieces(face, model, include_usage, words)
        fault = plan.fault
        kind = None if fault is None else fault.kind
        self._last = plan.tokens - 1
        self._break_at = -1
        if kind in ("stall", "reset", "cut") and fault is not None:
            after = plan.tokens // 2 if fault.after is None else fault.after
            self._break_at = min(after, self._last)
        begun = head(200, EVENTS, None, ((b"cache-control", b"no-cache"), *headers))
        self._opening = begun + opening(face, model, include_usage, prompt_tokens, words)
        if kind == "endless":
            self._last = -1
            self._ending = b""
        else:
            told = -1 if kind == "no_usage" else prompt_tokens
            self._ending = ending(face, model, include_usage, told, plan.tokens, plan.reason, words)
        if kind == "not_json":
            self._last = 0
            self._opening = begun + chunk(b"data: " + NOT_JSON + b"\n\n")
            self._ending = LAST_CHUNK

    def begin(self, start: float) -> None:
        self._mock.schedule.at(start + self._plan.ttft_s, self._write)

    def _write(self, due: float) -> float | None:
        """Token ``_index``, and when the next one is due."""
        if self._ended:
            return None
        connection, index = self._connection, self._index
        if connection.paused:
            # A reader who does not read: nothing is late, it waits for the reader.
            connection.when_writable(
                lambda: self._mock.schedule.at(self._mock.clock(), self._write)
            )
            return None
        if index == self._break_at:
            self._break_at = -1
            after = self._break(due)
            if after is not None or self._ended:
                return after
        data = self._opening if index == 0 else self._pieces.at(index)
        if index == self._last:
            data += self._ending
        connection.send(data.replace(ANSWER_ID, self._id))
        self._mock.count_token(self._mock.clock() - due)
        if index == self._last:
            self._end(due)
            return None
        self._index = index + 1
        gap = gap_s(self._plan) + self._mock.extra_gap_s()
        if self._last < 0:
            gap = max(gap, _LEAST_ENDLESS_GAP_S)
        return due + gap

    def _break(self, due: float) -> float | None:
        fault, connection = self._plan.fault, self._connection
        assert fault is not None
        if fault.kind == "stall":
            return due + read_duration(fault.lasts)
        self._break_off(due, connection.reset if fault.kind == "reset" else connection.close)
        return None
