"""Whom a client asks: the model that a call names and the fallbacks, in the order of a policy and
within the limits of the call's task profile."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeAlias

from headrace.contracts.record import CallRecord
from headrace.contracts.requests import LLMRequest
from headrace.net.clock import Clock
from headrace.numbers.pace import Pace
from headrace.traffic.fallback import Alternative
from headrace.traffic.routing.asking import AsRequest
from headrace.traffic.routing.candidate import Candidate
from headrace.traffic.routing.choice import Choice, Chosen
from headrace.traffic.routing.policies import Ordered, PolicyName, policy_named
from headrace.traffic.routing.prices import published

ClientPolicy: TypeAlias = PolicyName


class Choosing:
    """The choices of one client; ``add`` is a RecordSink, from which it learns how quick they are.

    That is known for each provider, whatever the model.
    """

    def __init__(self, policy: ClientPolicy, clock: Clock, *, allow_unknown: bool) -> None:
        self._clock = clock
        self._allow_unknown = allow_unknown
        self._paces: dict[str | None, Pace] = {}
        self._policy = policy_named(policy, Random())  # noqa: S311  no secret hangs on it

    def add(self, record: CallRecord) -> None:
        """Take in a finished call."""
        pace = self._paces.get(record.backend)
        if pace is not None:
            pace.add(record)

    def looks_at(self, request: LLMRequest) -> bool:
        """Whether the order for ``request`` may be another than the one in which names stand."""
        return not isinstance(self._policy, Ordered) or request.task_profile is not None

    def choose(
        self, ways: Sequence[Alternative], request: LLMRequest, route: str
    ) -> Chosen[Alternative]:
        """``ways``, the best for ``request`` first.

        A call with a key of its own asks first whom it names: nobody else may see the key. Raises
        LLMCapabilityError where none is within the call's limits.
        """
        policy = Ordered() if "api_key" in request.metadata else self._policy
        candidates = [
            Candidate(
                way=way,
                price=published(way.lane.backend, self._clock),
                pace=self._paces.setdefault(way.lane.name, Pace()),
            )
            for way in ways
        ]
        choice = Choice(route, candidates, policy, self._clock, allow_unknown=self._allow_unknown)
        return choice.choose(AsRequest(request=request, model=request.model))
