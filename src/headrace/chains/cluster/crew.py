"""Ray Data at work for a run: it gives partitions to workers, and to others where one is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

from attrs import frozen

from headrace.chains.cluster.desk import Desk, Stop
from headrace.chains.cluster.purse import Purse
from headrace.chains.cluster.reports import Report, report_from_plain
from headrace.chains.cluster.worker import Job, Worker
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError
from headrace.net.ray_cluster import joined

MISSING = "chains run on a cluster through Ray: pip install 'headrace[ray]', on each machine"
_HEARD_WITHIN_S = 5.0
_ENDS_WITHIN_S = 10.0


@frozen
class Places:
    """Which cluster (one of our own, where it is None), and how many workers at most."""

    address: str | None = None
    workers: int | None = None


class Crew:
    """Workers, ``most`` at most, at ``count`` partitions; ``job`` tells what each of so many does, and
    ``left`` is what they may spend.

    What Ray does is done in a thread of its own, which lives until all is over: Ray's processes
    would end with it.
    """

    def __init__(
        self,
        places: Places,
        count: int,
        most: int,
        job: Callable[[int], Job],
        left: Decimal | None,
    ) -> None:
        self.stop: Stop = ""
        self._places, self._count, self._most = places, count, most
        self._job, self._left = job, left
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Queue[tuple[int, bytes] | BaseException | None] = asyncio.Queue()
        self._ray: Any = None
        self._desk: Any = None
        self._thread = threading.Thread(target=self._work, name="ray", daemon=True)
        self._asking = threading.Lock()

    async def ended(self) -> AsyncIterator[tuple[int, Report]]:
        """The partitions as they come to their end."""
        self._thread.start()
        while (said := await self._said.get()) is not None:
            if isinstance(said, BaseException):
                raise said
            yield said[0], report_from_plain(said[1])

    async def heard(self) -> dict[int, Report]:
        """How partitions stand; workers hear of ``stop`` meanwhile."""
        news = await asyncio.to_thread(self._news)
        return {number: report_from_plain(each) for number, each in news.items()}

    async def close(self) -> None:
        """End it, at once where it is not over."""
        if not self._thread.is_alive():
            return
        self.stop = "now"
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                while self._thread.is_alive():
                    await self.heard()
                    await asyncio.sleep(0.1)
        if self._thread.is_alive() and self._ray is not None:
            # Some function of the user's may hold a worker up.
            await asyncio.to_thread(self._ray.shutdown)

    def _news(self) -> dict[int, bytes]:
        with self._asking:
            if self._desk is None:
                return {}
            from ray.exceptions import RayError

            try:
                heard = self._desk.hear.remote(self.stop)
                news: dict[int, bytes] = self._ray.get(heard, timeout=_HEARD_WITHIN_S)
            except RayError:
                return {}  # asked again soon; what is lost for good ends the thread, which tells
            return news

    def _say(self, what: tuple[int, bytes] | BaseException | None) -> None:
        with suppress(RuntimeError):  # nobody listens any more
            self._loop.call_soon_threadsafe(self._said.put_nowait, what)

    def _work(self) -> None:
        places = self._places
        own = min(places.workers or os.cpu_count() or 1, self._most, self._count)
        try:
            with joined(places.address, own, param="on", missing=MISSING) as ray:
                try:
                    for number, report in self._carried(ray, self._workers(ray)):
                        self._say((number, report))
                finally:
                    # Who asks when Ray has left has it start another one.
                    with self._asking:
                        self._desk = None
        except LLMError as error:
            self._say(error)
        except Exception as error:  # noqa: BLE001 - Ray has many kinds, and all end the run
            self._say(_lost(error))
        self._say(None)

    def _workers(self, ray: Any) -> int:
        have = int(ray.cluster_resources().get("CPU", 0))
        wanted = self._places.workers
        if wanted is not None and min(wanted, self._most, self._count) > have:
            raise LLMInvalidRequestError(
                f"--workers is {wanted}, and the Ray cluster has {have} processors, of which each "
                "worker takes one; lower --workers, or add nodes",
                param="workers",
            )
        if not have:
            raise LLMUnavailableError(
                "the Ray cluster has no processors, of which a worker takes one; add nodes"
            )
        return min(wanted or have, self._most, self._count)

    def _carried(self, ray: Any, workers: int) -> Any:
        from ray import data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # how it goes is told by us
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        desk = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Desk).remote(
            None if self._left is None else Purse(self._left, workers)
        )
        self._ray, self._desk = ray, desk
        numbers = [{"partition": number} for number in range(self._count)]
        done = data.from_items(numbers, override_num_blocks=self._count).map_batches(
            Worker,
            fn_constructor_args=(self._job(workers), desk),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield int(row["partition"]), bytes(row["report"])


def _lost(error: Exception) -> LLMUnavailableError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lost = LLMUnavailableError(
        f"Ray did not carry the run to its end ({type(error).__name__}: "
        f"{lines[-1] if lines else 'no reason given'}). What was done is kept, and the same command "
        "goes on from there"
    )
    lost.__cause__ = error
    return lost
