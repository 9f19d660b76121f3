"""A load test while it runs: a few lines on a terminal, redrawn every second, or one line now and then.

Written with plain escape sequences: it shares a processor with the sender. A picture of 400 seconds
takes 0.7 ms, half of what a library of widgets takes, whose import alone is 36 ms.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from typing import TextIO

from headrace.contracts.load import LoadPlan
from headrace.contracts.load_report import Moment

_LINE_EVERY_S = 5.0
_ROWS_MS = (10, 25, 63, 160, 400, 1_000, 2_500, 6_300, 16_000, 40_000)
"""Rows of the heat strip, lowest first: latencies up to each of them, in ms; the last has the rest.
They are bounds of the counts themselves (two fifths of a decade apart), rounded for the eye."""

_BLOCKS = " ░▒▓█"
_EDGE = 9
_MOST_COLUMNS = 400


class Live:
    """Shows each ``Moment`` that it is handed. ``end`` leaves the last picture where it is.

    Where ``out`` is a terminal, a picture as wide as it is; else a line every five seconds.
    """

    def __init__(
        self,
        plan: LoadPlan,
        out: TextIO,
        *,
        heat_bounds_ms: tuple[float, ...],
        width: Callable[[], int] | None = None,
    ) -> None:
        self._plan = plan
        self._out = out
        self._bounds = heat_bounds_ms
        self._width = width or (lambda: shutil.get_terminal_size().columns)
        self._is_terminal = out.isatty()
        self._past: deque[Moment] = deque(maxlen=_MOST_COLUMNS)
        self._done = self._failed = 0
        self._drawn = 0
        self._said_at = 0.0

    def moment(self, moment: Moment) -> None:
        """An interval is over."""
        self._past.append(moment)
        self._done += moment.done
        self._failed += moment.failed
        if self._is_terminal:
            self._draw()
        elif moment.at + moment.seconds - self._said_at >= _LINE_EVERY_S:
            self._said_at = moment.at + moment.seconds
            self._out.write(self.line() + "\n")
            self._out.flush()

    def end(self) -> None:
        """The run is over; what is written next begins below."""
        if self._is_terminal and self._drawn:
            self._out.write("\x1b[?25h")
            self._out.flush()
        self._drawn = 0

    def line(self) -> str:
        """How it stands, in one line."""
        m = self._past[-1]
        until = m.at + m.seconds
        lately = [p for p in self._past if p.at >= until - _LINE_EVERY_S - 1e-9] or [m]
        seconds = sum(p.seconds for p in lately)
        parts = [
            f"{_clock(until)}",
            f"{sum(p.done for p in lately) / seconds:.1f} req/s",
            f"{m.in_flight} in flight",
            *((f"{m.waiting} waiting",) if m.waiting else ()),
            f"TTFT p50 {_ms(m.ttft_p50)}",
            f"p95 {_ms(m.ttft_p95)}",
            f"{sum(p.output_tokens for p in lately) / seconds:,.0f} tok/s",
            f"{self._failed} errors",
            self._left(),
        ]
        return "  ".join(p for p in parts if p)

    def lines(self, width: int) -> list[str]:
        """The picture, each line at most ``width`` columns wide."""
        m = self._past[-1]
        waiting = f"   waiting {m.waiting:,}" if m.waiting else ""
        errors = f"   errors {self._failed:,}"
        rows = [
            f"{_clock(m.at + m.seconds)}   done {self._done:,}{errors}   {self._left()}".rstrip(),
            f"rate {m.done / m.seconds:,.1f}/s   sent {m.sent / m.seconds:,.1f}/s"
            f"   in flight {m.in_flight:,}{waiting}",
            f"TTFT p50 {_ms(m.ttft_p50)}  p95 {_ms(m.ttft_p95)}   ITL p50 {_ms(m.itl_p50)}"
            f"   output {m.output_tokens / m.seconds:,.0f} tok/s",
            *self._heat(width),
        ]
        return [row[:width] for row in rows]

    def _heat(self, width: int) -> list[str]:
        columns = list(self._past)[-max(1, width - _EDGE) :]
        grouped = [_by_row(m.heat, self._bounds) for m in columns]
        used = [row for counts in grouped for row, n in enumerate(counts) if n]
        if not used:
            return ["latency: none yet"]
        rows = []
        for row in range(max(used), min(used) - 1, -1):
            cells = "".join(_block(counts[row], sum(counts)) for counts in grouped)
            last = row == len(_ROWS_MS) - 1
            label = f">{_short(_ROWS_MS[row - 1])}" if last else f"<{_short(_ROWS_MS[row])}"
            rows.append(f"{label:>{_EDGE - 2}} │{cells}")
        return rows

    def _left(self) -> str:
        """How long it will still take, as far as the plan says."""
        plan, m = self._plan, self._past[-1]
        at, left = m.at + m.seconds, []
        if plan.duration_s is not None:
            left.append(max(0.0, plan.duration_s - at))
        over = self._done + self._failed
        if plan.requests is not None and over:
            left.append(max(0.0, (plan.requests - over) * at / over))
        return f"{_clock(min(left))} left" if left else ""

    def _draw(self) -> None:
        lines = self.lines(max(20, self._width() - 1))
        up = f"\x1b[{self._drawn}A" if self._drawn else "\x1b[?25l"
        # Each line is cleared to its end as it is written, so nothing flickers; what a taller
        # picture left below goes at the end.
        self._out.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._out.flush()
        self._drawn = len(lines)


def _by_row(heat: tuple[int, ...], bounds: tuple[float, ...]) -> list[int]:
    counts, row = [0] * len(_ROWS_MS), 0
    for i, n in enumerate(heat):
        upper = bounds[i] if i < len(bounds) else float("inf")
        while row < len(_ROWS_MS) - 1 and upper > _ROWS_MS[row] * 1.02:
            row += 1
        counts[row] += n
    return counts


def _block(count: int, whole: int) -> str:
    return _BLOCKS[0] if not count else _BLOCKS[1 + min(3, 4 * count // (whole + 1))]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _short(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
