"""What the instants of one call say: waits, latencies and rates.

Every function takes instants of one monotonic clock and gives seconds, or ``None`` when an instant
it needs is missing: an unknown is not a zero. Nobody else subtracts timestamps.
"""

from __future__ import annotations

from headrace.contracts.record import Attempt, Timeline


def queue_time(t: Timeline) -> float | None:
    """Seconds a call waited until it might run: admitted - queued."""
    begin, end = t.queued, t.admitted
    return None if begin is None or end is None else end - begin


def time_to_first_byte(t: Timeline) -> float | None:
    """Seconds from the request's last byte out to the answer's first byte in: first_byte - sent."""
    begin, end = t.sent, t.first_byte
    return None if begin is None or end is None else end - begin


def time_to_first_token(t: Timeline) -> float | None:
    """TTFT: seconds from sending to the first piece of output: first_token - sent."""
    begin, end = t.sent, t.first_token
    return None if begin is None or end is None else end - begin


def arrival_to_first_token(t: Timeline) -> float | None:
    """Seconds from arrival to the first piece of output, our queue included: first_token - queued.

    This is what engines such as vLLM and the OpenTelemetry conventions call a server's time to
    first token.
    """
    begin, end = t.queued, t.first_token
    return None if begin is None or end is None else end - begin


def attempt_time(attempt: Attempt) -> float:
    """Seconds that one attempt took, from its place at the backend to its end: end - begin."""
    return attempt.end - attempt.begin


def generation_time(t: Timeline) -> float | None:
    """Seconds between the first and the last piece of output: last_token - first_token."""
    begin, end = t.first_token, t.last_token
    return None if begin is None or end is None else end - begin


def time_per_output_token(t: Timeline, output_tokens: int | None) -> float | None:
    """TPOT: mean seconds per token after the first: (last_token - first_token) / (tokens - 1).

    ``None`` also with fewer than two tokens, which have no gap between them.
    """
    first, last = t.first_token, t.last_token
    if first is None or last is None or output_tokens is None or output_tokens < 2:
        return None
    return (last - first) / (output_tokens - 1)


def output_tokens_per_s(t: Timeline, output_tokens: int | None) -> float | None:
    """Output tokens per second of one call, its prefill included: tokens / (last_token - sent).

    The speed of generation alone is 1 / TPOT. ``None`` also where no time passed.
    """
    begin, end = t.sent, t.last_token
    if begin is None or end is None or output_tokens is None or end <= begin:
        return None
    return output_tokens / (end - begin)


def backend_time(t: Timeline) -> float | None:
    """Seconds from sending to the end of the answer, our queue left out: done - sent."""
    begin, end = t.sent, t.done
    return None if begin is None or end is None else end - begin


def end_to_end(t: Timeline) -> float | None:
    """Seconds from arrival to the end of the answer, our queue included: done - queued."""
    begin, end = t.queued, t.done
    return None if begin is None or end is None else end - begin


def latency_from_intended(t: Timeline) -> float | None:
    """Seconds from when a load test meant to send to the end of the answer: done - intended.

    Unlike the latency from sending, it does not hide that a slow server held up the sender.
    """
    begin, end = t.intended, t.done
    return None if begin is None or end is None else end - begin


def first_token_from_intended(t: Timeline) -> float | None:
    """Seconds from when a load test meant to send to the first token: first_token - intended."""
    begin, end = t.intended, t.first_token
    return None if begin is None or end is None else end - begin


def send_lag(t: Timeline) -> float | None:
    """Seconds by which a load test sent later than it meant to: sent - intended."""
    begin, end = t.intended, t.sent
    return None if begin is None or end is None else end - begin


def wall_time(t: Timeline, instant: float | None) -> float | None:
    """The Unix time, in seconds, of a monotonic ``instant``: wall_anchor + (instant - anchor)."""
    return None if instant is None else t.wall_anchor + (instant - t.anchor)
