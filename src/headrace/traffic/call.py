"""One call from admission to record."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from decimal import Decimal
from random import Random, getrandbits
from typing import TypeAlias

from attrs import define, frozen

from headrace.contracts.errors import LLMCancelledError, LLMError
from headrace.contracts.quick import quick_init
from headrace.contracts.record import CallRecord, Marks, Operation, RecordSink, Timeline
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Usage
from headrace.contracts.routing import RouteDecision
from headrace.net.clock import Clock
from headrace.numbers.live import LiveCall, Tally
from headrace.traffic.fallback import Alternative, Earlier
from headrace.traffic.hedge import Hedging
from headrace.traffic.lane import Lane
from headrace.traffic.opening import opened
from headrace.traffic.patience import Alarm, Patience
from headrace.traffic.race import Race
from headrace.traffic.running import Running
from headrace.traffic.visit import Visit, error_kind, is_output

log = logging.getLogger(__name__)

_MORE = "waiting for more of its answer"

# Their tokens are of sound and pictures too, which cost otherwise than those of text; which are which
# their usage does not tell here.
_OTHER_TOKENS = frozenset({"transcription", "translation", "speech", "image", "pass_through"})

PriceOf: TypeAlias = Callable[[str | None, Sequence[str | None], Usage, float], Decimal | None]
"""From a provider's name, the model's names (the best first), the usage and the call's Unix time."""


@quick_init
@frozen(kw_only=True)
class CallSheet:
    """What is known of a call before it begins; ``queued`` is an instant of the clock.

    ``call_id`` is no other call's: it is also the idempotency key. ``decision`` is how its lane was
    chosen among others. ``total_s`` takes the place of the lane's own for this call.
    """

    call_id: str
    operation: Operation
    queued: float
    stream: bool = False
    requested_model: str | None = None
    route: str | None = None
    decision: RouteDecision | None = None
    parent_id: str | None = None
    total_s: float | None = None


def new_call_id() -> str:
    """An id that no other call has, in any process: 128 bits of chance.

    Not secret, so not asked of the system, which takes as long as writing the request does. Python
    sows its generator anew in a forked child.
    """
    return getrandbits(128).to_bytes(16).hex()


class Traffic:
    """Runs calls and sends the record of each, however it ended, to the tally and every sink.

    ``random`` is the chance in the delays before retries; ``price`` says what a call cost.
    """

    def __init__(
        self,
        clock: Clock,
        tally: Tally,
        sinks: Sequence[RecordSink] = (),
        random: Random | None = None,
        price: PriceOf | None = None,
    ) -> None:
        self._clock = clock
        self.now, self.wall = clock.monotonic, clock.wall
        """The clock's instant, and its Unix time."""
        self._tally = tally
        self._sinks = (tally.add, *sinks)
        # A sink that has to look around where a call begins says so by a method ``began``.
        self._began = tuple(began for s in sinks if (began := getattr(s, "began", None)))
        self._price = price
        self._random = Random() if random is None else random  # noqa: S311  no secret hangs on it
        self._alarm = Alarm(clock)

    # For a passage, which makes a call without being one of ours (see traffic.passage).

    def began_at(self, model: str, backend: str, call_id: str) -> LiveCall:
        """A call begins that has its place at ``backend`` already."""
        if self._began:
            self._begin(call_id)
        return self._tally.began_at(model, backend)

    def paid(
        self, provider: str | None, models: Sequence[str | None], usage: Usage
    ) -> Decimal | None:
        """What a call cost; ``None`` where nobody knows."""
        if self._price is None:
            return None
        try:
            return self._price(provider, models, usage, self._clock.wall())
        except Exception:
            log.exception("a call could not be priced")
            return None

    def emit(self, record: CallRecord) -> None:
        """Send a call's record to the tally and every sink."""
        for sink in self._sinks:
            try:
                sink(record)
            except Exception:
                log.exception("a record sink failed")

    async def run(
        self,
        request: LLMRequest,
        lane: Lane,
        sheet: CallSheet,
        marks: Marks,
        *,
        fallbacks: Sequence[Alternative] = (),
        dropped: tuple[str, ...] = (),
        earlier: Earlier | None = None,
        hedging: Hedging | None = None,
    ) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces. Closing the generator, or cancelling its task, ends the call.

        Until the first piece of output the call may be made again, at ``lane`` by its policy and
        then at ``fallbacks`` in turn; the error of the last has that of the one before it as its
        ``__context__``. ``dropped`` are the settings that ``request`` goes without because of
        ``lane``; each fallback has its own. ``marks`` is empty and is filled on the way; the caller
        may read it as it fills. ``earlier`` is a first attempt at ``lane`` that somebody else made
        and that failed. With ``hedging`` a first token that is late is asked for a second time.
        """
        call, seen = self._running(request, lane, sheet, marks, earlier), _Seen()
        visit: Visit | None = None
        failure: BaseException | None = None
        try:
            ways = (Alternative(lane=lane, dropped=dropped), *fallbacks)
            visit = await self._opened(call, request, ways, earlier, hedging)
            for delta in visit.held:
                seen.take(delta, call, visit)
                yield delta
            assert visit.deltas is not None
            while True:
                with call.patience(_MORE):
                    next_delta = await anext(visit.deltas, None)
                if next_delta is None:
                    break
                seen.take(next_delta, call, visit)
                yield next_delta
        except BaseException as error:
            failure = error
            raise
        finally:
            try:
                await self._end(request, sheet, call, seen, visit, failure)
            finally:
                failure = None  # its traceback holds this frame

    async def answer(
        self,
        request: LLMRequest,
        lane: Lane,
        sheet: CallSheet,
        marks: Marks,
        *,
        fallbacks: Sequence[Alternative] = (),
        hedging: Hedging | None = None,
    ) -> list[LLMDelta]:
        """As ``run``, for those who have no use for a piece before the last."""
        call, seen = self._running(request, lane, sheet, marks, None), _Seen()
        visit: Visit | None = None
        failure: BaseException | None = None
        try:
            ways = (Alternative(lane=lane), *fallbacks)
            visit = await self._opened(call, request, ways, None, hedging)
            pieces = list(visit.held)
            for delta in pieces:
                seen.take(delta, call, visit)
            assert visit.deltas is not None
            with call.patience(_MORE):
                async for delta in visit.deltas:
                    seen.take(delta, call, visit)
                    pieces.append(delta)
            return pieces
        except BaseException as error:
            failure = error
            raise
        finally:
            try:
                await self._end(request, sheet, call, seen, visit, failure)
            finally:
                failure = None  # as above

    def _running(
        self,
        request: LLMRequest,
        lane: Lane,
        sheet: CallSheet,
        marks: Marks,
        earlier: Earlier | None,
    ) -> Running:
        call = Running(
            call_id=sheet.call_id,
            clock=self._clock,
            random=self._random,
            patience=Patience(self._clock, lane.name, self._alarm),
            live=self._tally.began(request.model),
            marks=marks,
            whole=not sheet.stream,
            total_s=lane.total_s if sheet.total_s is None else sheet.total_s,
        )
        if earlier is None:
            self._begin(sheet.call_id)
        else:
            call.goes_on_after(earlier)
        return call

    async def _opened(
        self,
        call: Running,
        request: LLMRequest,
        ways: Sequence[Alternative],
        earlier: Earlier | None,
        hedging: Hedging | None,
    ) -> Visit:
        if hedging is None:
            return await opened(call, request, ways, earlier)
        return await Race(call, request, ways, hedging, self.paid).opened(earlier)

    async def _end(
        self,
        request: LLMRequest,
        sheet: CallSheet,
        call: Running,
        seen: _Seen,
        visit: Visit | None,
        failure: BaseException | None,
    ) -> None:
        try:
            if visit is not None:
                await visit.end(failure)
        finally:
            call.live.ended()
            call.patience.close()
            usage = None if visit is None else visit.usage
            if usage is not None and sheet.operation not in _OTHER_TOKENS:
                names = (seen.model or request.model, sheet.requested_model)
                call.marks.price_usd = self.paid(call.latest.provider, names, usage)
                if visit is not None:
                    visit.lane.counts.cost(call.marks.price_usd)
            self.emit(_record(request, sheet, call, seen, usage, failure))

    def _begin(self, call_id: str) -> None:
        for began in self._began:
            began(call_id)


@define
class _Seen:
    """What of the answer went by; the instants are the clock's."""

    first_token: float | None = None
    last_token: float | None = None
    chunks: int = 0
    finish_reason: str | None = None
    model: str | None = None

    def take(self, delta: LLMDelta, call: Running, visit: Visit) -> None:
        """The next piece goes by."""
        if is_output(delta):
            self.last_token = now = call.clock.monotonic()
            self.chunks += 1
            if self.first_token is None:
                self.first_token = now
                call.puts_out()
        if delta.usage_delta is not None:
            visit.usage = delta.usage_delta
        if delta.finish_reason is not None and delta.index == 0:
            self.finish_reason = delta.finish_reason
        if self.model is None:
            self.model = delta.model


def _record(
    request: LLMRequest,
    sheet: CallSheet,
    call: Running,
    seen: _Seen,
    usage: Usage | None,
    failure: BaseException | None,
) -> CallRecord:
    kind, done = error_kind(failure), call.clock.monotonic()
    return CallRecord(
        call_id=sheet.call_id,
        operation=sheet.operation,
        request_id=request.request_id,
        parent_id=sheet.parent_id,
        backend=call.latest.backend,
        provider=call.latest.provider,
        requested_model=sheet.requested_model,
        model=seen.model or request.model,
        route=sheet.route,
        decision=sheet.decision,
        stream=sheet.stream,
        chunks=seen.chunks,
        attempts=tuple(call.attempts)
        if call.hedge is None
        else tuple(sorted(call.attempts, key=lambda each: each.begin)),
        hedge=call.hedge,
        dropped=tuple(call.latest.dropped),
        response_mode=call.latest.response_mode,
        batch_occupancy=call.latest.batch_occupancy,
        usage=usage,
        price_usd=call.marks.price_usd,
        finish_reason=seen.finish_reason,
        status=_status(failure, kind),
        error_kind=kind,
        timeline=Timeline(
            anchor=done,
            wall_anchor=call.clock.wall(),
            queued=sheet.queued,
            admitted=call.admitted,
            sent=call.latest.sent,
            first_byte=call.latest.first_byte,
            first_token=None if call.latest.came_whole else seen.first_token,
            last_token=seen.last_token,
            done=done,
        ),
    )


def _status(failure: BaseException | None, kind: str | None) -> int:
    if failure is None:
        return 200
    if isinstance(failure, LLMError):
        return failure.status
    return LLMCancelledError.default_status if kind == LLMCancelledError.__name__ else 500
