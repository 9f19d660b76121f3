"""Where the workers of a run and the command that started it leave word for one another: an actor."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

from headrace.chains.cluster.purse import Purse

Stop: TypeAlias = Literal["", "finish", "now"]
"""Whether to go on, to finish what is under way, or to stop at once."""


class Desk:
    """Counts who takes a partition up, for one that ends each worker must not go on for ever; and
    hands out what is in ``purse``."""

    def __init__(self, purse: Purse | None) -> None:
        self._purse = purse
        self._stop: Stop = ""
        self._begun: dict[int, int] = {}
        self._news: dict[int, bytes] = {}

    def begin(self, partition: int) -> tuple[int, Stop]:
        """A worker takes it up: how many have done so in this run, and what it is to do."""
        self._begun[partition] = self._begun.get(partition, 0) + 1
        return self._begun[partition], self._stop

    def tell(self, partition: int, news: bytes) -> Stop:
        """How the partition stands; what its worker is to do."""
        self._news[partition] = news
        return self._stop

    def hear(self, stop: Stop) -> dict[int, bytes]:
        """How partitions stand of which something was told since; ``stop`` is for all workers."""
        self._stop = stop
        news, self._news = self._news, {}
        return news

    def take(self, fruitless: Decimal | None) -> Decimal | None:
        """A share of what may be spent, as the purse gives it."""
        assert self._purse is not None
        return self._purse.take(fruitless)

    def give_back(self, rest: Decimal) -> None:
        """What was not spent of a share."""
        assert self._purse is not None
        self._purse.give_back(rest)
