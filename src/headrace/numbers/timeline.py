"""What the instants of one call say: waits, latencies and rates.

Every function takes instants of one monotonic clock and gives seconds, or ``None`` when an instant
it needs is missing: an unknown is not a zero. Nobody else subtracts timestamps.
"""

from __future__ import annotations

from headrace.contracts.record import Timeline


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def queue_time(t: Timeline) -> float | None:
    """Seconds a call waited until it might run: admitted - queued."""
    return _between(t.queued, t.admitted)


def time_to_first_byte(t: Timeline) -> float | None:
    """Seconds from the request's last byte out to the answer's first byte in: first_byte - sent."""
    return _between(t.sent, t.first_byte)


def time_to_first_token(t: Timeline) -> float | None:
    """TTFT: seconds from sending to the first piece of output: first_token - sent."""
    return _between(t.sent, t.first_token)


def arrival_to_first_token(t: Timeline) -> float | None:
    """Seconds from arrival to the first piece of output, our queue included: first_token - queued.

    This is what engines such as vLLM and the OpenTelemetry conventions call a server's time to
    first token.
    """
    return _between(t.queued, t.first_token)


def generation_time(t: Timeline) -> float | None:
    """Seconds between the first and the last piece of output: last_token - first_token."""
    return _between(t.first_token, t.last_token)


def time_per_output_token(t: Timeline, output_tokens: int | None) -> float | None:
    """TPOT: mean seconds per token after the first: (last_token - first_token) / (tokens - 1).

    ``None`` also with fewer than two tokens, which have no gap between them.
    """
    span = generation_time(t)
    if span is None or output_tokens is None or output_tokens < 2:
        return None
    return span / (output_tokens - 1)


def output_tokens_per_s(t: Timeline, output_tokens: int | None) -> float | None:
    """Output tokens per second of one call, its prefill included: tokens / (last_token - sent).

    The speed of generation alone is 1 / TPOT. ``None`` also where no time passed.
    """
    span = _between(t.sent, t.last_token)
    if span is None or output_tokens is None or span <= 0:
        return None
    return output_tokens / span


def backend_time(t: Timeline) -> float | None:
    """Seconds from sending to the end of the answer, our queue left out: done - sent."""
    return _between(t.sent, t.done)


def end_to_end(t: Timeline) -> float | None:
    """Seconds from arrival to the end of the answer, our queue included: done - queued."""
    return _between(t.queued, t.done)


def latency_from_intended(t: Timeline) -> float | None:
    """Seconds from when a load test meant to send to the end of the answer: done - intended.

    Unlike the latency from sending, it does not hide that a slow server held up the sender.
    """
    return _between(t.intended, t.done)


def first_token_from_intended(t: Timeline) -> float | None:
    """Seconds from when a load test meant to send to the first token: first_token - intended."""
    return _between(t.intended, t.first_token)


def send_lag(t: Timeline) -> float | None:
    """Seconds by which a load test sent later than it meant to: sent - intended."""
    return _between(t.intended, t.sent)


def wall_time(t: Timeline, instant: float | None) -> float | None:
    """The Unix time, in seconds, of a monotonic ``instant``: wall_anchor + (instant - anchor)."""
    return None if instant is None else t.wall_anchor + (instant - t.anchor)
