"""One call from admission to record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from attrs import frozen

from headrace.contracts.errors import LLMCancelledError, LLMError
from headrace.contracts.record import CallRecord, Marks, Operation, RecordSink, Timeline
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Usage
from headrace.net.clock import Clock
from headrace.numbers.live import Tally
from headrace.traffic.lane import Lane

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class CallSheet:
    """What is known of a call before it begins; ``queued`` is an instant of the clock."""

    call_id: str
    operation: Operation
    queued: float
    stream: bool = False
    requested_model: str | None = None
    route: str | None = None
    parent_id: str | None = None


class Traffic:
    """Runs calls and sends the record of each, however it ended, to the tally and every sink."""

    def __init__(self, clock: Clock, tally: Tally, sinks: Sequence[RecordSink] = ()) -> None:
        self._clock = clock
        self._tally = tally
        self._sinks = (tally.add, *sinks)

    async def run(
        self, request: LLMRequest, lane: Lane, sheet: CallSheet, marks: Marks
    ) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces. Closing the generator, or cancelling its task, ends the call.

        ``marks`` is empty and is filled on the way; the caller may read it as it fills.
        """
        clock = self._clock
        admitted = first_token = last_token = None
        tokens = places = chunks = 0
        usage: Usage | None = None
        finish_reason = model = error_kind = None
        status: int | None = 200
        live = self._tally.began(request.model)
        try:
            tokens, places = await lane.cost(request)
            await lane.admission.enter(tokens, places)
            admitted = clock.monotonic()
            live.admitted(lane.backend.name)
            async with aclosing(lane.backend.stream(request, marks)) as deltas:
                async for delta in deltas:
                    if _is_output(delta):
                        last_token = clock.monotonic()
                        if first_token is None:
                            first_token = last_token
                        chunks += 1
                    if delta.usage_delta is not None:
                        usage = delta.usage_delta
                    if delta.finish_reason is not None and delta.index == 0:
                        finish_reason = delta.finish_reason
                    model = model or delta.model
                    yield delta
        except LLMError as error:
            error_kind, status = type(error).__name__, error.status
            raise
        except (asyncio.CancelledError, GeneratorExit):
            error_kind, status = LLMCancelledError.__name__, LLMCancelledError.default_status
            raise
        except BaseException as error:
            error_kind, status = type(error).__name__, 500
            raise
        finally:
            done = clock.monotonic()
            live.ended()
            if admitted is not None:
                lane.admission.leave(tokens, places, served_s=done - admitted)
            self._emit(
                CallRecord(
                    call_id=sheet.call_id,
                    operation=sheet.operation,
                    request_id=request.request_id,
                    parent_id=sheet.parent_id,
                    backend=marks.backend or lane.backend.name,
                    provider=marks.provider,
                    requested_model=sheet.requested_model,
                    model=model or request.model,
                    route=sheet.route,
                    stream=sheet.stream,
                    chunks=chunks,
                    attempts=tuple(marks.attempts),
                    dropped=tuple(marks.dropped),
                    usage=usage,
                    finish_reason=finish_reason,
                    status=status,
                    error_kind=error_kind,
                    timeline=Timeline(
                        anchor=done,
                        wall_anchor=clock.wall(),
                        queued=sheet.queued,
                        admitted=admitted,
                        sent=marks.sent,
                        first_byte=marks.first_byte,
                        first_token=first_token,
                        last_token=last_token,
                        done=done,
                    ),
                )
            )

    def _emit(self, record: CallRecord) -> None:
        for sink in self._sinks:
            try:
                sink(record)
            except Exception:
                log.exception("a record sink failed")


def _is_output(delta: LLMDelta) -> bool:
    return bool(
        delta.text_delta
        or delta.reasoning_delta
        or delta.tool_call_delta is not None
        or delta.refusal_delta
    )
