"""What somebody who looks at a run sees: how far each node is, how fast it goes, what it costs."""

from __future__ import annotations

import time
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Group, Join, Path, Reduce, Step
from headrace.chains.pace import Pace
from headrace.chains.standing import BatchStanding
from headrace.client.async_client import AsyncClient

if TYPE_CHECKING:
    from headrace.chains.running import Run

_LATELY_S = 10.0


@frozen(kw_only=True)
class NodeLook:
    """One step or function. ``expected`` is how many values will come to it, where that is known."""

    id: str
    engine: str | None = None
    done: int = 0
    expected: int | None = None
    reused: int = 0
    failed: int = 0


@frozen(kw_only=True)
class EngineLook:
    """One engine: requests ``running`` there and ``waiting`` for a place, of which there are
    ``places``; ``state`` is its server's, where we start it."""

    name: str
    running: int = 0
    waiting: int = 0
    places: int | None = None
    state: str | None = None


@frozen(kw_only=True)
class Look:
    """A run at one moment.

    ``usd`` was paid by this attempt and ``usd_before`` by earlier ones; ``usd_to_go`` is what the
    rest would cost if it went on as until now, None where that cannot be told. ``unpriced`` answers
    have no known price. The rates are of the last ten seconds.
    """

    seconds: float = 0.0
    rows: int = 0
    rows_known: int | None = None
    results: int = 0
    failed: int = 0
    made: int = 0
    reused: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: Decimal = Decimal(0)
    usd_before: Decimal = Decimal(0)
    usd_to_go: Decimal | None = None
    unpriced: int = 0
    rows_a_second: float = 0.0
    tokens_a_second: float = 0.0
    nodes: tuple[NodeLook, ...] = ()
    engines: tuple[EngineLook, ...] = ()
    batches: tuple[BatchStanding, ...] = ()


class Looker:
    """Looks at ``run`` whenever it is asked to."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began = time.monotonic()
        self._once = once_a_row(run.chain)
        self._lately: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def look(self) -> Look:
        """How it stands now."""
        run, standing, spent = self._run, self._run.standing, self._run.spending.all
        seconds = time.monotonic() - self._began
        before_s, before_rows, before_tokens = self._before(
            seconds, standing.rows, spent.completion_tokens
        )
        passed = max(seconds - before_s, 1e-9)
        nodes = tuple(
            NodeLook(
                id=node.id,
                engine=node.engine if isinstance(node, Step) else None,
                expected=run.rows_known if node.id in self._once else None,
                **asdict(standing.of(node.id)),
            )
            for node in run.chain.nodes
            if isinstance(node, Step | Apply | Reduce)
        )
        return Look(
            seconds=seconds,
            rows=standing.rows,
            rows_known=run.rows_known,
            results=standing.results,
            failed=standing.failed,
            made=standing.made,
            reused=standing.reused,
            retries=spent.retries,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            usd=spent.usd,
            usd_before=_paid(run),
            usd_to_go=self._to_go(nodes),
            unpriced=spent.unpriced,
            rows_a_second=(standing.rows - before_rows) / passed,
            tokens_a_second=(spent.completion_tokens - before_tokens) / passed,
            nodes=nodes,
            engines=tuple(
                _engine(name, client, run.paces[name]) for name, client in run.clients.items()
            ),
            batches=tuple(standing.batches.values()),
        )

    def whole(self) -> Look:
        """How it stood in the end; the rates are of all the time."""
        look = self.look()
        passed = max(look.seconds, 1e-9)
        return evolve(
            look,
            rows_a_second=look.rows / passed,
            tokens_a_second=look.completion_tokens / passed,
        )

    def _before(self, seconds: float, rows: int, tokens: int) -> tuple[float, int, int]:
        """The look from which on the rates are reckoned."""
        lately = self._lately
        while len(lately) > 1 and lately[1][0] <= seconds - _LATELY_S:
            lately.popleft()
        before = lately[0]
        lately.append((seconds, rows, tokens))
        return before

    def _to_go(self, nodes: tuple[NodeLook, ...]) -> Decimal | None:
        whole = Decimal(0)
        for node in nodes:
            if node.engine is None:
                continue
            spent = self._run.spending.by_step.get(node.id)
            made = node.done - node.reused
            if node.expected is None or (spent is not None and spent.unpriced):
                return None
            left = max(0, node.expected - node.done)
            if left and (spent is None or not made):
                return None
            if left and spent is not None:
                whole += spent.usd / made * left
        return whole


def once_a_row(chain: Chain) -> frozenset[str]:
    """The nodes that each row comes to once, if nothing fails before them."""
    found: set[str] = set()
    _follow(chain.path, found)
    return frozenset(found)


def plain_look(look: Look) -> dict[str, Any]:
    """``look`` for JSON; money as text, so that no digit is lost."""
    plain = asdict(look)
    for name in ("seconds", "rows_a_second", "tokens_a_second"):
        plain[name] = round(plain[name], 3)
    for name in ("usd", "usd_before", "usd_to_go"):
        plain[name] = None if plain[name] is None else f"{plain[name]:f}"
    return plain


def _follow(path: Path, found: set[str]) -> bool:
    """Whether one value leaves ``path`` for each that comes."""
    places = path.places
    for at, place in enumerate(places):
        if isinstance(place, Step):
            found.add(place.id)
        elif isinstance(place, Reduce):
            return False
        elif isinstance(place, Apply):
            found.add(place.id)
            if place.how != "one":
                return False
        elif isinstance(place, Group):
            one_each = [_follow(each, found) for each in place.paths]
            joined = at + 1 < len(places) and isinstance(places[at + 1], Join)
            if not joined or not all(one_each):
                return False
        elif not isinstance(place, Join):
            return False
    return True


def _engine(name: str, client: AsyncClient, pace: Pace) -> EngineLook:
    server, now = client.server_snapshot(), pace.snapshot()
    state = None if server is None else str(server["state"])
    return EngineLook(
        name=name, running=now.running, waiting=now.waiting, places=now.size, state=state
    )


def _paid(run: Run) -> Decimal:
    return sum((each.usd for each in run.earlier.spent.values()), Decimal(0))
