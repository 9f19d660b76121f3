"""Where the workers of a run and the command that started it leave word for one another: an actor."""

from __future__ import annotations

from typing import Literal, TypeAlias

Stop: TypeAlias = Literal["", "finish", "now"]
"""Whether to go on, to finish what is under way, or to stop at once."""


class Desk:
    """``begun`` partitions are counted, for one that ends each worker must not go on for ever."""

    def __init__(self) -> None:
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
