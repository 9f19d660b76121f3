"""What is left of a call when it is over: its sample, with the record that every call leaves."""

from __future__ import annotations

from itertools import islice
from operator import sub

from headrace.bench.load.sender import Call
from headrace.bench.load.shares import Share
from headrace.contracts.load import Kind, LoadPlan
from headrace.contracts.load_report import Sample
from headrace.contracts.record import Attempt, CallRecord, Operation, Timeline

_OPERATIONS: dict[Kind, Operation] = {
    "chat": "chat",
    "completions": "completion",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
    "rerank": "rerank",
}


class Sampling:
    """Makes the samples of one run. ``wall_less_monotonic``: from our clock to the time of day."""

    def __init__(
        self,
        plan: LoadPlan,
        *,
        run_id: str,
        share: Share,
        model: str | None,
        backend: str,
        wall_less_monotonic: float,
    ) -> None:
        self._run_id, self._share, self._model, self._backend = run_id, share, model, backend
        self._wall = wall_less_monotonic
        self._operation = _OPERATIONS[plan.kind]

    def sample(self, call: Call) -> Sample:
        """What is known of ``call``."""
        answer, done = call.answer, call.done
        assert done is not None
        index = call.index * self._share.parts + self._share.part
        pieces = answer.pieces
        failure = answer.failure
        kind = "LLMCancelledError" if call.cut else type(failure).__name__ if failure else None
        whole = not pieces and failure is None and not call.cut and not answer.streamed
        record = CallRecord(
            call_id=f"{self._run_id}-{index}",
            run_id=self._run_id,
            operation=self._operation,
            timeline=Timeline(
                anchor=done,
                wall_anchor=done + self._wall,
                intended=call.intended,
                queued=call.queued,
                admitted=call.could if call.sent is not None else None,
                sent=call.sent,
                first_byte=answer.first_byte,
                first_token=pieces[0] if pieces else None,
                last_token=pieces[-1] if pieces else done if whole else None,
                done=done,
            ),
            backend=self._backend,
            requested_model=self._model,
            model=answer.model or self._model,
            stream=answer.streamed,
            chunks=1 if whole else len(pieces),
            attempts=(
                Attempt(
                    backend=self._backend,
                    begin=call.queued,
                    end=done,
                    status=answer.status,
                    error_kind=kind,
                    sends=call.sends,
                ),
            ),
            usage=answer.usage,
            finish_reason=answer.finish_reason,
            status=answer.status,
            error_kind=kind,
        )
        asked = call.asked
        return Sample(
            record=record,
            index=index,
            phase=call.phase,
            scenario=asked.scenario,
            input_tokens=asked.input_tokens,
            asked_output_tokens=asked.output_tokens,
            gaps_s=tuple(map(sub, islice(pieces, 1, None), pieces)),
            coalesced=answer.coalesced,
            reads=answer.reads,
            connect_s=call.connect_s,
            conversation=asked.conversation,
            turn=asked.turn,
            error=None if failure is None or call.cut else failure.message,
            cut=call.cut,
        )
