"""Which of several lanes a call asks first, which after it, and how that came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from attrs import evolve, frozen

from headrace.contracts.requests import LLMRequest
from headrace.contracts.routing import RouteCandidate, RouteDecision
from headrace.net.clock import Clock
from headrace.traffic.lane import Lane
from headrace.traffic.routing.affinity import Affinity
from headrace.traffic.routing.asking import Asking, AsRequest
from headrace.traffic.routing.candidate import Candidate, Look, Occasion, W
from headrace.traffic.routing.limits import within_limits
from headrace.traffic.routing.policies import Ordered, Policy, Weighted

USUAL_ANSWER_TOKENS = 1024
_NOTHING = AsRequest(request=LLMRequest(messages=()), model=None)
_NO_OCCASION = Occasion(asking=_NOTHING, now=0.0, unbounded=USUAL_ANSWER_TOKENS)


@frozen(eq=False)
class Chosen(Generic[W]):
    """Whom a call asks, the best first, and why; a route of one backend decides nothing."""

    ways: tuple[W, ...]
    decision: RouteDecision | None = None

    def among(self, ways: Sequence[W], why: str) -> Chosen[W]:
        """Only these of its ways; ``why`` says what is wrong with the others."""
        if len(ways) == len(self.ways):
            return self
        decision = self.decision
        if decision is not None and ways[0] is not self.ways[0]:
            first = ways[0].lane.name
            decision = evolve(decision, chosen=first, reason=f"{decision.chosen}: {why}")
        return Chosen(tuple(ways), decision)


class Choice(Generic[W]):
    """An order of several lanes for each call: by limits, policy, affinity and health, in this turn.

    A limit of the caller's leaves out who breaks it, under every policy; ``allow_unknown`` lets
    those pass of whom nobody can tell. ``unbounded`` is how long an answer is taken to get that
    nobody bounds, in tokens.
    """

    def __init__(
        self,
        route: str,
        candidates: Sequence[Candidate[W]],
        policy: Policy,
        clock: Clock,
        *,
        affinity: Affinity | None = None,
        allow_unknown: bool = False,
        unbounded: int = USUAL_ANSWER_TOKENS,
    ) -> None:
        self.lanes: tuple[Lane, ...] = tuple(each.way.lane for each in candidates)
        self._route = route
        self._candidates = tuple(candidates)
        self._policy = policy
        self._clock = clock
        self._affinity = affinity
        self._allow_unknown = allow_unknown
        self._unbounded = unbounded
        self.looks = affinity is not None or not isinstance(policy, Ordered | Weighted)
        """Whether it looks at what is asked; else every call may be chosen for by ``in_turn``."""
        self._places = range(len(candidates))
        self._usual: dict[int, Chosen[W]] = {}
        """By whose turn it is: what came of such a turn, and will again while all are well."""

    def in_turn(self) -> Chosen[W]:
        """Whom to ask by a policy that does not look at the call, for one without limits."""
        for lane in self.lanes:
            if not lane.is_well:
                return self._look_at(None)
        turn = self._policy
        place = turn.next(self._places) if isinstance(turn, Weighted) else 0
        usual = self._usual.get(place)
        if usual is None:
            usual = self._usual[place] = self._usually(place)
        return usual

    def choose(self, asking: Asking) -> Chosen[W]:
        """Whom to ask for ``asking``; to ask for it is to take one's turn.

        Raises LLMCapabilityError where none is within the caller's limits.
        """
        if not self.looks and asking.profile is None:
            return self.in_turn()
        return self._look_at(asking)

    def _look_at(self, asking: Asking | None) -> Chosen[W]:
        now = self._clock.monotonic()
        occasion = Occasion(asking=asking or _NOTHING, now=now, unbounded=self._unbounded)
        looks = [Look(candidate, occasion) for candidate in self._candidates]
        able, profile = looks, occasion.asking.profile
        if profile is not None:
            able = within_limits(looks, profile, self._route, allow_unknown=self._allow_unknown)
        ranked, why = self._policy.rank(able), None
        if self._affinity is not None:
            ranked, why = self._affinity.prefer(ranked)
        wanted, ranked = ranked[0], ill_last(ranked)
        left_out = [look for look in looks if look not in ranked]
        decision = RouteDecision(
            route=self._route,
            policy=self._policy.name,
            chosen=ranked[0].candidate.name,
            reason=self._reason(ranked[0], wanted, why),
            candidates=tuple(map(_told, (*ranked, *left_out))),
        )
        return Chosen(tuple(look.candidate.way for look in ranked), decision)

    def _reason(self, first: Look[W], wanted: Look[W], own: str | None) -> str:
        if not first.candidate.way.lane.is_well:
            return "ill, and tried again after its rest" if first is wanted else "all are ill"
        if own is not None:
            return own
        reason = self._policy.reason(first)
        return reason if first is wanted else f"{reason}; {wanted.candidate.name} is ill"

    def _usually(self, place: int) -> Chosen[W]:
        """What comes of a turn of the candidate at ``place`` while all are well."""
        first = self._candidates[place]
        row = (first, *(each for each in self._candidates if each is not first))
        looks = [Look(each, _NO_OCCASION) for each in row]
        return Chosen(
            tuple(each.way for each in row),
            RouteDecision(
                route=self._route,
                policy=self._policy.name,
                chosen=first.name,
                reason=self._policy.reason(looks[0]),
                candidates=tuple(map(_told, looks)),
            ),
        )


def ill_last(ranked: Sequence[Look[W]]) -> list[Look[W]]:
    """``ranked`` with those that are ill at the end.

    Of those before the first that is well, this call tries one whose rest is over.
    """
    well, ill = list[Look[W]](), list[tuple[float, int, Look[W]]]()
    for place, look in enumerate(ranked):
        health = look.candidate.way.lane.health
        if health is None or health.well or (not well and health.tries()):
            well.append(look)
        else:
            look.why_not = "is ill"
            ill.append((health.until, place, look))
    # Of the ill ones the one that is back first.
    ill.sort(key=lambda each: each[:2])
    return [*well, *(look for *_, look in ill)]


def _told(look: Look[W]) -> RouteCandidate:
    candidate = look.candidate
    values = look.values if candidate.weight == 1 else {**look.values, "weight": candidate.weight}
    return RouteCandidate(
        backend=candidate.name, model=candidate.way.model, values=values, why_not=look.why_not
    )
