"""What a server tells about itself while it is under load: its metrics, asked for in step.

A connection of its own and one small request a second, so the measured ones are left alone. A
server without metrics is a note in the report, never an error.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

import attrs

from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.contracts.load_report import ServerSeries
from headrace.net.clock import World
from headrace.net.transport import HttpRequest, TimeLimits, Url, parse_url
from headrace.wire.engine_names import ENGINES, kind_of
from headrace.wire.prometheus_text import Chosen, MetricKind

_KINDS: Mapping[str, MetricKind] = {
    name: kind_of(name) for engine in ENGINES for name in engine.names()
}

_MAX_PORT = 8001
"""MAX serves its metrics on a port of their own (MAX_SERVE_METRICS_ENDPOINT_PORT)."""

_MOST_BYTES = 4 << 20
_MOST_SERIES = 64
_MOST_INSTANTS = 1800
"""Half an hour of seconds; a longer run keeps every second instant, as often as it takes."""

_PATIENCE = 5
_LIMITS = TimeLimits(connect_s=1.0, first_byte_s=1.0, idle_s=1.0, total_s=2.0)


def metrics_urls(url: str, metrics_url: str | None = None) -> tuple[str, ...]:
    """Where the metrics of the server at ``url`` may be: at ``metrics_url`` alone if it is given."""
    if metrics_url is not None:
        return (metrics_url,)
    place = parse_url(url if "://" in url else f"http://{url}")
    base = place.target.partition("?")[0].rstrip("/").removesuffix("/v1")
    found = [f"{place.origin}/metrics"]
    if base:
        found.insert(0, f"{place.origin}{base}/metrics")
    if place.scheme == "http" and place.unix_path is None and place.port != _MAX_PORT:
        found.append(f"{attrs.evolve(place, port=_MAX_PORT).origin}/metrics")
    return tuple(found)


class Scrape:
    """Asks one of ``urls`` for its metrics every ``interval_s``: the known ones and ``names``.

    ``look`` first, before the load; then ``run`` as a task, which is cancelled when the load is
    over. It asks through a transport of its own, so that no measured connection is touched.
    """

    def __init__(
        self,
        urls: Iterable[str],
        world: World,
        *,
        names: Iterable[str] = (),
        headers: tuple[tuple[str, str], ...] = (),
        interval_s: float = 1.0,
    ) -> None:
        self.notes: list[str] = []
        self._urls = tuple(urls)
        self._world = world
        self._headers = headers
        self._interval_s = interval_s
        self._wanted = tuple(names)
        self._chosen = Chosen((*_KINDS, *(n for n in self._wanted if n not in _KINDS)))
        self._kinds: dict[str, MetricKind] = dict(_KINDS)
        self._url: Url | None = None
        self._series: dict[tuple[str, str], tuple[array[float], array[float]]] = {}
        self._left_out = 0
        self._instants = 0

    async def look(self) -> bool:
        """Find the metrics; False, and a note, where there are none."""
        answers = []
        for text in self._urls:
            url = parse_url(text)
            try:
                page = await self._page(url)
            except LLMError as error:
                answers.append(f"{url.origin}{url.target.partition('?')[0]}: {error.message}")
                continue
            # What answers on the other port is the server's only where it speaks of it.
            if self._chosen.read(page) and (
                url.port != _MAX_PORT or len(self._urls) == 1 or b"maxserve_" in page
            ):
                self._url = url
                self._kinds = {**self._chosen.kinds(page), **_KINDS}
                self._missing(page)
                return True
            answers.append(f"{url.origin}{url.target.partition('?')[0]}: none that we know")
        self.notes.append(f"no metrics of the server ({'; '.join(answers)})")
        return False

    async def run(self, begin: float) -> None:
        """Ask from now on until cancelled; ``begin`` is the run's beginning on the world's clock."""
        clock, failures = self._world.clock, 0
        if self._url is None:
            return
        due = clock.monotonic()
        while True:
            asked = clock.monotonic()
            try:
                page = await self._page(self._url)
            except LLMError as error:
                failures += 1
                if failures == _PATIENCE:
                    self.notes.append(
                        f"the server's metrics end at {asked - begin:.0f} s: {error.message}"
                    )
                    return
            else:
                failures = 0
                # They are as of some instant between asking and answering.
                self._keep((asked + clock.monotonic()) / 2 - begin, page)
            due = max(due + self._interval_s, clock.monotonic())
            await clock.sleep(due - clock.monotonic())

    def series(self) -> tuple[ServerSeries, ...]:
        """What was told: gauges as they stood, counters as their rate a second."""
        found = []
        for (name, labels), (at, values) in sorted(self._series.items()):
            kind = self._kind(name)
            told = _rates(at, values) if kind == "counter" else (tuple(at), tuple(values))
            if told[0]:
                found.append(
                    ServerSeries(name=name, labels=labels, kind=kind, at=told[0], values=told[1])
                )
        return tuple(found)

    def _kind(self, name: str) -> MetricKind:
        return self._kinds.get(name, "counter" if name.endswith("_total") else "gauge")

    def _missing(self, page: bytes) -> None:
        there = {value.name for value in self._chosen.read(page)}
        lacking = [name for name in self._wanted if name not in there]
        if lacking:
            self.notes.append(f"the server does not tell {', '.join(lacking)}")

    async def _page(self, url: Url) -> bytes:
        request = HttpRequest(url=url, headers=(("accept", "text/plain"), *self._headers))
        reply = await self._world.transport.send(request, _LIMITS)
        try:
            if reply.status != 200:
                raise LLMInvalidRequestError(f"status {reply.status}", status=reply.status)
            return await reply.read(_MOST_BYTES)
        finally:
            await reply.aclose()

    def _keep(self, at: float, page: bytes) -> None:
        self._instants += 1
        for line in self._chosen.read(page):
            key = line.name, line.labels
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= _MOST_SERIES:
                    if not self._left_out:
                        self.notes.append(f"only the first {_MOST_SERIES} series are kept")
                    self._left_out += 1
                    continue
                series = self._series[key] = array("d"), array("d")
            series[0].append(at)
            series[1].append(line.value)
        if self._instants >= _MOST_INSTANTS:
            self._instants //= 2
            self._interval_s *= 2
            self._series = {k: (a[::2], v[::2]) for k, (a, v) in self._series.items()}


def _rates(at: array[float], values: array[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By how much a second it grew up to each instant; what falls has begun again at zero."""
    instants, rates = [], []
    for i in range(1, len(at)):
        seconds = at[i] - at[i - 1]
        if seconds > 0:
            grown = values[i] - values[i - 1]
            instants.append(at[i])
            rates.append((grown if grown >= 0 else values[i]) / seconds)
    return tuple(instants), tuple(rates)
