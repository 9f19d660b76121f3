"""When a call whose first token is late is asked a second time, and how often that may be.

What is done about it is ``traffic.race``'s.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from headrace.contracts.requests import LLMRequest
from headrace.numbers.histogram import ACCURACY
from headrace.numbers.lately import Lately

# So many hedges at once where none was needed for a while.
_MOST_SAVED = 10.0
_ROUNDING = 1e-9
_LEAST_KEPT = 500

_LEAVES_SOMETHING = frozenset({"store", "background", "conversation", "container", "mcp_servers"})


def _share(_: object, attribute: Any, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{attribute.name} is {value}, must be above 0 and at most 1")


def _some(_: object, attribute: Any, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{attribute.name} is {value}, must be above 0")


@frozen(kw_only=True)
class HedgePolicy:
    """A second request where the first token takes longer than the share ``after_p`` of those before.

    None is made before ``min_samples`` first tokens were seen. ``after_s``, where it is set, takes
    the place of both. The second requests are at most the share ``max_extra`` of all calls. Where no
    other backend is left, none is made, or, with ``same_backend``, at the same one.
    """

    after_p: float = field(default=0.95, validator=_share)
    after_s: float | None = field(default=None, validator=_some)
    max_extra: float = field(default=0.05, validator=_share)
    min_samples: int = field(default=100, validator=_some)
    same_backend: bool = False


class Hedging:
    """What the calls of one route know of one another; one event loop owns it."""

    def __init__(self, policy: HedgePolicy) -> None:
        self.policy = policy
        self._first_tokens = Lately(max(policy.min_samples, _LEAST_KEPT))
        self._saved = 0.0

    def began(self) -> None:
        """A call begins, and pays its share of a hedge."""
        self._saved = min(_MOST_SAVED, self._saved + self.policy.max_extra)

    def spend(self) -> bool:
        """Whether one more hedge may be made; if so, it is counted."""
        if self._saved < 1 - _ROUNDING:
            return False
        self._saved -= 1
        return True

    def took(self, seconds: float) -> None:
        """A first attempt brought its first token after so long, or had not by then and was left.

        The latter counts as well: were only those counted that were waited for, each hedge would
        make the next one come sooner.
        """
        self._first_tokens.add(max(0.0, seconds))

    def after_s(self) -> float | None:
        """How long a first attempt may take before it is late; ``None``: nobody knows yet."""
        if self.policy.after_s is not None:
            return self.policy.after_s
        if self._first_tokens.count < self.policy.min_samples:
            return None
        told = self._first_tokens.quantile(self.policy.after_p)
        # A quantile is told within so much; where all take nearly as long, half would be late by it.
        return None if told is None else told / (1 - ACCURACY)

    def usual_s(self) -> float:
        """How long a first token usually takes: the median; 0 where nobody knows."""
        return self._first_tokens.quantile(0.5) or 0.0


def why_not_twice(request: LLMRequest) -> str | None:
    """Why ``request`` may not be made twice; ``None`` where it may."""
    options, profile = request.provider_options, request.task_profile
    if any(options.get(name) for name in _LEAVES_SOMETHING & options.keys()):
        return "it leaves something behind at the backend"
    if profile is not None and profile.max_cost_usd is not None:
        return "its limit of cost is one request's"
    return None
