"""The mock itself: who is served, who waits, what was counted; and its listening socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic

from attrs import frozen

from headrace.bench.mock.amounts import read_duration
from headrace.bench.mock.answers import answer
from headrace.bench.mock.connection import Connection, Request
from headrace.bench.mock.exchange import Exchange
from headrace.bench.mock.plan import read_rules
from headrace.bench.mock.replies import refusal
from headrace.bench.mock.schedule import SPIN_S, Alarm, Schedule, best_alarm
from headrace.bench.mock.settings import MockSettings
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.numbers.histogram import LogHistogram

_BACKLOG = 4096


@frozen(kw_only=True)
class Seen:
    """A request as the mock saw it."""

    number: int
    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes


class Mock:
    """A mock server. ``on_request`` is told of every request to a model, when it has come."""

    def __init__(
        self,
        settings: MockSettings,
        *,
        on_request: Callable[[Seen], None] | None = None,
        alarm: Callable[[Callable[[], None]], Alarm] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.clock = clock
        self.rules = read_rules(settings)
        self.schedule = Schedule(alarm or best_alarm(), SPIN_S if settings.exact else 0.0, clock)
        self.connections: set[Connection] = set()
        self.lateness = LogHistogram()
        self.answered: Counter[tuple[str, int]] = Counter()
        self.tokens = 0
        self.gone = 0
        self.number = 0
        self.active = 0
        self.started = self.clock()
        self._on_request = on_request
        self._waiting: deque[tuple[Exchange, float]] = deque()
        self._server: asyncio.Server | None = None
        self._allowance = 0.0
        self._allowance_at = self.started

    @property
    def settings(self) -> MockSettings:
        """What it does now."""
        return self.rules.settings

    @settings.setter
    def settings(self, settings: MockSettings) -> None:
        """Requests that come from now on are answered by ``settings``."""
        self.rules = read_rules(settings)
        self._fill(self.clock())

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    async def listen(
        self, listener: socket.socket, announce: Callable[[], None] | None = None
    ) -> None:
        """Accept connections on the bound ``listener``, when they are no longer to be refused.

        ``announce`` is called when the mock can be asked (or refuses, where that is its task).
        """
        loop = asyncio.get_running_loop()
        self.started = self._allowance_at = self.clock()
        self._allowance = self._capacity()
        refuse_s = read_duration(self.settings.refuse_for)
        if refuse_s:
            if announce is not None:
                announce()
            await asyncio.sleep(refuse_s)
        self._server = await loop.create_server(
            lambda: Connection(self), sock=listener, backlog=_BACKLOG
        )
        freeze = self.settings.freeze
        if freeze is not None:
            self.schedule.at(self.clock() + read_duration(freeze.every), self._freeze)
        if announce is not None and not refuse_s:
            announce()

    async def close(self) -> None:
        """Stop at once, whoever is being answered."""
        if self._server is not None:
            self._server.close()
        self.schedule.close()
        for connection in list(self.connections):
            connection.abort()
        if self._server is not None:
            await self._server.wait_closed()

    # What connections call

    def take(self, connection: Connection, request: Request) -> None:
        """Answer ``request``."""
        answer(self, connection, request)

    def refuse(self, connection: Connection, said: str, status: int = 400) -> None:
        """Say what was wrong with a request that could not be read."""
        connection.send(refusal("", LLMInvalidRequestError(said, status=status))[1])

    # What answers call

    def note(self, request: Request) -> int:
        """The number of a new ``request`` to a model, from 0."""
        number, self.number = self.number, self.number + 1
        if self._on_request is not None:
            self._on_request(
                Seen(
                    number=number,
                    method=request.method,
                    path=request.path,
                    headers=request.headers,
                    body=request.body,
                )
            )
        return number

    def enter(self, exchange: Exchange, arrival: float) -> None:
        """Serve ``exchange``, when there is a slot for it."""
        slots = self.settings.slots
        if slots is None or self.active < slots:
            self._serve(exchange, arrival)
        else:
            self._waiting.append((exchange, arrival))

    def done(self, exchange: Exchange, instant: float) -> None:
        """``exchange`` needs its slot no more, from ``instant`` on."""
        if exchange.served:
            exchange.served = False
            self.active -= 1
        self._fill(instant)

    def left(self, exchange: Exchange, instant: float) -> None:
        """The caller of ``exchange`` has gone."""
        self.gone += 1
        self.done(exchange, instant)

    def extra_gap_s(self) -> float:
        """What the others who are served add to each gap."""
        return self.rules.itl_per_stream_s * (self.active - 1)

    def count_lateness(self, late_s: float) -> None:
        """Something was written so late."""
        self.lateness.add(max(0.0, late_s))

    def count_token(self, late_s: float) -> None:
        """A token was written so late."""
        self.tokens += 1
        self.lateness.add(max(0.0, late_s))

    def allowance(self) -> float | None:
        """How many requests the rate limit still lets in now; None where there is none."""
        rate = self.settings.rate_limit
        if rate is None:
            return None
        now = self.clock()
        grown = self._allowance + (now - self._allowance_at) * rate
        self._allowance, self._allowance_at = min(grown, self._capacity()), now
        return self._allowance

    def spend(self) -> None:
        """One request of the allowance is used."""
        self._allowance -= 1

    def _capacity(self) -> float:
        return max(1.0, self.settings.rate_limit or 0.0)

    def _fill(self, instant: float) -> None:
        """Serve those who wait, as far as there are slots, from ``instant`` on."""
        slots = self.settings.slots
        while self._waiting and (slots is None or self.active < slots):
            waiting, arrival = self._waiting.popleft()
            if not waiting.gone:
                # From the very instant at which the slot was free: its lateness is not the next's.
                self._serve(waiting, max(arrival, instant))

    def _serve(self, exchange: Exchange, start: float) -> None:
        self.active += 1
        exchange.served = True
        exchange.begin(start)

    def _freeze(self, due: float) -> float | None:
        freeze = self.settings.freeze
        if freeze is None:
            return None
        lasts_s = read_duration(freeze.lasts)
        # The whole loop is to stand still, so nothing is awaited.
        time.sleep(max(0.0, due + lasts_s - self.clock()))
        self.schedule.shift(lasts_s)
        return due + read_duration(freeze.every)


def listen_on(host: str, port: int) -> socket.socket:
    """A socket bound to ``host`` and ``port`` that refuses connections until it is listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as refused:
        listener.close()
        raise LLMInvalidRequestError(
            f"cannot listen on {host}:{port}: {refused.strerror or refused}; choose another port "
            "with --port (0 picks a free one)",
            param="port",
        ) from refused
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where ``listener`` is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
