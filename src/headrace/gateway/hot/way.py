"""Which backends may be asked the fast way, and what is made ready for each."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, field, frozen

from headrace.backends.managed.engine import Managed
from headrace.backends.remote import Remote
from headrace.net.head import write_head
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, TimeLimits, Url
from headrace.stores.secret import Secret
from headrace.traffic.lane import Lane
from headrace.wire import anthropic_passing, openai_passing

_LENGTH = b"Content-Length: 0\r\n\r\n"
_SETTINGS = {"openai": openai_passing.SETTINGS, "anthropic": anthropic_passing.SETTINGS}
# Under which names of ours a setting of the wire is known, where that is another.
_OUR_NAMES: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
    "metadata": "user",
}
_MOST_WAYS = 1000
_MOST_PATHS = 64


@frozen(kw_only=True, eq=False)
class HotWay:
    """A backend across HTTP, seen from the fast way.

    ``url`` is some address there, for its place. ``may_be_asked_again``: the lane repeats calls that
    fail. ``passes`` is whether it may be asked for a chat as its caller put it, who speaks its
    format; not so where the request sets one of ``barred``, which this backend refuses, ignores or
    knows by other names.
    """

    format: str
    lane: Lane
    remote: Remote
    transport: PooledTransport
    url: Url
    key: Secret | None
    may_be_asked_again: bool
    passes: bool
    barred: tuple[str, ...]
    stream_limits: TimeLimits
    whole_limits: TimeLimits
    _heads: dict[str, bytes] = field(factory=dict, init=False, repr=False)

    def head(self, path: str) -> bytes:
        """The head of a request to ``path``, up to its last headers."""
        head = self._heads.get(path)
        if head is None:
            ask = HttpRequest(
                method="POST", url=self.remote.url(path), headers=self.remote.headers(), body=b""
            )
            head = write_head(ask).removesuffix(_LENGTH)
            # A model's name may stand in it, and callers may name many.
            if len(self._heads) < _MOST_PATHS:
                self._heads[path] = head
        return head


class HotWays:
    """The ways to lanes, each found out once for as long as its backend is at the same place."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Lane, Remote | None, HotWay | None]] = {}

    def to(self, lane: Lane) -> HotWay | None:
        """The way to ``lane``; ``None`` where it takes the general way."""
        found, remote = self._found.get(id(lane)), remote_of(lane)
        if found is not None and found[0] is lane and found[1] is remote:
            return found[2]
        if len(self._found) >= _MOST_WAYS:  # those of configurations long gone
            self._found.clear()
        way = way_to(lane)
        self._found[id(lane)] = lane, remote, way
        return way


def remote_of(lane: Lane) -> Remote | None:
    """Who is asked across HTTP for ``lane`` now: an engine of ours, while it runs, or its backend."""
    backend = lane.backend
    if isinstance(backend, Managed):
        return backend.remote
    return backend if isinstance(backend, Remote) else None


def way_to(lane: Lane) -> HotWay | None:
    """As ``HotWays.to``."""
    remote = remote_of(lane)
    if lane.doors or lane.keys is not None or remote is None:
        return None
    row, transport = remote.provider, remote.world.transport
    if not isinstance(transport, PooledTransport):
        return None
    passes = (
        row.format in _SETTINGS
        and not row.defaults
        and row.chat_path is not None
        and "{model}" not in row.chat_path
    )
    return HotWay(
        format=row.format,
        lane=lane,
        remote=remote,
        transport=transport,
        url=remote.url("/"),
        key=remote.key,
        may_be_asked_again=lane.retry is not None and lane.retry.retries > 0,
        passes=passes,
        barred=_barred(remote) if passes else (),
        stream_limits=evolve(remote.limits, total_s=lane.total_s),
        whole_limits=evolve(
            remote.limits,
            first_byte_s=lane.whole_s if lane.whole_s is not None else remote.limits.first_byte_s,
            total_s=lane.total_s,
        ),
    )


def _barred(remote: Remote) -> tuple[str, ...]:
    row = remote.provider
    settings, unlike = _SETTINGS[row.format], row.unsupported | row.ignored
    barred = {name for name in settings if _OUR_NAMES.get(name, name) in unlike}
    if row.format == "openai":
        for name in ("repetition_penalty", "seed"):
            if getattr(row.dialect, name) != name:
                barred.add(name)
        if row.dialect.counted_logprobs or not row.logprobs_alone:
            barred.add("logprobs")
        if row.dialect.max_tokens not in settings:
            barred |= {"max_tokens", "max_completion_tokens"}
        if row.dialect.beside_stop:
            barred.add("stop")
    return tuple(sorted(barred))
