"""The log as text, for a terminal: what callers choose of it does nothing there."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from gateway.front import Front, run, said
from headrace.gateway.config import LoggingConfig
from headrace.gateway.logs import set_up


@pytest.fixture
def text_log() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in ("headrace", "uvicorn")]
    before = [(each.handlers, each.propagate, each.level) for each in loggers]
    stream = io.StringIO()
    set_up(LoggingConfig(format="text"), stream)
    yield stream
    for each, (handlers, propagate, level) in zip(loggers, before, strict=True):
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.mark.parametrize("odd", ["\n", "\r\n", "\x1b[2J", "\x9b2J", "\u2028"])
def test_a_path_is_one_line_whatever_it_says(text_log, odd):
    async def main() -> None:
        front = Front({}, {"m": said("hi")})
        status, _, _ = await front.ask(f"/v1/x{odd}00:00:00 error all is lost")
        assert status == 404

    run(main)
    (line,) = text_log.getvalue().splitlines()
    assert "all is lost 404" in line
    assert line.isprintable()
