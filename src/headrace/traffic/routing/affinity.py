"""The same backend for requests that belong together, so that its prefix cache is used.

Which one follows from a hash of what they have in common and the backend's name (rendezvous
hashing): where one falls ill, only its own requests move, and they come back with it. One that has
more than its share of the load passes further ones on to the next by the same hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import ceil, inf, log
from typing import Protocol

from attrs import frozen

from headrace.traffic.routing.asking import Asking
from headrace.traffic.routing.candidate import Look, W

# An engine batches so many without harm; below that no share is too large.
_ALWAYS_FINE = 4
_SPREAD = 2.0**64


class Bond(Protocol):
    """By what requests belong together."""

    name: str

    def key(self, asking: Asking) -> bytes | None:
        """The same for those that do; ``None`` for one that belongs to no other."""


@frozen
class Session:
    """What the caller says: the first that there is of some headers and fields."""

    names: Sequence[str]
    name = "session"

    def key(self, asking: Asking) -> bytes | None:
        session = asking.session(self.names)
        return None if session is None else session.encode("utf-8", "replace")


@frozen
class Prefix:
    """The head of the prompt, up to so many bytes."""

    most_bytes: int
    name = "prefix"

    def key(self, asking: Asking) -> bytes | None:
        return asking.head(self.most_bytes) or None


@frozen
class Affinity:
    """Puts the backend of a call's ``bond`` before the others of a ranking.

    None gets more than ``most_load`` times the mean of all that are well, in requests that run or
    wait, by their weights.
    """

    bond: Bond
    most_load: float = 1.25

    def prefer(self, ranked: list[Look[W]]) -> tuple[list[Look[W]], str | None]:
        """``ranked`` with the call's own backend first, and why; as it was where it has none.

        Those of its backends that are ill stand before the one that takes the call in their place.
        """
        key = self.bond.key(ranked[0].occasion.asking)
        if key is None:
            return ranked, None
        digest = blake2b(key, digest_size=16).digest()
        own = sorted(
            (look for look in ranked if look.candidate.weight),
            key=lambda look: _distance(digest, look.candidate.name, look.candidate.weight),
        )
        well = [look for look in own if look.candidate.way.lane.is_well]
        cap = self._cap(well)
        front: list[Look[W]] = []
        for look in own:
            if not look.candidate.way.lane.is_well:
                front.append(look)
            elif look.busy() < cap * look.candidate.weight or look.busy() < _ALWAYS_FINE:
                front.append(look)
                why = f"by {self.bond.name}"
                if look is not own[0]:
                    why += f", in place of {own[0].candidate.name}"
                return [*front, *(each for each in ranked if each not in front)], why
            else:
                look.why_not = f"has {look.busy()} running or waiting, more than its share"
        return ranked, None

    def _cap(self, well: Sequence[Look[W]]) -> float:
        """How many requests a backend of weight 1 may have; at least one whole one."""
        weights = sum(look.candidate.weight for look in well)
        if not weights:
            return inf
        load = 1 + sum(look.busy() for look in well)
        return ceil(self.most_load * load / weights)


def _distance(digest: bytes, name: str, weight: float) -> float:
    """How far ``name`` is from a key; the nearest takes it, each by its weight's share of keys."""
    drawn = int.from_bytes(blake2b(name.encode(), key=digest, digest_size=8).digest())
    return -log((drawn + 0.5) / _SPREAD) / weight
