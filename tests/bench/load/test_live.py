"""What is seen of a load test while it runs."""

import io
import re
import time

import pytest

from headrace.bench.load.live import Live
from headrace.contracts.load import LoadPlan, Poisson
from headrace.contracts.load_report import Moment
from headrace.numbers.load_course import HEAT_BOUNDS_MS

PLAN = LoadPlan(url="http://127.0.0.1:1", arrivals=Poisson(rate=20.0), duration_s=300.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def heat(**counts):
    """Counts by bound: ``heat(b100=3)`` is three latencies of up to 100 ms."""
    made = [0] * (len(HEAT_BOUNDS_MS) + 1)
    for name, n in counts.items():
        made[HEAT_BOUNDS_MS.index(float(name[1:]))] = n
    return tuple(made)


def moment(at, **changes):
    return Moment(
        **{
            "at": float(at),
            "seconds": 1.0,
            "sent": 20,
            "done": 19,
            "failed": 1,
            "in_flight": 7,
            "output_tokens": 1900,
            "ttft_p50": 52.3,
            "ttft_p95": 1234.0,
            "itl_p50": 10.1,
            "latency_p50": 900.0,
            "heat": heat(b100=2, b1000=16, b10000=1),
        }
        | changes
    )


def live(out, width=80, plan=PLAN):
    return Live(plan, out, heat_bounds_ms=HEAT_BOUNDS_MS, width=lambda: width)


def screen(text):
    """What a terminal shows after ``text``, whose only commands are those of the live view."""
    rows, row, column = [""], 0, 0
    for command, plain in re.findall(r"(\x1b\[\??\d*[A-Za-z])|([^\x1b]+)", text):
        if command.endswith("A"):
            row -= int(command[2:-1])
        elif command == "\x1b[K":
            rows[row] = rows[row][:column]
        elif command == "\x1b[J":
            rows[row:] = [rows[row][:column]]
        for char in plain:
            if char == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            elif char == "\r":
                column = 0
            else:
                rows[row] = rows[row][:column].ljust(column) + char + rows[row][column + 1 :]
                column += 1
    return rows


@pytest.mark.parametrize("width", [80, 160])
def test_the_picture_is_as_wide_as_the_terminal_and_is_drawn_in_its_own_place(width):
    out = Terminal()
    view = live(out, width)
    for at in range(200):
        view.moment(moment(at))
    view.end()
    shown = [row for row in screen(out.getvalue()) if row]
    assert max(map(len, shown)) == width - 1
    assert shown[0] == "3:20   done 3,800   errors 200   1:40 left"
    assert shown[1] == "rate 19.0/s   sent 20.0/s   in flight 7"
    assert shown[2] == "TTFT p50 52.3 ms  p95 1.23 s   ITL p50 10.1 ms   output 1,900 tok/s"
    strip = {row.split("│")[0].strip(): row.split("│")[1] for row in shown[3:]}
    assert set(strip["<1 s"]) == {"█"}
    assert set(strip["<160 ms"]) == {"░"}
    assert set(strip["<400 ms"]) == {" "}
    assert set(strip["<16 s"]) == {"░"}
    assert list(strip) == ["<16 s", "<6.3 s", "<2.5 s", "<1 s", "<400 ms", "<160 ms"]
    assert out.getvalue().endswith("\x1b[?25h")


def test_requests_that_wait_are_seen_and_a_second_without_answers_is_blank():
    view = live(Terminal())
    view.moment(moment(0, done=0, failed=0, heat=(), ttft_p50=None, ttft_p95=None, waiting=12))
    lines = view.lines(79)
    assert "waiting 12" in lines[1]
    assert "TTFT p50 -" in lines[2]
    assert lines[3] == "latency: none yet"


def test_what_is_no_terminal_gets_a_plain_line_every_five_seconds():
    out = io.StringIO()
    view = live(out)
    for at in range(12):
        view.moment(moment(at))
    view.end()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in out.getvalue()
    assert lines[1] == (
        "0:10  19.0 req/s  7 in flight  TTFT p50 52.3 ms  p95 1.23 s  1,900 tok/s  10 errors"
        "  4:50 left"
    )


def test_a_run_of_so_many_requests_says_when_it_will_be_through():
    view = live(Terminal(), plan=LoadPlan(url="http://127.0.0.1:1", requests=200))
    for at in range(5):
        view.moment(moment(at))
    assert view.lines(79)[0].endswith("0:05 left")


def test_drawing_once_a_second_takes_less_than_a_hundredth_of_a_core():
    view = live(Terminal(), 160)
    for at in range(400):
        view.moment(moment(at))
    before = time.process_time()
    for at in range(400, 500):
        view.moment(moment(at))
    assert (time.process_time() - before) / 100 < 0.01
