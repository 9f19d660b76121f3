"""Whom a route chose for a call, among whom, and why."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from headrace.contracts.quick import quick_init


@quick_init
@frozen(kw_only=True)
class RouteCandidate:
    """One backend of a route, as it was seen when a call came; ``model`` is its own name for the
    model, where it has one.

    ``values`` are what was looked at: ``busy`` (requests that run or wait there), ``latency_s``,
    ``cost_usd``, ``quality``, ``weight``, ``score``. What nobody knows is not among them. ``why_not``
    says why it was passed over, where another reason than its place in the order was to blame.
    """

    backend: str
    model: str | None = None
    values: Mapping[str, float] = field(factory=dict)
    why_not: str | None = None


@quick_init
@frozen(kw_only=True)
class RouteDecision:
    """What a route made of one call: whom it asked first, and the ``reason`` in a few words.

    ``candidates`` stand in the order in which they are asked, and behind them those that are not.
    Who answered in the end is the record's ``backend``.
    """

    route: str
    policy: str
    chosen: str
    reason: str
    candidates: tuple[RouteCandidate, ...] = ()
