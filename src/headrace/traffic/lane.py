"""One endpoint as traffic sees it: a backend with its door, its limits and what it did so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from attrs import evolve, field, frozen

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.messages import TextPart
from headrace.contracts.protocols import Backend
from headrace.contracts.requests import LLMRequest
from headrace.contracts.snapshot import EndpointStats, LaneSnapshot
from headrace.traffic.admission import Admission
from headrace.traffic.breaker import Breaker
from headrace.traffic.counts import Counts
from headrace.traffic.gauge import Gauge
from headrace.traffic.health import Health
from headrace.traffic.keys import Key, Keys
from headrace.traffic.retry import RetryBudget, RetryPolicy

# What a chat template may put around one message or one tool, in tokens, with room to spare.
_FRAME_TOKENS = 32
# For limits a minute: the bytes of a usual token, and the tokens of an answer of unknown length.
_TOKEN_BYTES = 4
_USUAL_ANSWER_TOKENS = 256


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that can count a prompt exactly, at the price of asking its engine."""

    async def count_tokens(self, request: LLMRequest) -> int: ...


@runtime_checkable
class Tokenizes(Protocol):
    """A backend whose tokenizer can be asked."""

    async def tokens_of(self, text: str, *, special: bool) -> tuple[tuple[int, bytes], ...]:
        """The tokens of ``text`` by number and what each says; ``special``: with the marks that the
        model wants around a prompt."""

    async def text_of(self, ids: Sequence[int]) -> str:
        """What the tokens of these numbers say together."""


@runtime_checkable
class OfEngines(Protocol):
    """A backend of several engines for the same model, each with room of its own."""

    def choose(self, request: LLMRequest, running: int) -> Backend:
        """Who shall answer ``request``, where ``running`` others run or wait already."""


@runtime_checkable
class OnDemand(Protocol):
    """A backend whose server is started when it is asked, and need not run before."""

    @property
    def remote(self) -> Backend | None:
        """The way to its server, while that answers."""


@frozen
class Seat:
    """Who answers a request, the door that leads there, and the key by which, where there are
    several."""

    backend: Backend
    admission: Admission
    key: Key | None = None


@frozen(kw_only=True)
class Lane:
    """One backend behind one admission; calls of one event loop share it.

    Without ``retry`` every call is one attempt; without ``budget`` retries are not bounded
    together; without ``breaker`` it is always asked; without ``health`` it always has its turn
    among several. ``first_token_s`` is how long each attempt may
    take until its first output; ``total_s`` how long a call may take from its first admission to
    its end, retries included, or, where its answer is streamed, until its first output. ``whole_s``
    is how long an attempt may take that is asked for a whole answer, of which nothing is seen
    before its end.

    ``one_answer_a_call`` marks a backend whose count of tokens is wrong when it gives several
    answers to one request (llama.cpp reports those of one): it is asked once for each.

    Where the backend is one of several engines, ``doors`` are theirs, by engine, and ``admission``
    is not used: places and tokens belong to the engine that runs the request, so that one that is
    full keeps nobody from another. Each attempt chooses anew.

    Where there are several ``keys``, ``backend`` and ``admission`` are those of the first, and each
    attempt chooses anew among all. ``carried`` makes of a key's backend who is asked in its place.

    ``gauge`` has what the engines tell of themselves, where they do.
    """

    backend: Backend
    admission: Admission
    one_answer_a_call: bool = False
    default_answer_tokens: int = 2048
    retry: RetryPolicy | None = None
    budget: RetryBudget | None = None
    breaker: Breaker | None = None
    health: Health | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    whole_s: float | None = None
    gauge: Gauge | None = field(default=None, repr=False, eq=False)
    counts: Counts = field(factory=Counts, repr=False, eq=False)
    doors: Mapping[Backend, Admission] = field(factory=dict, repr=False)
    keys: Keys | None = field(default=None, repr=False, eq=False)
    carried: Callable[[Backend], Backend] | None = field(default=None, repr=False, eq=False)
    _seat: Seat = field(init=False, repr=False, eq=False)

    @_seat.default
    def _only_seat(self) -> Seat:
        return Seat(self.backend, self.admission)

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name

    @property
    def running(self) -> int:
        """The places that are taken now."""
        return sum(door.running for door in self._doors())

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(door.waiting for door in self._doors())

    @property
    def is_well(self) -> bool:
        """Whether it has its turn among several now."""
        health = self.health
        return health is None or health.well

    def snapshot(self) -> LaneSnapshot:
        """How it stands now, and with it every engine behind it."""
        doors = tuple(self._doors())
        counted = [door.max_tokens for door in doors if door.max_tokens is not None]
        return LaneSnapshot(
            name=self.name,
            running=self.running,
            places=sum(door.max_running for door in doors),
            waiting=self.waiting,
            max_waiting=sum(door.max_waiting for door in doors),
            tokens=sum(door.tokens for door in doors),
            max_tokens=sum(counted) if counted else None,
            circuit=None if self.breaker is None else self.breaker.state,
        )

    def seat(self, request: LLMRequest) -> Seat:
        """Who would answer ``request`` now, and through which door."""
        if self.keys is not None:
            key = self.keys.choose(self.rated_tokens(request))
            backend = key.backend if self.carried is None else self.carried(key.backend)
            return Seat(backend, key.door, key)
        if self.doors and isinstance(self.backend, OfEngines):
            engine = self.backend.choose(request, self.running + self.waiting)
            return Seat(engine, self.doors[engine])
        return self._seat

    def _doors(self) -> Iterable[Admission]:
        if self.keys is not None:
            return [key.door for key in self.keys]
        return self.doors.values() or (self.admission,)

    def takes_over(self) -> bool:
        """Whether a call that has failed elsewhere may be made here.

        One that fails itself takes so many as its budget has left, retries included: where all
        fail, a call must not cost an attempt at each.
        """
        return self.is_well or self.budget is None or self.budget.spend()

    def metrics(self) -> tuple[EngineMetrics, ...]:
        """What its engines told of themselves a moment ago; to ask has them asked again."""
        return () if self.gauge is None else self.gauge.look(self.backend)

    async def read_metrics(self, within_s: float) -> tuple[EngineMetrics, ...]:
        """The same, after they were asked, or have not answered ``within_s``."""
        return () if self.gauge is None else await self.gauge.read(self.backend, within_s)

    def has_room(self, request: LLMRequest) -> bool:
        """Whether it is well and ``request`` would be asked here at once, waiting for nobody.

        Of several engines behind it one has to have room: to choose one is to ask it.
        """
        if not self.is_well:
            return False
        if isinstance(self.backend, OnDemand) and self.backend.remote is None:
            return False
        if self.breaker is not None and self.breaker.open_until is not None:
            return False
        rated_tokens = self.rated_tokens(request)
        return any(
            door.fits(*self._most(request, door))
            and (door.limits is None or door.limits.wait_s(rated_tokens) <= 0)
            for door in self._doors()
        )

    def stats(self) -> EndpointStats:
        """What it did and how it stands."""
        stats = self.counts.stats(
            self.name,
            running=self.running,
            waiting=self.waiting,
            circuit=None if self.breaker is None else self.breaker.state,
        )
        return stats if self.keys is None else evolve(stats, keys=self.keys.stats())

    def reset_stats(self) -> None:
        """Count from nothing; calls under way count when they end."""
        self.counts.reset()
        if self.keys is not None:
            self.keys.reset_stats()

    async def cost(self, request: LLMRequest, seat: Seat | None = None) -> tuple[int, int]:
        """The tokens and places that ``request`` will hold at ``seat``.

        The prompt is bounded by its bytes (a token is at least one), and counted exactly only when
        the bound would make the request wait.
        """
        backend, admission = self.backend, self.admission
        if seat is not None:
            backend, admission = seat.backend, seat.admission
        places = request.n or 1
        if admission.max_tokens is None:
            return 0, places
        bound, _ = self._most(request, admission)
        if admission.fits(bound, places) or not isinstance(backend, CountsTokens):
            return bound, places
        answer = places * (request.max_tokens or self.default_answer_tokens)
        return await backend.count_tokens(request) + answer, places

    def _most(self, request: LLMRequest, door: Admission) -> tuple[int, int]:
        """Tokens and places that ``request`` surely does not pass behind ``door``."""
        places = request.n or 1
        if door.max_tokens is None:
            return 0, places
        answer = places * (request.max_tokens or self.default_answer_tokens)
        return prompt_bound(request) + answer, places

    def rated_tokens(self, request: LLMRequest) -> int:
        """What ``request`` is believed to count against tokens a minute; 0 where none are limited."""
        limits = self.admission.limits
        if limits is None or not limits.counts_tokens:
            return 0
        return rated_tokens(request)


def queue_of(lane: Lane) -> int | None:
    """The requests in the lane's engines, running and waiting, whoever sent them, as far as they
    told a moment ago; ``None`` unless each of them did."""
    total = 0
    told = lane.metrics()
    for each in told:
        if each.running is None:
            return None
        total += each.running + (each.queued or 0)
    return total if told else None


def rated_tokens(request: LLMRequest) -> int:
    """What ``request`` is believed to count against tokens a minute."""
    answer = (request.n or 1) * (request.max_tokens or _USUAL_ANSWER_TOKENS)
    return prompt_bound(request) // _TOKEN_BYTES + answer


def prompt_bound(request: LLMRequest) -> int:
    """A number of tokens that the prompt surely does not pass; cheap to compute."""
    if request.prompt is not None:
        prompt = request.prompt
        return _FRAME_TOKENS + (len(prompt.encode()) if isinstance(prompt, str) else len(prompt))
    bound = _FRAME_TOKENS
    for message in request.messages:
        bound += _FRAME_TOKENS
        if isinstance(message.content, str):
            bound += len(message.content.encode())
        else:
            for part in message.content:
                bound += len(part.text.encode()) if isinstance(part, TextPart) else 1024
        for call in message.tool_calls:
            bound += _FRAME_TOKENS + len(call.arguments_json.encode()) + len(call.name)
    for tool in request.tools:
        bound += _FRAME_TOKENS + len(tool.description.encode()) + len(repr(tool.input_schema))
    return bound
